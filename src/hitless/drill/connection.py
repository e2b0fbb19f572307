"""One client connection of a sender, and how its errors are named.

The state says what the connection waits for; only the sender moves it. A connection carries one request at a time.
"""

from __future__ import annotations

import errno
import socket
import ssl
from enum import IntEnum

from hitless.drill.answer import Answer
from hitless.drill.recorder import Sent
from hitless.drill.wire import Failure

_RESET = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN})
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENETDOWN, errno.EHOSTDOWN})


class State(IntEnum):
    """What a connection waits for."""

    CONNECTING = 0
    SHAKING_HANDS = 1
    ACTIVE = 2  # a request is under way
    IDLE = 3
    LINGERING = 4  # the answer is whole; the server's close (or bytes too many) is awaited
    CLOSED = 5


class Connection:
    """A socket and the request that it carries."""

    __slots__ = (
        "answer",
        "closing",
        "idle_since_ns",
        "requests",
        "sent",
        "sock",
        "spoiled",
        "state",
        "tls",
        "unsent",
        "watches_write",
    )

    def __init__(self) -> None:
        self.sock: socket.socket | ssl.SSLSocket | None = None
        self.state = State.CONNECTING
        self.tls = False
        self.watches_write = False
        self.requests = 0  # carried so far, the one at hand included
        self.answer = Answer()
        self.unsent: bytes | memoryview = b""
        self.sent = Sent()
        self.idle_since_ns = 0
        self.closing = False
        self.spoiled = False  # the request's failure was recorded already


def failure_of(error: OSError) -> Failure:
    """The kind of failure that an operating system's error is.

    What this machine lacks (ports, descriptors, memory, permission) is the generator's fault: `not_sent`.
    """
    if isinstance(error, ssl.SSLError):
        return Failure.TLS_ERROR
    if error.errno == errno.ECONNREFUSED:
        return Failure.CONNECTION_REFUSED
    if error.errno in _RESET:
        return Failure.CONNECTION_RESET
    if error.errno in _UNREACHABLE:
        return Failure.UNREACHABLE
    return Failure.NOT_SENT
