"""Renews the daemon's engine.log before it grows too large: `up` does at a start, the daemon while it runs.

A child process that inherited a descriptor of the old file continues to write there, in engine.log.1.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

LARGEST_BYTES = 4 << 20
LOOK_S = 5.0
STANDARD = (1, 2)


class DaemonLog:
    """The daemon's standard error for structlog. A line that cannot be written (a full disk) is lost, and its cause
    goes on: an error here once left a rollout without an end.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def put_aside_if_large(path: Path, *, largest_bytes: int = LARGEST_BYTES) -> bool:
    """Rename the file to PATH.1, which replaces an older one; whether it was too large."""
    with suppress(OSError):
        if path.stat().st_size > largest_bytes:
            path.replace(f"{path}.1")
            return True
    return False


def renew_if_large(path: Path, *, descriptors: Sequence[int] = STANDARD, largest_bytes: int = LARGEST_BYTES) -> bool:
    """If the file is too large, rename it and point the descriptors to a new one. A full disk changes nothing."""
    with suppress(OSError):
        if not os.path.samestat(os.fstat(descriptors[-1]), path.stat()):
            return False
        if put_aside_if_large(path, largest_bytes=largest_bytes):
            fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for descriptor in descriptors:
                os.dup2(fresh, descriptor)
            os.close(fresh)
            return True
    return False


async def keep_small(path: Path) -> None:
    """Renew the file whenever it is too large, until cancelled."""
    while True:
        renew_if_large(path)
        await asyncio.sleep(LOOK_S)
