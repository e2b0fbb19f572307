"""One client connection of a sender, and how its errors are named.

The state says what the connection waits for; only the sender moves it. A connection carries one request at a time.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

from hitless.drill.answer import Answer
from hitless.drill.recorder import Recorder, Records, Sent, keys
from hitless.drill.wire import Failure, SenderPlan

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
MAX_IDLE_NS = 4_000_000_000  # below the 5 s after which common servers close an idle connection
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
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


@dataclass(slots=True, eq=False)
class Held:
    """A socket that a client holds in its selector, which watches it for bytes to read."""

    sock: socket.socket | ssl.SSLSocket | None = field(default=None, init=False)
    watches_write: bool = field(default=False, init=False)


@dataclass(slots=True, eq=False)
class Connection(Held):
    """A socket and the request that it carries."""

    state: State = State.CONNECTING
    requests: int = 0  # carried so far, the one at hand included
    answer: Answer = field(default_factory=Answer)
    unsent: bytes | memoryview = b""
    sent: Sent = field(default_factory=Sent)
    idle_since_ns: int = 0
    closing: bool = False
    spoiled: bool = False  # the request's failure was recorded already


class Connections:
    """What the clients of a sender have in common: its plan, its counts, and the sockets that they hold.

    `start_ns` (monotonic) is the origin of the instants in the records.
    """

    def __init__(self, plan: SenderPlan, selector: selectors.BaseSelector, output: Records, start_ns: int) -> None:
        self._plan = plan
        self._selector = selector
        self._recorder = Recorder(output, start_ns)
        self._keys = keys()
        self._deadline_ns = int(plan.deadline_s * 1e9)
        self._dialled = 0
        self.under_way = 0
        self.counts: Counter[str] = Counter()

    def _connect(self) -> socket.socket:
        """A socket that is being connected to the next of the addresses. Raises OSError."""
        address = self._plan.addresses[self._dialled % len(self._plan.addresses)]
        self._dialled += 1
        self.counts["opened"] += 1
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

    def _watch(self, held: Held, *, write: bool) -> None:
        if held.watches_write != write and held.sock is not None:
            held.watches_write = write
            self._selector.modify(held.sock, READ | WRITE if write else READ, held)

    def _hang_up(self, held: Held) -> None:
        if held.sock is not None:
            try:
                self._selector.unregister(held.sock)
            except KeyError:
                pass
            held.sock.close()
            held.sock = None


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
