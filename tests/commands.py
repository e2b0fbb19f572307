"""Runs `hitless` commands in forks of a process that has imported them: imports are most of what a command costs here.

Commands that a test kills, or stops, run by the console script or by `python -m hitless`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.cli.main import MODULES, main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([f"hitless.cli.{name}" for name in MODULES])


@dataclass
class Ran:
    """A command's output and exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run_hitless(
    *words: str,
    environ: Mapping[str, str],
    folder: Path | None = None,
    stdin: str = "",
    timeout_s: float | None = None,
) -> Ran:
    """Run the command in a process of its own with that environment, in `folder` (default: this process's).

    Raises TimeoutError, after a SIGKILL, when the command takes longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory() as place:
        streams = Path(place, "in"), Path(place, "out"), Path(place, "err")
        streams[0].write_text(stdin, "utf-8")
        process = FORKS.Process(target=_run, args=(words, folder or Path.cwd(), dict(environ), streams))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"hitless {' '.join(words)} took longer than {timeout_s} s: {streams[2].read_text()}")
        ran = Ran(process.exitcode, streams[1].read_text("utf-8"), streams[2].read_text("utf-8"))
        process.close()
    return ran


def _run(words: tuple[str, ...], folder: Path, environ: dict[str, str], streams: tuple[Path, Path, Path]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    for stream, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - multiprocessing's is /dev/null
    main(words)
