"""Parses the HTTP/1.1 requests of one connection with httptools, within limits.

Invariant: a request is passed on only when it is complete. One that exceeds a limit is passed on with `refusal` set,
when its message has ended or cannot be read on.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

LARGEST_BODY_BYTES: Final = 10 * 1024 * 1024
"""API Gateway's limit for a request's payload."""
LARGEST_HEADER_BYTES: Final = 64 * 1024
REFUSALS: Final = {400: "Bad Request", 413: "Request Too Long", 431: "Request Header Fields Too Large"}
"""The statuses of `Request.refusal`, with their messages."""

INVOKE: Final = "ACL"
"""The method by which a worker invokes an authorizer's function. The gateway takes it from no client."""

_X: Final = 0x78  # the letter, in lower case
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Head:
    """What requests with the same method and header lines have in common, except for the id in `internal`.

    They share it, so nothing may change it. `view`: what an event builder has made of it.
    """

    __slots__ = ("body_bytes", "headers", "internal", "method", "view")

    def __init__(self, request: Request) -> None:
        self.method, self.headers, self.internal = request.method, request.headers, request.internal
        self.body_bytes = len(request.body)
        self.view: object = None


class Request:
    """One complete request. `refusal` is the status to respond with instead of running it, 0 if it is acceptable.

    `head`: set if other requests share its headers.
    """

    __slots__ = ("body", "head", "headers", "internal", "keep_alive", "method", "refusal", "target")

    def __init__(self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.keep_alive = True
        self.refusal = 0
        self.head: Head | None = None
        self.internal: dict[bytes, bytes] = {}
        """The gateway's own headers, `x-hl-…`, by lower-case name."""


def header(request: Request, name: bytes) -> str | None:
    """The first value of a header, by its lower-case name."""
    return next((value.decode("latin-1") for key, value in request.headers if key.lower() == name), None)


class RequestReader:
    """Feeds bytes to the parser and collects complete requests in `ready`."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_header_bytes",
        "_headers",
        "_in_headers",
        "_internal",
        "_invites",
        "_parser",
        "_refusal",
        "_target",
        "interim",
        "middle",
        "ready",
    )

    def __init__(self) -> None:
        self.ready: deque[Request] = deque()
        self.middle = False
        """A request has begun and is not complete."""
        self.interim = b""
        """To be sent before anything else: `100 Continue`, or nothing."""
        self._parser: Any = HttpRequestParser(self)
        self._header_bytes = 0
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._internal: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._refusal = 0
        self._in_headers = True
        self._invites = False

    def feed(self, data: bytes) -> bool:
        """Parse received data. False if the connection cannot be read on: respond to the ready requests, then close."""
        self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            return self._decline_upgrade(data[upgrade.args[0] :])
        except HttpParserError:
            return self._unreadable(400)
        if self._in_headers and self.middle and self._header_bytes > LARGEST_HEADER_BYTES + len(data):
            return self._unreadable(431)
        return True

    def _decline_upgrade(self, rest: bytes) -> bool:
        """Parse again without the upgrade offer: the parser read no body, which would be taken for the next request."""
        offer = self.ready.pop()
        if offer.method == "CONNECT":  # no offer: it is not HTTP from here on
            return self._unreadable(400)
        kept = [pair for pair in offer.headers if pair[0].lower() not in (b"upgrade", b"connection")]
        lines = b"".join(b"%s: %s\r\n" % pair for pair in (*kept, *offer.internal.items()))
        self._parser = HttpRequestParser(self)
        return self.feed(b"%s %s HTTP/1.1\r\n%s\r\n%s" % (offer.method.encode(), self._target, lines, rest))

    def _unreadable(self, status: int) -> bool:
        request = Request("GET", "/", [])
        request.keep_alive, request.refusal = False, status
        self.ready.append(request)
        self.middle = False
        return False

    def on_message_begin(self) -> None:
        self._reset()
        self.middle = True

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser for each header and trailer. Trailers are dropped, as API Gateway does: the gateway
        checks headers only, so a client could send the gateway's own names there.
        """
        if not self._in_headers:
            return
        length = len(name)
        if length > 5 and name[0] | 32 == _X and name[:5].lower() == b"x-hl-":
            self._internal[name.lower()] = value
            return
        if length == 14 and name.lower() == b"content-length" and int(value) > LARGEST_BODY_BYTES:
            self._refusal = 413
        elif length == 6 and name.lower() == b"expect" and value.lower() == b"100-continue":
            self._invites = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser: refuses too large requests early, and invites a body that waits for it."""
        self._in_headers = False
        if self._header_bytes > LARGEST_HEADER_BYTES:  # includes the body that came along, so count exactly
            size = len(self._target) + sum(len(name) + len(value) for name, value in self._headers)
            self._refusal = 431 if size > LARGEST_HEADER_BYTES else self._refusal
        if self._invites and not self._refusal:
            self.interim = _CONTINUE

    def on_body(self, chunk: bytes) -> None:
        """Called by the parser; a body beyond the limit is read and dropped."""
        self._body_bytes += len(chunk)
        if self._body_bytes > LARGEST_BODY_BYTES:
            self._refusal = 413
            self._body.clear()
        elif not self._refusal:
            self._body.append(chunk)

    def on_message_complete(self) -> None:
        parser = self._parser
        target = self._target.decode("latin-1")
        request = Request(parser.get_method().decode("ascii"), target, self._headers, b"".join(self._body))
        request.internal = self._internal
        request.keep_alive = parser.should_keep_alive()
        request.refusal = self._refusal
        self.ready.append(request)
        self.middle = False
        self._header_bytes = 0
        self._body = []
