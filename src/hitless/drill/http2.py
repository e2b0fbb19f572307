"""The sender's client for HTTP/2: many requests at once on a few connections.

Cleartext connections begin with HTTP/2 (prior knowledge). With TLS it is negotiated, and a server that does not accept
it fails the request. Framing and header compression are h2's.
"""

from __future__ import annotations

import selectors
import ssl
import time
from collections import deque
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from hitless.drill.connection import MAX_IDLE_NS, Client, ConnectionState, SenderConnection
from hitless.drill.pace import opens_connection
from hitless.drill.recorder import RecordSink, SentRequest
from hitless.drill.response import Response
from hitless.drill.wire import FailureKind, SenderPlan, WireRequest

WINDOW_BYTES = 1 << 24
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection", b"te"})
Headers = list[tuple[bytes, bytes]]


def headers_of(request: WireRequest, *, tls: bool) -> Headers:
    """The request's head in the form of HTTP/2: pseudo-headers first, names in lower case."""
    first, *lines = request.head.rstrip(b"\r\n").split(b"\r\n")
    method, path, _ = first.split(b" ")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    authority = next((value for name, value in fields if name == b"host"), b"")
    scheme = b"https" if tls else b"http"
    pseudo = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)]
    return pseudo + [(name, value) for name, value in fields if name != b"host" and name not in HOP_BY_HOP]


@dataclass(slots=True, eq=False)
class Stream(Response):
    """A request under way. `unsent` is the part of its body that flow control holds back."""

    sent: SentRequest
    unsent: bytes | memoryview
    number: int = 0
    reused: bool = False  # its connection had carried another before

    def read_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        for name, value in headers:
            if name == b":status":
                self.status = int(value)
            elif name == b"x-hitless-release":
                self.release = value
            elif name == b"x-hitless-shielded":
                self.shielded = value == b"1"


@dataclass(slots=True, eq=False, kw_only=True)
class Http2Connection(SenderConnection):
    """A connection, the state of its protocol and the streams that are open on it."""

    own: bool  # used for one request only
    protocol: H2Connection = field(
        default_factory=lambda: H2Connection(H2Configuration(client_side=True, header_encoding=None))
    )
    streams: dict[int, Stream] = field(default_factory=dict)
    retired: bool = False  # accepts no more requests: the server refuses them, or it was idle for too long
    carried: int = 0
    idle_since_ns: int = 0

    def has_room(self) -> bool:
        """Whether the server accepts one more request on it now."""
        return not self.retired and len(self.streams) < min(self.protocol.remote_settings.max_concurrent_streams, 1000)


