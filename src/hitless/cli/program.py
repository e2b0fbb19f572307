"""The program `hitless`.

A command is short, and most of its processor time goes into imports. So garbage is rarely collected, and the command
ends right after its exit handlers: to clear all modules would take a tenth of that time.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import NoReturn

gc.set_threshold(100_000)

from hitless.cli.main import main  # noqa: E402 - imports make much of the garbage


def run() -> NoReturn:
    """Entry point of the console script."""
    codes: list[int] = []
    atexit.register(_end, codes)  # the first that is registered runs last
    try:
        main()
    except SystemExit as end:
        codes += [end.code] if isinstance(end.code, int) else []
        raise


def _end(codes: list[int]) -> None:
    """End the process with its exit code, unless an exception ends it."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    for code in codes:
        os._exit(code)
