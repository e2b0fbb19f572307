"""Runs `hitless` commands in forks of a process that has imported them: imports are most of what a command costs here.

Commands that a test kills, or stops, run by the console script (`Worldclock.start`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.cli.main import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["hitless.cli.aws_aliases", "hitless.cli.aws_setup", "hitless.cli.aws_stack"])


@dataclass
class Ran:
    """A command's output and exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run_hitless(*words: str, folder: Path, environ: Mapping[str, str]) -> Ran:
    """Runs the command in that folder, in a process of its own with that environment and no standard input."""
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "out"), Path(place, "err")
        process = FORKS.Process(target=_run, args=(words, folder, dict(environ), out, err))
        process.start()
        process.join()
        assert process.exitcode is not None
        ran = Ran(process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"))
        process.close()
    return ran


def _run(words: tuple[str, ...], folder: Path, environ: dict[str, str], out: Path, err: Path) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    main(words)
