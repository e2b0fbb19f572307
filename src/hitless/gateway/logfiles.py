"""Log files that HAProxy appends to by descriptors which the guardian opens for it. Standard library only."""

from __future__ import annotations

import contextlib
import os

LARGEST_LOG_BYTES = 1 << 20
LARGEST_ACCESS_LOG_BYTES = 16 << 20
ACCESS_LOGS_KEPT = 3
"""Beside the present one, by the names PATH.1 (the newest) to PATH.3."""


def open_log(path: str) -> int:
    """A log of few lines: begun anew where it has become too large meanwhile."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log).st_size > LARGEST_LOG_BYTES:
        os.ftruncate(log, 0)
    return log


def open_access_log(path: str) -> int:
    """Appended to by HAProxy; nowhere where the file cannot be opened: no log is worth a listener."""
    try:
        log = os.open(path or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        log = os.open(os.devnull, os.O_WRONLY)
    os.set_inheritable(log, True)
    return log


def rotate(path: str, largest_bytes: int = LARGEST_ACCESS_LOG_BYTES, kept: int = ACCESS_LOGS_KEPT) -> None:
    """Copy a log that has become too large to PATH.1, the older ones to .2 up to `kept`, and empty it: its writer has
    it open and appends. Where no copy can be made (a full disk) it is emptied all the same.
    """
    with contextlib.suppress(OSError):
        if os.stat(path).st_size <= largest_bytes:
            return
        with contextlib.suppress(OSError):
            for number in range(kept, 1, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{path}.{number - 1}", f"{path}.{number}")
            with open(path, "rb") as log, open(f"{path}.1", "wb") as old:
                while os.sendfile(old.fileno(), log.fileno(), None, largest_bytes):
                    pass
        os.truncate(path, 0)
