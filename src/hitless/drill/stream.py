"""One HTTP/2 request and its answer, and the connection that carries many of them."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from enum import IntEnum

from h2.config import H2Configuration
from h2.connection import H2Connection

from hitless.drill.answer import MAX_KEPT_BODY_BYTES, names_release
from hitless.drill.recorder import Sent
from hitless.drill.wire import WireRequest

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection", b"te"})
Headers = list[tuple[bytes, bytes]]


def headers_of(request: WireRequest, *, tls: bool) -> Headers:
    """The request's head as HTTP/2 has it: pseudo-headers first, names in lower case."""
    first, *lines = request.head.rstrip(b"\r\n").split(b"\r\n")
    method, path, _ = first.split(b" ")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    authority = next((value for name, value in fields if name == b"host"), b"")
    scheme = b"https" if tls else b"http"
    pseudo = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)]
    return pseudo + [(name, value) for name, value in fields if name != b"host" and name not in HOP_BY_HOP]


class Stream:
    """A request under way. `unsent` is what flow control has held back of its body."""

    __slots__ = ("body", "kept", "number", "release", "reused", "sent", "shielded", "started", "status", "unsent")

    def __init__(self, sent: Sent, body: bytes) -> None:
        self.sent = sent
        self.number = 0
        self.unsent: bytes | memoryview = body
        self.reused = False  # its connection had carried another before
        self.started = False
        self.status = 0
        self.release = b""
        self.shielded = False
        self.body: list[bytes] = []
        self.kept = 0

    def read_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """The answer's head."""
        self.started = True
        for name, value in headers:
            if name == b":status":
                self.status = int(value)
            elif name == b"x-hitless-release":
                self.release = value
            elif name == b"x-hitless-shielded":
                self.shielded = value == b"1"

    def keep(self, data: bytes) -> None:
        """A part of the answer's body, kept up to a bound."""
        if self.kept < MAX_KEPT_BODY_BYTES:
            self.body.append(data)
            self.kept += len(data)

    def agrees_with_itself(self) -> bool:
        """False if the header and the JSON body name two different releases."""
        return names_release(b"".join(self.body), self.release)


class LinkState(IntEnum):
    """What a connection waits for."""

    CONNECTING = 0
    SHAKING_HANDS = 1
    OPEN = 2
    CLOSED = 3


class Link:
    """An HTTP/2 connection: the socket, the protocol's state and the streams that are open on it."""

    __slots__ = (
        "carried",
        "idle_since_ns",
        "own",
        "protocol",
        "retired",
        "sock",
        "state",
        "streams",
        "unsent",
        "watches_write",
    )

    def __init__(self, *, own: bool) -> None:
        self.sock: socket.socket | ssl.SSLSocket | None = None
        self.state = LinkState.CONNECTING
        self.protocol = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.streams: dict[int, Stream] = {}
        self.unsent = bytearray()
        self.watches_write = False
        self.own = own  # for one request alone
        self.retired = False  # takes no more requests: the server said so, or it was idle for too long
        self.carried = 0
        self.idle_since_ns = 0

    def has_room(self) -> bool:
        """Whether the server takes one more request on it now."""
        return not self.retired and len(self.streams) < min(self.protocol.remote_settings.max_concurrent_streams, 1000)


def dial(address: tuple[str, int]) -> socket.socket:
    """A socket that is being connected. Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except OSError:
        sock.close()
        raise
    return sock
