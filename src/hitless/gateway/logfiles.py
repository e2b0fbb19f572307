"""Log files that HAProxy writes by descriptors which the guardian opens for it. Standard library only."""

from __future__ import annotations

import contextlib
import os

LARGEST_LOG_BYTES = 1 << 20
LARGEST_ACCESS_LOG_BYTES = 16 << 20
_MOST_AT_ONCE = 1 << 20
ACCESS_LOGS_KEPT = 3
"""Beside the present one, by the names PATH.1 (the newest) to PATH.3."""


def open_log(path: str) -> int:
    """A log of few lines: begun anew where it has become too large meanwhile."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log).st_size > LARGEST_LOG_BYTES:
        os.ftruncate(log, 0)
    return log


class PipedLog:
    """A log of many lines: what HAProxy writes into a FIFO goes into a file that is rotated by its size.

    A FIFO, since HAProxy takes O_APPEND from any descriptor that it logs to, and writes on where it was in a file that
    has been emptied. It does not wait for a full one, nor for one without a reader: then its line is dropped. It keeps
    its end over a guardian's death; the next guardian opens the same FIFO.
    """

    def __init__(
        self, fifo: str, path: str, largest_bytes: int = LARGEST_ACCESS_LOG_BYTES, kept: int = ACCESS_LOGS_KEPT
    ) -> None:
        self._fifo, self._path, self._largest_bytes, self._kept = fifo, path, largest_bytes, kept
        with contextlib.suppress(FileExistsError):
            os.mkfifo(fifo, 0o600)
        self.reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)  # its own writer: it never reports an end

    def writer(self) -> int:
        """HAProxy's end, inheritable; the caller closes it. Leads nowhere where it cannot be had."""
        try:
            descriptor = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            descriptor = os.open(os.devnull, os.O_WRONLY)
        os.set_inheritable(descriptor, True)
        return descriptor

    def take(self) -> None:
        """Move what has come into the file. What the disk does not take is dropped."""
        with contextlib.suppress(OSError):
            data = os.read(self.reader, _MOST_AT_ONCE)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(file, data)
                large = data.endswith(b"\n") and os.fstat(file).st_size > self._largest_bytes
            finally:
                os.close(file)
            if large:
                self._rotate()

    def _rotate(self) -> None:
        for number in range(self._kept, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self._path}.{number - 1}", f"{self._path}.{number}")
        os.rename(self._path, f"{self._path}.1")