class Http2Client(Client[Http2Connection]):
    """The connections of one sender."""

    alpn = ("h2",)

    def __init__(self, plan: SenderPlan, selector: selectors.BaseSelector, output: RecordSink, start_ns: int) -> None:
        super().__init__(plan, selector, output, start_ns)
        self._headers = [headers_of(one, tls=plan.tls) for one in plan.requests]
        self._links: deque[Http2Connection] = deque()
        self._waiting: dict[int, list[Stream]] = {}  # by the id of a link that is not connected yet
        self._deadlines: deque[tuple[int, Http2Connection, Stream]] = deque()

    def next_deadline_ns(self) -> int | None:
        return self._deadlines[0][0] if self._deadlines else None

    def send(self, n: int, due_ns: int) -> None:
        own = opens_connection(n, self._plan.new_connections_percent)
        now = time.monotonic_ns()
        index = self._plan.order[n % len(self._plan.order)]
        link = Http2Connection(own=True) if own else self._link(now)
        stream = Stream(SentRequest(n, index, due_ns, now, link.dialled_ns), self._plan.requests[index].body)
        self.under_way += 1
        self._deadlines.append((now + self._deadline_ns, link, stream))
        if link.state is ConnectionState.ACTIVE:
            self._open(link, stream)
            self._flush(link)
            return
        self._waiting.setdefault(id(link), []).append(stream)
        if link.sock is None:
            self._dial(link)

    def expire(self, now: int) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, link, stream = self._deadlines.popleft()
            if stream.sent.done_ns:
                continue
            self._fail(link, stream, FailureKind.TIMEOUT, f"no response within {self._plan.deadline_s:g} s")
            if link.state is ConnectionState.ACTIVE:
                try:
                    link.protocol.reset_stream(stream.number, ErrorCodes.CANCEL)
                except ProtocolError:
                    continue
                self._flush(link)

    def _link(self, now: int) -> Http2Connection:
        """The next connection with room, all in turn; a new one if there are too few, or none has room."""
        for link in list(self._links):
            self._links.rotate(-1)
            if not link.streams and link.idle_since_ns and now - link.idle_since_ns >= MAX_IDLE_NS:
                self.counts["idle_retired"] += 1
                self._close(link)
            elif len(self._links) >= self._plan.connections and link.has_room():
                return link
        link = Http2Connection(own=False)
        self._links.append(link)
        return link

    def _established(self, link: Http2Connection) -> None:
        if isinstance(link.sock, ssl.SSLSocket) and link.sock.selected_alpn_protocol() != "h2":
            self._lost(link, FailureKind.TLS_ERROR, "the server does not accept HTTP/2")
            return
        link.state = ConnectionState.ACTIVE
        link.protocol.initiate_connection()
        link.protocol.increment_flow_control_window(WINDOW_BYTES)
        for stream in self._waiting.pop(id(link), []):
            if not stream.sent.done_ns:
                self._open(link, stream)
        self._flush(link)
        if link.own and not link.streams and link.state is ConnectionState.ACTIVE:
            self._close(link)  # its request was given up in the meantime

    def _close(self, link: Http2Connection) -> None:
        link.retired = True
        if link in self._links:
            self._links.remove(link)
        self._hang_up(link)

    def _lost(self, link: Http2Connection, failure: FailureKind, detail: str) -> None:
        """Fail every request that the connection carries."""
        for stream in [*link.streams.values(), *self._waiting.pop(id(link), [])]:
            if not stream.sent.done_ns:
                ended = failure is FailureKind.CLOSED_EARLY and stream.started
                self._fail(link, stream, FailureKind.TRUNCATED if ended else failure, detail)
        self._close(link)

    def _open(self, link: Http2Connection, stream: Stream) -> None:
        """Begin the stream: head, and as much of the body as flow control lets through."""
        request = self._plan.requests[stream.sent.index]
        headers = self._headers[stream.sent.index]
        if request.fresh_key:
            headers = [*headers, (b"idempotency-key", next(self._keys))]
        try:
            stream.number = link.protocol.get_next_available_stream_id()
            link.protocol.send_headers(stream.number, headers, end_stream=not stream.unsent)
        except ProtocolError as error:
            self._fail(link, stream, FailureKind.NOT_SENT, str(error))
            return
        link.streams[stream.number] = stream
        stream.reused = link.carried > 0
        link.carried += 1
        link.idle_since_ns = 0
        self._push(link, stream)

    def _push(self, link: Http2Connection, stream: Stream) -> None:
        while stream.unsent:
            room = link.protocol.local_flow_control_window(stream.number)
            size = min(room, link.protocol.max_outbound_frame_size, len(stream.unsent))
            if size <= 0:
                return
            part, stream.unsent = bytes(stream.unsent[:size]), memoryview(stream.unsent)[size:]
            link.protocol.send_data(stream.number, part, end_stream=not stream.unsent)

    def _flush(self, link: Http2Connection) -> None:
        if link.sock is not None:
            link.unsent = b"".join((link.unsent, link.protocol.data_to_send()))
            self._write(link)

    def _ended(self, link: Http2Connection) -> None:
        self.counts["idle_closed_by_server"] += not link.streams
        self._lost(link, FailureKind.CLOSED_EARLY, "the connection ended before the response did")

    def _received(self, link: Http2Connection, data: bytes) -> None:
        try:
            for event in link.protocol.receive_data(data):
                self._react(link, event)
        except ProtocolError as error:
            self._flush(link)
            self._lost(link, FailureKind.PROTOCOL_ERROR, f"{type(error).__name__}: {error}")
        else:
            self._flush(link)

    def _react(self, link: Http2Connection, event: events.Event) -> None:
        stream = link.streams.get(getattr(event, "stream_id", None) or 0)
        match event:
            case events.ResponseReceived() if stream is not None:
                stream.read_headers(list(event.headers or ()))
            case events.DataReceived():
                link.protocol.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                if stream is not None:
                    stream.keep(event.data or b"")
            case events.StreamEnded() if stream is not None:
                self._complete(link, stream)
            case events.StreamReset() if stream is not None:
                name = ErrorCodes(event.error_code).name if event.error_code in set(ErrorCodes) else event.error_code
                self._fail(link, stream, FailureKind.STREAM_RESET, f"the server reset the stream: {name}")
            case events.WindowUpdated() | events.RemoteSettingsChanged():
                for held in list(link.streams.values()):
                    self._push(link, held)
            case events.ConnectionTerminated():
                self._go_away(link, event.last_stream_id or 0)

    def _go_away(self, link: Http2Connection, last: int) -> None:
        """The server accepts no more requests on this connection and will not respond to those after `last`."""
        link.retired = True
        if link in self._links:
            self._links.remove(link)
        for number, stream in list(link.streams.items()):
            if number > last:
                self._fail(link, stream, FailureKind.CLOSED_EARLY, "the server went away before the request")

    def _complete(self, link: Http2Connection, stream: Stream) -> None:
        stream.sent.done_ns = time.monotonic_ns()
        check_release = self._plan.requests[stream.sent.index].check_release
        fault = stream.fault(check_release=check_release)
        if fault is not None:
            self._recorder.sample(stream.sent, *fault, reused=stream.reused)
        self._end(link, stream, fault[0] if fault else None, complete=True)

    def _fail(self, link: Http2Connection, stream: Stream, failure: FailureKind, detail: str) -> None:
        stream.sent.done_ns = time.monotonic_ns()
        self._recorder.sample(stream.sent, failure, detail, reused=stream.reused)
        self._end(link, stream, failure, complete=False)

    def _end(self, link: Http2Connection, stream: Stream, failure: FailureKind | None, *, complete: bool) -> None:
        self.under_way -= 1
        link.streams.pop(stream.number, None)
        if not link.streams:
            link.idle_since_ns = stream.sent.done_ns
        self._recorder.record(stream.sent, stream, failure, own=link.own, reused=stream.reused, complete=complete)
        if (link.own or link.retired) and not link.streams and link.state is ConnectionState.ACTIVE:
            self._close(link)
