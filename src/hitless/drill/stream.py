"""One HTTP/2 request and its answer, and the connection that carries many of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from h2.config import H2Configuration
from h2.connection import H2Connection

from hitless.drill.answer import Judged
from hitless.drill.connection import Held
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


@dataclass(slots=True, eq=False)
class Stream(Judged):
    """A request under way. `unsent` is what flow control has held back of its body."""

    sent: Sent
    unsent: bytes | memoryview
    number: int = 0
    reused: bool = False  # its connection had carried another before

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


class LinkState(IntEnum):
    """What a connection waits for."""

    CONNECTING = 0
    SHAKING_HANDS = 1
    OPEN = 2
    CLOSED = 3


def _protocol() -> H2Connection:
    return H2Connection(H2Configuration(client_side=True, header_encoding=None))


@dataclass(slots=True, eq=False, kw_only=True)
class Link(Held):
    """An HTTP/2 connection: the socket, the protocol's state and the streams that are open on it."""

    own: bool  # for one request alone
    state: LinkState = LinkState.CONNECTING
    protocol: H2Connection = field(default_factory=_protocol)
    streams: dict[int, Stream] = field(default_factory=dict)
    unsent: bytearray = field(default_factory=bytearray)
    retired: bool = False  # takes no more requests: the server said so, or it was idle for too long
    carried: int = 0
    idle_since_ns: int = 0

    def has_room(self) -> bool:
        """Whether the server takes one more request on it now."""
        return not self.retired and len(self.streams) < min(self.protocol.remote_settings.max_concurrent_streams, 1000)
