"""Which runs' ends a forge has still to be told of, in a file of the receiver's: one that starts again tells them."""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE = "owed-statuses.json"


class Owed:
    """Run → the forge's name of the repository whose commit gets its status."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def all(self) -> dict[int, str]:
        """Nothing where the file is missing or damaged: a status is no reason to fail."""
        try:
            return {int(run): str(repository) for run, repository in json.loads(self._file.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def add(self, run: int, repository: str) -> None:
        self._write({**self.all(), run: repository})

    def done(self, run: int) -> None:
        self._write({number: repository for number, repository in self.all().items() if number != run})

    def _write(self, owed: dict[int, str]) -> None:
        fresh = self._file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(owed))
        fresh.replace(self._file)
