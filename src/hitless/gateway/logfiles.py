"""Log files that HAProxy writes by descriptors which the guardian opens for it. Standard library only."""

from __future__ import annotations

import contextlib
import os
import re

LARGEST_LOG_BYTES = 1 << 20
ACCESS_LOG = "access.log"
LARGEST_ACCESS_LOG_BYTES = 16 << 20
_MOST_AT_ONCE = 1 << 20
ACCESS_LOGS_KEPT = 3
"""Rotated files: PATH.1 (the newest) to PATH.3."""
EACH_STAGE = "*"
"""A folder in the path of a log: each line begins with its stage, whose folder takes the place."""
LIVE_SERVER = "live"
"""The server in `shield_of`'s backend that responds when the candidate has failed; access logs name it."""


def open_log(path: str) -> int:
    """Open a log of few lines; empty it if it is too large."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log).st_size > LARGEST_LOG_BYTES:
        os.ftruncate(log, 0)
    return log


class PipedLog:
    """A log of many lines: HAProxy writes into a FIFO, and its content goes into a file that is rotated by size.

    A FIFO, because HAProxy removes O_APPEND from any descriptor that it logs to, and would write at its old position in
    a file that was emptied. HAProxy drops a line if the FIFO is full or has no reader. It keeps its end when the
    guardian dies; the next guardian opens the same FIFO.
    """

    def __init__(
        self, fifo: str, path: str, largest_bytes: int = LARGEST_ACCESS_LOG_BYTES, kept: int = ACCESS_LOGS_KEPT
    ) -> None:
        self._fifo, self._path, self._largest_bytes, self._kept = fifo, path, largest_bytes, kept
        ends = f"/{EACH_STAGE}/{ACCESS_LOG}"
        self._stages, self._rest = path.removesuffix(ends) if path.endswith(ends) else None, b""
        with contextlib.suppress(FileExistsError):
            os.mkfifo(fifo, 0o600)
        self.reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)  # also a writer, so that it never reports end of file

    def writer(self) -> int:
        """HAProxy's end, inheritable; the caller closes it. It is /dev/null if the FIFO cannot be opened."""
        try:
            descriptor = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            descriptor = os.open(os.devnull, os.O_WRONLY)
        os.set_inheritable(descriptor, True)
        return descriptor

    def take(self) -> None:
        """Move the FIFO's content into the file, or into each stage's. Drops what cannot be written."""
        with contextlib.suppress(OSError):
            data = os.read(self.reader, _MOST_AT_ONCE)
            for path, lines in self._parts(data).items() if self._stages else [(self._path, data)]:
                with contextlib.suppress(OSError):
                    self._append(path, lines)

    def _parts(self, data: bytes) -> dict[str, bytes]:
        """File → its complete lines. An incomplete one waits for its rest."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        found: dict[str, bytes] = {}
        for line in lines:
            stage, _, rest = line.partition(b" ")
            if re.fullmatch(rb"[A-Za-z0-9_-]{2,}", stage):  # HAProxy writes a dash for a missing value
                path = f"{self._stages}/{stage.decode()}/{ACCESS_LOG}"
                found[path] = found.get(path, b"") + rest + b"\n"
        return found

    def _append(self, path: str, data: bytes) -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, data)
            large = data.endswith(b"\n") and os.fstat(file).st_size > self._largest_bytes
        finally:
            os.close(file)
        if large:
            self._rotate(path)

    def _rotate(self, path: str) -> None:
        for number in range(self._kept, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}.{number - 1}", f"{path}.{number}")
        os.rename(path, f"{path}.1")
