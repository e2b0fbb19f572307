"""The program `hitless`. Only the console script and `python -m hitless` may import this module.

A command is short, and most of its processor time goes into imports. So garbage is rarely collected, and the command
ends right after its exit handlers: to clear all modules would take a tenth of that time.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import NoReturn

_codes: list[int] = []


@atexit.register  # before all modules that register handlers: the first that is registered runs last
def _end() -> None:
    """End the process with its exit code, unless an exception ends it."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    for code in _codes:
        os._exit(code)


gc.set_threshold(100_000)

from hitless.cli.main import main  # noqa: E402


def run() -> NoReturn:
    """Entry point of the console script."""
    try:
        main()
    except SystemExit as end:
        _codes.extend([end.code] if isinstance(end.code, int) else [])
        raise
