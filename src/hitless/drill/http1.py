"""The sender's client for HTTP/1.1: one request at a time on each of many connections.

It uses sockets instead of a library, because the report must show errors as the kernel names them, and because the
drill runs on the same machine as the service.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from dataclasses import dataclass, field

from hitless.drill.connection import MAX_IDLE_NS, Client, ConnectionState, SenderConnection
from hitless.drill.pace import opens_connection
from hitless.drill.recorder import RecordSink, SentRequest
from hitless.drill.response import BadResponse, Http1Response
from hitless.drill.wire import FailureKind, SenderPlan

LINGER_NS = 1_000_000_000
"""How long a connection that is not reused is read after its response, for surplus bytes."""
_NO_RESPONSE = Http1Response()


@dataclass(slots=True, eq=False)
class Http1Connection(SenderConnection):
    """A connection and the request that it carries."""

    requests: int = 0  # carried so far, with the current one
    response: Http1Response = field(default_factory=Http1Response)
    sent: SentRequest = field(default_factory=SentRequest)
    idle_since_ns: int = 0
    closing: bool = False
    failure_recorded: bool = False


class Http1Client(Client[Http1Connection]):
    """The connections of one sender."""

    def __init__(self, plan: SenderPlan, selector: selectors.BaseSelector, output: RecordSink, start_ns: int) -> None:
        super().__init__(plan, selector, output, start_ns)
        self._payloads = [
            (one.head + b"\r\n" + one.body, one.head + b"Connection: close\r\n\r\n" + one.body) for one in plan.requests
        ]
        self._idle: deque[Http1Connection] = deque()
        self._deadlines: deque[tuple[int, SentRequest, Http1Connection]] = deque()
        self._lingering: deque[tuple[int, SentRequest, Http1Connection]] = deque()
        self._kept = 0  # open connections that are meant to be used again

    def next_deadline_ns(self) -> int | None:
        heads = [queue[0][0] for queue in (self._deadlines, self._lingering) if queue]
        return min(heads, default=None)

    def send(self, n: int, due_ns: int) -> None:
        closing = opens_connection(n, self._plan.new_connections_percent)
        now = time.monotonic_ns()
        connection = None if closing or self._kept < self._plan.connections else self._take_idle(now)
        fresh = connection is None
        if connection is None:
            connection = Http1Connection()
            self._kept += not closing
        index = self._plan.order[n % len(self._plan.order)]
        connection.sent = SentRequest(n, index, due_ns, now, connection.dialled_ns)
        connection.closing, connection.failure_recorded = closing, False
        connection.requests += 1
        connection.response = Http1Response(bodiless=self._plan.requests[index].bodiless_response)
        connection.unsent = self._payload(index, closing=closing)
        self.under_way += 1
        self._deadlines.append((now + self._deadline_ns, connection.sent, connection))
        if not fresh:
            self._established(connection)
            return
        self._dial(connection)
        if self._tls is None and connection.sock is not None:
            self._write(connection)  # on one machine the connection is already established

    def _payload(self, index: int, *, closing: bool) -> bytes:
        request = self._plan.requests[index]
        payload = self._payloads[index][closing]
        if not request.fresh_key:
            return payload
        return b"%sIdempotency-Key: %s\r\n%s" % (request.head, next(self._keys), payload[len(request.head) :])

    def _take_idle(self, now: int) -> Http1Connection | None:
        """The connection that was idle longest. After MAX_IDLE_NS the server may close it, so it is closed."""
        while self._idle:
            connection = self._idle.popleft()
            if connection.state is not ConnectionState.IDLE:
                continue
            if now - connection.idle_since_ns < MAX_IDLE_NS:
                return connection
            self.counts["idle_retired"] += 1
            self._close(connection)
        return None

    def _established(self, connection: Http1Connection) -> None:
        connection.state = ConnectionState.ACTIVE
        self._write(connection)

    def _received(self, connection: Http1Connection, data: bytes) -> None:
        surplus = f"after the response came {data[:24]!r}"
        if connection.state is ConnectionState.ACTIVE:
            try:
                if connection.response.feed(data):
                    self._complete(connection)
            except BadResponse as bad:
                self._fail(connection, FailureKind.PROTOCOL_ERROR, str(bad))
        elif connection.state is ConnectionState.LINGERING:
            self._fail(connection, FailureKind.WRONG_LENGTH, surplus)
        elif data.startswith(b"HTTP/1.1 408"):  # how some servers announce that they close an idle connection
            self._ended(connection)
        else:
            if not connection.failure_recorded:
                self._sample(connection, FailureKind.WRONG_LENGTH, surplus)
                self._record(connection, FailureKind.WRONG_LENGTH, amended=True)
            self._close(connection)

    def _ended(self, connection: Http1Connection) -> None:
        if connection.state is ConnectionState.ACTIVE:
            if connection.response.end():
                self._complete(connection)
            elif connection.response.started:
                self._fail(connection, FailureKind.TRUNCATED, "the connection ended within the response")
            else:
                self._fail(connection, FailureKind.CLOSED_EARLY, "the connection ended before the response")
        elif connection.state is ConnectionState.LINGERING:
            self._end_lingering(connection)
        else:
            self.counts["idle_closed_by_server"] += 1
            self._close(connection)

    def _lost(self, connection: Http1Connection, failure: FailureKind, detail: str) -> None:
        if connection.state <= ConnectionState.ACTIVE:
            self._fail(connection, failure, detail)
        else:
            self._ended(connection)

    def _complete(self, connection: Http1Connection) -> None:
        connection.sent.done_ns = time.monotonic_ns()
        check_release = self._plan.requests[connection.sent.index].check_release
        if fault := connection.response.fault(check_release=check_release):
            self._fail(connection, *fault)
        elif self._is_reusable(connection):
            self._record(connection, None)
            self._keep_idle(connection)
        else:
            connection.state = ConnectionState.LINGERING
            self._lingering.append((connection.sent.done_ns + LINGER_NS, connection.sent, connection))

    @staticmethod
    def _is_reusable(connection: Http1Connection) -> bool:
        response = connection.response
        left = connection.closing or connection.unsent or response.surplus
        return response.complete and response.keep_alive and not left

    def _keep_idle(self, connection: Http1Connection) -> None:
        self.under_way -= 1
        connection.state = ConnectionState.IDLE
        connection.idle_since_ns = connection.sent.done_ns
        self._idle.append(connection)

    def _end_lingering(self, connection: Http1Connection) -> None:
        """The server closed after a complete response, as it should."""
        self._record(connection, None)
        self.under_way -= 1
        self._close(connection)

    def _fail(self, connection: Http1Connection, failure: FailureKind, detail: str) -> None:
        self._sample(connection, failure, detail)
        if not connection.response.complete:
            connection.sent.done_ns = time.monotonic_ns()
        self._record(connection, failure)
        if self._is_reusable(connection) and failure in (FailureKind.STATUS_5XX, FailureKind.MISMATCH):
            connection.failure_recorded = True
            self._keep_idle(connection)
        else:
            self.under_way -= 1
            self._close(connection)

    def expire(self, now: int) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, sent, connection = self._deadlines.popleft()
            if connection.sent is sent and connection.state < ConnectionState.IDLE:
                self._fail(connection, FailureKind.TIMEOUT, f"no response within {self._plan.deadline_s:g} s")
        while self._lingering and self._lingering[0][0] <= now:
            _, sent, connection = self._lingering.popleft()
            if connection.sent is sent and connection.state is ConnectionState.LINGERING:
                self._end_lingering(connection)

    def _close(self, connection: Http1Connection) -> None:
        if connection.state is not ConnectionState.CLOSED:
            self._kept -= not connection.closing
            connection.response = _NO_RESPONSE
            self._hang_up(connection)

    def _record(self, connection: Http1Connection, failure: FailureKind | None, *, amended: bool = False) -> None:
        response, reused = connection.response, connection.requests > 1
        self._recorder.record(
            connection.sent, response, failure,
            own=connection.closing, reused=reused, complete=response.complete, amended=amended,
        )  # fmt: skip

    def _sample(self, connection: Http1Connection, failure: FailureKind, detail: str) -> None:
        self._recorder.sample(connection.sent, failure, detail, reused=connection.requests > 1)
