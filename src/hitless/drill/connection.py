"""Connects, does the TLS handshake, reads and writes for both of the sender's clients.

A connection's state says what it waits for, and only the client changes it. No call blocks. The report names errors of
the operating system.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from hitless.drill.recorder import Recorder, RecordSink, idempotency_keys
from hitless.drill.wire import FailureKind, SenderPlan

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
MAX_IDLE_NS = 4_000_000_000  # below the 5 s after which common servers close an idle connection
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_RESET = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN, errno.ENOTCONN})
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENETDOWN, errno.EHOSTDOWN})


class ConnectionState(IntEnum):
    """The event that a connection waits for."""

    CONNECTING = 0
    SHAKING_HANDS = 1
    ACTIVE = 2  # a request is under way (HTTP/2: requests can be sent)
    IDLE = 3
    LINGERING = 4  # the response is complete; the server's close (or surplus bytes) is awaited
    CLOSED = 5


@dataclass(slots=True, eq=False)
class SenderConnection:
    """A socket that a client holds in its selector, and the bytes that still have to be written to it."""

    sock: socket.socket | ssl.SSLSocket | None = field(default=None, init=False)
    watches_write: bool = field(default=False, init=False)
    state: ConnectionState = field(default=ConnectionState.CONNECTING, init=False)
    unsent: bytes | memoryview = field(default=b"", init=False)
    dialled_ns: int = field(default_factory=time.monotonic_ns, init=False)


def tls_context(host: str) -> ssl.SSLContext:
    """Verifies the certificate, except of an address: the address of a stage here is in no certificate."""
    context = ssl.create_default_context()
    if ":" in host or host.replace(".", "").isdigit():
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


C = TypeVar("C", bound=SenderConnection)


class Client(ABC, Generic[C]):
    """The connections of one sender. `start_ns` (monotonic) is the origin of the instants in the records.

    `send` leads to exactly one record without the flag AMENDED; `under_way` is the number of requests without one yet.
    """

    alpn: Sequence[str] = ()

    def __init__(self, plan: SenderPlan, selector: selectors.BaseSelector, output: RecordSink, start_ns: int) -> None:
        self._plan = plan
        self._selector = selector
        self._recorder = Recorder(output, start_ns)
        self._keys = idempotency_keys()
        self._deadline_ns = int(plan.deadline_s * 1e9)
        self._dialled = 0
        self._tls = tls_context(plan.host) if plan.tls else None
        if self._tls is not None and self.alpn:
            self._tls.set_alpn_protocols(list(self.alpn))
        self.under_way = 0
        self.counts: Counter[str] = Counter()

    @abstractmethod
    def next_deadline_ns(self) -> int | None:
        """When `expire` must be called next, if nothing happens before."""

    @abstractmethod
    def send(self, n: int, due_ns: int) -> None:
        """Send request n of the schedule, which was due at `due_ns`, now."""

    @abstractmethod
    def expire(self, now: int) -> None:
        """Give up connections and requests that have waited too long."""

    @abstractmethod
    def _established(self, connection: C) -> None:
        """Requests can be written."""

    @abstractmethod
    def _received(self, connection: C, data: bytes) -> None: ...

    @abstractmethod
    def _ended(self, connection: C) -> None:
        """The server closed the connection."""

    @abstractmethod
    def _lost(self, connection: C, failure: FailureKind, detail: str) -> None:
        """The connection failed."""

    def handle(self, connection: C, mask: int) -> None:
        """React to a connection that the selector reports as ready."""
        if connection.state is ConnectionState.CONNECTING:
            self._connected(connection)
        elif connection.state is ConnectionState.SHAKING_HANDS:
            self._shake_hands(connection)
        else:
            if mask & WRITE:
                self._write(connection)
            if mask & READ:
                self._read(connection)

    def _dial(self, connection: C) -> None:
        """Begin to connect, to each address in turn."""
        address = self._plan.addresses[self._dialled % len(self._plan.addresses)]
        self._dialled += 1
        self.counts["opened"] += 1
        try:
            connection.sock = _connecting(address)
        except OSError as error:
            self._lost(connection, failure_of(error), str(error))
            return
        self._selector.register(connection.sock, WRITE, connection)
        connection.watches_write = True

    def _connected(self, connection: C) -> None:
        assert connection.sock is not None
        try:
            if code := connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
            if self._tls is None:
                return self._established(connection)
            raw, connection.sock = connection.sock, None
            self._selector.unregister(raw)
            # raises, and closes the socket, if the server has reset the connection since
            connection.sock = self._tls.wrap_socket(raw, server_hostname=self._plan.host, do_handshake_on_connect=False)
        except OSError as error:
            return self._lost(connection, failure_of(error), str(error))
        connection.state = ConnectionState.SHAKING_HANDS
        self._selector.register(connection.sock, READ | WRITE, connection)
        return self._shake_hands(connection)

    def _shake_hands(self, connection: C) -> None:
        assert isinstance(connection.sock, ssl.SSLSocket)
        try:
            connection.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(connection, write=False)
        except ssl.SSLWantWriteError:
            self._watch(connection, write=True)
        except OSError as error:
            self._lost(connection, failure_of(error), str(error))
        else:
            self._established(connection)

    def _write(self, connection: C) -> None:
        """Write as much of the unsent bytes as the socket accepts."""
        try:
            while connection.unsent and connection.sock is not None:
                sent = connection.sock.send(connection.unsent)
                connection.unsent = memoryview(connection.unsent)[sent:]
                if connection.state < ConnectionState.ACTIVE:
                    connection.state = ConnectionState.ACTIVE
        except WOULD_BLOCK:
            self._watch(connection, write=True)
        except OSError as error:
            if connection.state is ConnectionState.CONNECTING and error.errno == errno.ENOTCONN:
                return  # macOS: not connected yet
            if connection.state is ConnectionState.ACTIVE:
                self._read(connection)  # the server may have responded before it closed
            if connection.sock is not None and connection.state <= ConnectionState.ACTIVE:
                self._lost(connection, failure_of(error), str(error))
        else:
            self._watch(connection, write=False)

    def _read(self, connection: C) -> None:
        while connection.sock is not None:
            try:
                data = connection.sock.recv(65_536)
            except WOULD_BLOCK:
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            except OSError as error:
                self._lost(connection, failure_of(error), str(error))
                return
            if data:
                self._received(connection, data)
            else:
                self._ended(connection)
            if not isinstance(connection.sock, ssl.SSLSocket) or not connection.sock.pending():
                return

    def _watch(self, connection: C, *, write: bool) -> None:
        if connection.watches_write != write and connection.sock is not None:
            connection.watches_write = write
            self._selector.modify(connection.sock, READ | WRITE if write else READ, connection)

    def _hang_up(self, connection: C) -> None:
        connection.state = ConnectionState.CLOSED
        connection.unsent = b""
        if connection.sock is not None:
            try:
                self._selector.unregister(connection.sock)
            except KeyError:
                pass
            connection.sock.close()
            connection.sock = None


def _connecting(address: tuple[str, int]) -> socket.socket:
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


def failure_of(error: OSError) -> FailureKind:
    """The kind of failure for an error of the operating system.

    If this machine is out of something (ports, descriptors, memory) or forbids the call, that is `not_sent`.
    """
    if isinstance(error, ssl.SSLError):
        return FailureKind.TLS_ERROR
    if error.errno == errno.ECONNREFUSED:
        return FailureKind.CONNECTION_REFUSED
    if error.errno in _RESET:
        return FailureKind.CONNECTION_RESET
    if error.errno in _UNREACHABLE:
        return FailureKind.UNREACHABLE
    return FailureKind.NOT_SENT
