"""A worker's log file, as CloudWatch would show it: one line per record, `2026-11-24T07:50:26.123Z\\t<message>`.

Descriptors 1 and 2 are the file, so a handler's subprocesses and C code write to it as well (their lines have no
timestamp, and may come before the START line of their request). If the handler prints nothing, the log takes one write
per request: the START line waits for the first other line. Files, never pipes: a pipe would tie the worker's life to
its reader's.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hitless.worker.process import open_log

ROTATE_AT_BYTES: Final = 16 * 1024 * 1024
REQUEST_CHARACTERS: Final = 8 * 1024 * 1024
"""A handler's lines in one request beyond this are dropped: a handler that prints in a loop must not fill the disk."""
_CUT: Final = "hitless: the log of this request is cut off here, it is too long"
_LOOK_AGAIN_BYTES: Final = 256 * 1024
"""After this many bytes of its own, a log checks the file's size, because other processes write to it as well."""


_NOW_NS: Final = time.time_ns
_WRITE: Final = os.write


class LogFile:
    """The file behind descriptors 1 and 2 of this process. It never raises: a full disk must not fail a request."""

    def __init__(self, *, rotate_at_bytes: int = ROTATE_AT_BYTES, request_characters: int = REQUEST_CHARACTERS) -> None:
        self.path: Path | None = None
        self.request_id = ""
        self._rotate_at_bytes = rotate_at_bytes
        self._request_characters = self._left = request_characters
        self._pending = ""
        self._unchecked_bytes = 0
        self._second = -1
        self._second_text = ""
        self._stamp_ms = -1
        self._stamp_text = ""

    def open(self, path: Path) -> None:
        """Write to this file from now on, through descriptors 1 and 2.

        A file that is too large is rotated first, because a process that dies in each request never rotates it later.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            if path.stat().st_size > self._rotate_at_bytes:
                os.replace(path, f"{path}.1")
        except OSError:
            pass
        fd = open_log(path)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        if fd > 2:
            os.close(fd)
        self.path = path
        self._unchecked_bytes = self._rotate_at_bytes

    def stamp(self) -> str:
        """The timestamp at the beginning of a line."""
        now_ms = _NOW_NS() // 1_000_000
        if now_ms != self._stamp_ms:
            second = now_ms // 1000
            if second != self._second:
                self._second = second
                self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._stamp_ms = now_ms
            # Without a format specification, which is slow when compiled.
            self._stamp_text = f"{self._second_text}.{str(1000 + now_ms % 1000)[1:]}Z\t"
        return self._stamp_text

    def start(self, request_id: str, version: str) -> None:
        """Begin a request: its START line is written together with the next line."""
        self.request_id, self._left = request_id, self._request_characters
        self._pending = f"{self.stamp()}START RequestId: {request_id} Version: {version}\n"

    def lines(self, text: str, *, of_handler: bool = False) -> bool:
        """Write text, each line with a timestamp. True if this also wrote a START line that had waited."""
        stamp, left = self.stamp(), self._left
        if of_handler:
            text = text[: max(left, 0)]
        added = "".join(f"{stamp}{line}\n" for line in text.splitlines())
        if of_handler and left > 0:
            self._left = left - len(added)
            added = added if self._left > 0 else f"{added[:left]}\n{stamp}{_CUT}\n"
        started, self._pending = self._pending, ""
        self._write(started + added)
        return bool(started)

    def end(self, report: str) -> None:
        """End a request with its END line and its REPORT line, in one write with lines that waited."""
        stamp = self.stamp()
        text = f"{self._pending}{stamp}END RequestId: {self.request_id}\n{stamp}{report}\n"
        self._pending = self.request_id = ""
        self._write(text)
        self._unchecked_bytes += len(text)
        if self._unchecked_bytes > _LOOK_AGAIN_BYTES:
            self._rotate_if_large()

    def _write(self, text: str) -> None:
        try:
            _WRITE(1, text.encode("utf-8", "backslashreplace"))
        except OSError:
            pass

    def _rotate_if_large(self) -> None:
        self._unchecked_bytes = 0
        try:
            if self.path and os.fstat(1).st_size > self._rotate_at_bytes:
                self.open(self.path)  # rotates only this file, not another that has replaced it
                self._unchecked_bytes = 0
        except OSError:
            pass


def _nothing() -> None:
    """Does nothing: the zygote has no request, and so no START line."""


class LogStream(io.TextIOBase):
    """`sys.stdout` and `sys.stderr` of a handler: complete lines go to the log at once."""

    def __init__(self, log: LogFile, fd: int) -> None:
        self._log = log
        self._fd = fd
        self.partial = ""
        self.buffer: Final = io.FileIO(fd, "w", closefd=False)
        self.on_start_written: Callable[[], None] = _nothing

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str) -> int:
        """Keep a partial line until it is complete or the request ends."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        whole, newline, rest = text.rpartition("\n")
        if newline:
            whole, self.partial = self.partial + whole, rest
            if self._log.lines(whole or " ", of_handler=True):
                self.on_start_written()
        else:
            self.partial += text
        return len(text)

    def reconfigure(self, **options: object) -> None:
        """Accepted without effect: handlers ask for line buffering, which `sys.stdout` has."""

    def flush(self) -> None:
        """Do nothing: complete lines are written at once, and a partial one is not a record yet."""

    def end_line(self) -> None:
        if self.partial:
            self.write("\n")


class LambdaLogHandler(logging.Handler):
    """The root logger's handler, in the format of Lambda's runtime: level, instant, request id, message."""

    def __init__(self, log: LogFile, stream: LogStream) -> None:
        super().__init__()
        self._log = log
        self._stream = stream
        formatter = logging.Formatter(
            "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            record.aws_request_id = self._log.request_id
            self._stream.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - logging's rule: a record that cannot be formatted must not raise
            self.handleError(record)
