"""Reads one response as it arrives, and judges it. Pure: no socket.

The drill has its own parser for HTTP/1.1, because it must count what a library forgives: bytes after the response, a
wrong content-length, a premature end. Bodies are kept up to a limit, to look for the release in them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hitless.drill.wire import FailureKind

MAX_HEAD_BYTES = 65_536
MAX_KEPT_BODY_BYTES = 1_048_576
_LENGTH, _CHUNKED, _UNTIL_CLOSE = 0, 1, 2


class BadResponse(Exception):
    """The bytes are not an HTTP/1.1 response."""


def names_release(body: bytes, release: bytes) -> bool:
    """False only if `body` is JSON whose key `release` differs from the header's value (empty: no header)."""
    if not release or b'"release"' not in body:
        return True
    try:
        document = json.loads(body)
    except ValueError:
        return True
    said = document.get("release") if isinstance(document, dict) else None
    if isinstance(said, bool) or not isinstance(said, int | str):
        return True
    return str(said).encode() == release


@dataclass(slots=True, eq=False)
class Response:
    """The parts of a response that a drill examines, in either protocol. Its body is kept up to a limit."""

    started: bool = field(default=False, init=False)
    status: int = field(default=0, init=False)
    release: bytes = field(default=b"", init=False)
    shielded: bool = field(default=False, init=False)
    surplus: bytes = field(default=b"", init=False)
    _body: list[bytes] = field(default_factory=list, init=False)
    kept_bytes: int = field(default=0, init=False)

    def keep(self, data: bytes) -> None:
        """Add a part of the body."""
        if data and self.kept_bytes < MAX_KEPT_BODY_BYTES:
            self._body.append(data)
            self.kept_bytes += len(data)

    def fault(self, *, check_release: bool) -> tuple[FailureKind, str] | None:
        """The kind of failure of a complete response and its description; None if it is good."""
        if self.status >= 500:
            return FailureKind.STATUS_5XX, f"status {self.status}"
        if self.surplus:
            return FailureKind.WRONG_LENGTH, f"after the response came {self.surplus[:24]!r}"
        if check_release and not names_release(b"".join(self._body), self.release):
            return FailureKind.MISMATCH, f"the header says {self.release.decode('latin-1')}, the body does not"
        return None


@dataclass(slots=True, eq=False, kw_only=True)
class Http1Response(Response):
    """One response being read: `feed` it bytes until it is complete, and `end` it when the connection ends."""

    bodiless: bool = False
    complete: bool = field(default=False, init=False)
    keep_alive: bool = field(default=True, init=False)
    _pending: bytes = field(default=b"", init=False)
    _in_body: bool = field(default=False, init=False)
    _framing: int = field(default=_UNTIL_CLOSE, init=False)
    _left: int = field(default=0, init=False)

    def feed(self, data: bytes) -> bool:
        """Read bytes; True once the response is complete (`surplus` has the bytes after it). Raises BadResponse."""
        self.started = True
        if not self._in_body:
            if self._pending:
                data = self._pending + data
            rest = self._read_head(data)
            if rest is None:
                return False
            data = rest
        if self._framing == _LENGTH:
            return self._read_length(data)
        if self._framing == _CHUNKED:
            return self._read_chunks(data)
        self.keep(data)
        return False

    def end(self) -> bool:
        """Handle the connection's end; True if that completes the response (its body has no length)."""
        self.complete = self.complete or (self._in_body and self._framing == _UNTIL_CLOSE)
        return self.complete

    def _read_head(self, data: bytes) -> bytes | None:
        """Parse the headers. Returns the bytes after them, or None while they are incomplete."""
        while True:
            if not data.startswith(b"HTTP/1."[: len(data)]):
                raise BadResponse(f"the response begins with {data[:24]!r}")
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEAD_BYTES:
                    raise BadResponse(f"the response's head is larger than {MAX_HEAD_BYTES} bytes")
                self._pending = data
                return None
            first, *lines = data[:end].split(b"\r\n")
            data = data[end + 4 :]
            self._read_status(first)
            if self.status >= 200:
                break
            if self.status == 101:
                raise BadResponse("the response switches protocols, which was not requested")
        self._in_body = True
        self._pending = b""
        self._read_headers(lines)
        return data

    def _read_status(self, line: bytes) -> None:
        version, _, rest = line.partition(b" ")
        code, _, _ = rest.partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not code.isdigit() or code < b"100":
            raise BadResponse(f"not a status line of HTTP/1.1: {line[:40]!r}")
        self.status = int(code)
        self.keep_alive = version == b"HTTP/1.1"

    def _read_headers(self, lines: list[bytes]) -> None:
        length = -1
        chunked = False
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name[-1:] in b" \t":
                raise BadResponse(f"a header line is {line[:40]!r}")
            name = name.lower()
            if name == b"content-length":
                value = value.strip()
                if not value.isdigit() or length not in (-1, int(value)):
                    raise BadResponse(f"the content-length is {value[:40]!r}")
                length = int(value)
            elif name == b"x-hitless-release":
                self.release = value.strip()
            elif name == b"connection":
                value = value.lower()
                self.keep_alive = b"close" not in value and (self.keep_alive or b"keep-alive" in value)
            elif name == b"transfer-encoding":
                chunked = value.strip().lower().endswith(b"chunked")
            elif name == b"x-hitless-shielded":
                self.shielded = value.strip() == b"1"
        if self.bodiless or self.status in (204, 304):
            self._framing, self._left = _LENGTH, 0
        elif chunked:
            self._framing, self._left = _CHUNKED, 0
        elif length >= 0:
            self._framing, self._left = _LENGTH, length
        else:
            self._framing, self.keep_alive = _UNTIL_CLOSE, False

    def _read_length(self, data: bytes) -> bool:
        size = len(data)
        if size < self._left:
            self.keep(data)
            self._left -= size
            return False
        if size > self._left:
            self.surplus = data[self._left :]
            data = data[: self._left]
        self.keep(data)
        self._left = 0
        self.complete = True
        return True

    def _read_chunks(self, data: bytes) -> bool:
        data = self._pending + data
        while data:
            if self._left:
                data = self._read_chunk(data)
                continue
            line, newline, rest = data.partition(b"\r\n")
            if not newline:
                break
            if self._chunk_size(line) == 0:
                end = data.find(b"\r\n\r\n")  # trailers end with an empty line, which may come at once
                if end < 0:
                    break
                self.surplus = data[end + 4 :]
                self.complete = True
                return True
            self._left = self._chunk_size(line) + 2
            data = rest
        if len(data) > MAX_HEAD_BYTES:
            raise BadResponse("the line that begins a chunk does not end")
        self._pending = data
        return False

    def _read_chunk(self, data: bytes) -> bytes:
        """Read the bytes of the current chunk (`_left` includes its closing CRLF) and return those after it."""
        if self._left > 2:
            taken = data[: self._left - 2]
            self.keep(taken)
        else:
            taken = data[: self._left]
            if not b"\r\n"[2 - self._left :].startswith(taken):
                raise BadResponse("a chunk is longer than it said")
        self._left -= len(taken)
        return data[len(taken) :]

    @staticmethod
    def _chunk_size(line: bytes) -> int:
        digits = line.partition(b";")[0].strip()
        if not digits or len(digits) > 15 or digits.strip(b"0123456789abcdefABCDEF"):
            raise BadResponse(f"a chunk's length is {line[:40]!r}")
        return int(digits, 16)
