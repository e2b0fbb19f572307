"""Commit statuses and comments: what a forge shows beside a commit, and which statuses are not delivered yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from hitless.documents import decode, replace_file, to_text
from hitless.errors import EngineError

FILE = "owed-statuses.json"
COMMENTS_FILE = "comments.json"
COMMENTS_KEPT = 1000
_STATES = {"succeeded": "success", "queued": "pending", "running": "pending", "waiting_for_approval": "pending"}


class CommitStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """`state` is `pending`, `success` or `failure`; each `context` of a commit has one status."""

    state: str
    context: str
    description: str
    target_url: str | None = None

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> CommitStatus:
        """The status of a run's commit."""
        said = f"run {run['run']}: {run['state'].replace('_', ' ')}" + (f": {run['reason']}" if run["reason"] else "")
        state, context = _STATES.get(run["state"], "failure"), f"hitless/{run['stage'] or _tests_of(run)}"
        if url := run.get("preview"):
            return cls(state, context, f"{said}, preview at {url}/", f"{url}/")
        return cls(state, context, said)


def _tests_of(run: Mapping[str, Any]) -> str:
    """The context of runs without a stage; services that share an engine and a repository have different ones."""
    return f"{run['service']}_tests" if run.get("service") else "tests"


class UndeliveredStatuses:
    """Commit statuses not delivered yet (run → repository at the forge), in a file that outlives the receiver."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def all(self) -> dict[int, str]:
        """Empty if the file is missing or damaged: a lost status must not stop the receiver."""
        try:
            return decode(self._file.read_bytes(), dict[int, str], self._file.name)
        except (OSError, EngineError):
            return {}

    def add(self, run: int, repository: str) -> None:
        replace_file(self._file, to_text({**self.all(), run: repository}))

    def done(self, run: int) -> None:
        left = {number: repository for number, repository in self.all().items() if number != run}
        replace_file(self._file, to_text(left))


class PostedComments:
    """The newest comments by subject, such as `team/shop pull/5 staging`, in a file, so that reports update them.

    The ids are kept here and not searched at the forge, where anyone could write a comment that looks like ours.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._lock = folder / COMMENTS_FILE, Lock()

    def id_of(self, subject: str) -> int | None:
        return self._all().get(subject)

    def add(self, subject: str, comment: int) -> None:
        with self._lock:
            kept = {**self._all(), subject: comment}
            replace_file(self._file, to_text(dict(list(kept.items())[-COMMENTS_KEPT:])))

    def _all(self) -> dict[str, int]:
        """Empty if the file is missing or damaged: then the next report is a new comment."""
        try:
            return decode(self._file.read_bytes(), dict[str, int], self._file.name)
        except (OSError, EngineError):
            return {}
