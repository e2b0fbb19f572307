"""A lean HTTP/1.1 client of many connections: sends when told, and writes one record for each request.

On raw sockets rather than a library, because errors must reach the report as the kernel names them, and because the
drill shares its machine with the service. Standard library only. Invariants: `send` leads to exactly one record without
the flag AMENDED; no call blocks; `under_way` is the number of requests without their record.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
import time
from collections import deque

from hitless.drill.answer import Answer, BadAnswer
from hitless.drill.connection import MAX_IDLE_NS, READ, WOULD_BLOCK, WRITE, Connection, Connections, State, failure_of
from hitless.drill.pace import opens_connection
from hitless.drill.recorder import Records, Sent
from hitless.drill.wire import Failure, SenderPlan

LINGER_NS = 1_000_000_000
_NO_ANSWER = Answer()


class Client(Connections):
    """The connections of one sender."""

    def __init__(self, plan: SenderPlan, selector: selectors.BaseSelector, output: Records, start_ns: int) -> None:
        super().__init__(plan, selector, output, start_ns)
        self._payloads = [
            (one.head + b"\r\n" + one.body, one.head + b"Connection: close\r\n\r\n" + one.body) for one in plan.requests
        ]
        self._tls = ssl.create_default_context() if plan.tls else None
        self._idle: deque[Connection] = deque()
        self._deadlines: deque[tuple[int, int, Connection]] = deque()
        self._lingering: deque[tuple[int, int, Connection]] = deque()
        self._kept = 0  # open connections that are meant to be used again

    def next_deadline_ns(self) -> int | None:
        """The instant at which `expire` has something to do, if nothing happens before."""
        heads = [queue[0][0] for queue in (self._deadlines, self._lingering) if queue]
        return min(heads, default=None)

    def handle(self, connection: Connection, mask: int) -> None:
        """The selector says that a connection is ready."""
        if connection.state is State.CONNECTING:
            self._connected(connection)
        elif connection.state is State.SHAKING_HANDS:
            self._shake_hands(connection)
        else:
            if mask & WRITE:
                self._write(connection)
            if mask & READ:
                self._read(connection)

    def send(self, n: int, due_ns: int) -> None:
        """Send request n of the schedule, which was due at `due_ns`, now."""
        closing = opens_connection(n, self._plan.new_connections_percent)
        now = time.monotonic_ns()
        connection = None if closing or self._kept < self._plan.connections else self._take_idle(now)
        fresh = connection is None
        if connection is None:
            connection = Connection()
            self._kept += not closing
        index = self._plan.order[n % len(self._plan.order)]
        connection.sent = Sent(n, index, due_ns, now)
        connection.closing, connection.spoiled = closing, False
        connection.requests += 1
        connection.answer = Answer(bodiless=self._plan.requests[index].bodiless_answer)
        connection.unsent = self._payload(index, closing=closing)
        self.under_way += 1
        self._deadlines.append((now + self._deadline_ns, n, connection))
        if fresh:
            self._dial(connection)
        else:
            connection.state = State.ACTIVE
            self._write(connection)

    def _payload(self, index: int, *, closing: bool) -> bytes:
        request = self._plan.requests[index]
        payload = self._payloads[index][closing]
        if not request.fresh_key:
            return payload
        return b"%sIdempotency-Key: %s\r\n%s" % (request.head, next(self._keys), payload[len(request.head) :])

    def _take_idle(self, now: int) -> Connection | None:
        """The connection that was idle longest: all are used in turn, none is kept until the server may close it."""
        while self._idle:
            connection = self._idle.popleft()
            if connection.state is not State.IDLE:
                continue
            if now - connection.idle_since_ns < MAX_IDLE_NS:
                return connection
            self.counts["idle_retired"] += 1
            self._close(connection)
        return None

    def _dial(self, connection: Connection) -> None:
        try:
            connection.sock = self._connect()
        except OSError as error:
            self._fail(connection, failure_of(error), str(error))
            return
        self._selector.register(connection.sock, WRITE, connection)
        connection.watches_write = True
        if self._tls is None:
            self._write(connection)  # on one machine the connection stands already

    def _connected(self, connection: Connection) -> None:
        assert connection.sock is not None
        code = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            error = OSError(code, os.strerror(code))
            self._fail(connection, failure_of(error), str(error))
        elif self._tls is not None:
            self._selector.unregister(connection.sock)
            try:
                connection.sock = self._tls.wrap_socket(
                    connection.sock, server_hostname=self._plan.host, do_handshake_on_connect=False
                )
            except OSError as gone:
                self._fail(connection, failure_of(gone), str(gone))
                return
            connection.state = State.SHAKING_HANDS
            self._selector.register(connection.sock, READ | WRITE, connection)
            self._shake_hands(connection)
        else:
            self._write(connection)

    def _shake_hands(self, connection: Connection) -> None:
        assert isinstance(connection.sock, ssl.SSLSocket)
        try:
            connection.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(connection, write=False)
        except ssl.SSLWantWriteError:
            self._watch(connection, write=True)
        except OSError as error:
            self._fail(connection, failure_of(error), str(error))
        else:
            self._write(connection)

    def _write(self, connection: Connection) -> None:
        assert connection.sock is not None
        try:
            sent = connection.sock.send(connection.unsent)
        except WOULD_BLOCK:
            return self._watch(connection, write=True)
        except OSError as error:
            return self._write_failed(connection, error)
        connection.state = State.ACTIVE
        if sent == len(connection.unsent):
            connection.unsent = b""
            return self._watch(connection, write=False)
        connection.unsent = memoryview(connection.unsent)[sent:]
        return self._watch(connection, write=True)

    def _write_failed(self, connection: Connection, error: OSError) -> None:
        if connection.state is State.CONNECTING and error.errno == errno.ENOTCONN:
            return  # macOS: not connected yet
        if connection.state is State.ACTIVE:
            self._read(connection)  # the server may have answered before it closed
        if connection.state <= State.ACTIVE:
            self._fail(connection, failure_of(error), str(error))

    def _read(self, connection: Connection) -> None:
        while connection.sock is not None:
            try:
                data = connection.sock.recv(65_536)
            except WOULD_BLOCK:
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            except OSError as error:
                self._broken(connection, error)
                return
            if data:
                self._received(connection, data)
            else:
                self._ended(connection)
            if not isinstance(connection.sock, ssl.SSLSocket) or not connection.sock.pending():
                return

    def _received(self, connection: Connection, data: bytes) -> None:
        if connection.state is State.ACTIVE:
            try:
                if connection.answer.feed(data):
                    self._complete(connection)
            except BadAnswer as bad:
                self._fail(connection, Failure.PROTOCOL_ERROR, str(bad))
        elif connection.state is State.LINGERING:
            self._fail(connection, Failure.WRONG_LENGTH, f"after the answer came {data[:24]!r}")
        elif data.startswith(b"HTTP/1.1 408"):  # how some servers announce that they close an idle connection
            self._ended(connection)
        else:
            if not connection.spoiled:
                self._sample(connection, Failure.WRONG_LENGTH, f"after the answer came {data[:24]!r}")
                self._record(connection, Failure.WRONG_LENGTH, amended=True)
            self._close(connection)

    def _ended(self, connection: Connection) -> None:
        if connection.state is State.ACTIVE:
            if connection.answer.end():
                self._complete(connection)
            elif connection.answer.started:
                self._fail(connection, Failure.TRUNCATED, "the connection ended within the answer")
            else:
                self._fail(connection, Failure.CLOSED_EARLY, "the connection ended before the answer")
        elif connection.state is State.LINGERING:
            self._settle(connection)
        else:
            self.counts["idle_closed_by_server"] += 1
            self._close(connection)

    def _broken(self, connection: Connection, error: OSError) -> None:
        if connection.state is State.ACTIVE:
            self._fail(connection, failure_of(error), str(error))
        else:
            self._ended(connection)

    def _complete(self, connection: Connection) -> None:
        answer = connection.answer
        connection.sent.done_ns = time.monotonic_ns()
        if answer.status >= 500:
            self._fail(connection, Failure.STATUS_5XX, f"status {answer.status}")
        elif answer.surplus:
            self._fail(connection, Failure.WRONG_LENGTH, f"after the answer came {answer.surplus[:24]!r}")
        elif self._plan.requests[connection.sent.index].check_release and not answer.agrees_with_itself():
            self._fail(
                connection, Failure.MISMATCH, f"the header says {answer.release.decode('latin-1')}, the body does not"
            )
        elif self._is_reusable(connection):
            self._record(connection, None)
            self._rest(connection)
        else:
            connection.state = State.LINGERING
            self._lingering.append((connection.sent.done_ns + LINGER_NS, connection.sent.n, connection))

    @staticmethod
    def _is_reusable(connection: Connection) -> bool:
        answer = connection.answer
        return answer.complete and answer.keep_alive and not (connection.closing or connection.unsent or answer.surplus)

    def _rest(self, connection: Connection) -> None:
        self.under_way -= 1
        connection.state = State.IDLE
        connection.idle_since_ns = connection.sent.done_ns
        self._idle.append(connection)

    def _settle(self, connection: Connection) -> None:
        """The server closed after a whole answer, as it should."""
        self._record(connection, None)
        self.under_way -= 1
        self._close(connection)

    def _fail(self, connection: Connection, failure: Failure, detail: str) -> None:
        answer = connection.answer
        self._sample(connection, failure, detail)
        if not answer.complete:
            connection.sent.done_ns = time.monotonic_ns()
        self._record(connection, failure)
        if self._is_reusable(connection) and failure in (Failure.STATUS_5XX, Failure.MISMATCH):
            connection.spoiled = True
            self._rest(connection)
        else:
            self.under_way -= 1
            self._close(connection)

    def expire(self, now: int) -> None:
        """Give up what has waited too long."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, n, connection = self._deadlines.popleft()
            if connection.sent.n == n and connection.state < State.IDLE:
                self._fail(connection, Failure.TIMEOUT, f"no answer within {self._plan.deadline_s:g} s")
        while self._lingering and self._lingering[0][0] <= now:
            _, n, connection = self._lingering.popleft()
            if connection.sent.n == n and connection.state is State.LINGERING:
                self._settle(connection)

    def _close(self, connection: Connection) -> None:
        if connection.state is State.CLOSED:
            return
        self._kept -= not connection.closing
        connection.state = State.CLOSED
        connection.unsent = b""
        connection.answer = _NO_ANSWER
        self._hang_up(connection)

    def _record(self, connection: Connection, failure: Failure | None, *, amended: bool = False) -> None:
        answer, reused = connection.answer, connection.requests > 1
        self._recorder.record(
            connection.sent, answer, failure,
            own=connection.closing, reused=reused, complete=answer.complete, amended=amended,
        )  # fmt: skip

    def _sample(self, connection: Connection, failure: Failure, detail: str) -> None:
        self._recorder.sample(connection.sent, failure, detail, reused=connection.requests > 1)
