"""The sender's client for HTTP/2: many requests at once on a few connections.

Cleartext connections begin with HTTP/2 (prior knowledge); with TLS it is negotiated, and a server that does not take it
fails the request. Same invariants as `client`: `send` leads to exactly one record, no call blocks, `under_way` is the
number of requests without their record. Framing and header compression are h2's.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import time
from collections import deque

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from hitless.drill.connection import MAX_IDLE_NS, READ, WOULD_BLOCK, WRITE, Connections, failure_of
from hitless.drill.pace import opens_connection
from hitless.drill.recorder import Records, Sent
from hitless.drill.stream import Link, LinkState, Stream, headers_of
from hitless.drill.wire import Failure, SenderPlan

WINDOW_BYTES = 1 << 24


class Http2Client(Connections):
    """The connections of one sender."""

    def __init__(self, plan: SenderPlan, selector: selectors.BaseSelector, output: Records, start_ns: int) -> None:
        super().__init__(plan, selector, output, start_ns)
        self._headers = [headers_of(one, tls=plan.tls) for one in plan.requests]
        self._tls = _tls_context() if plan.tls else None
        self._links: deque[Link] = deque()
        self._waiting: dict[int, list[Stream]] = {}  # by the id of a link that is not connected yet
        self._deadlines: deque[tuple[int, Link, Stream]] = deque()

    def next_deadline_ns(self) -> int | None:
        """The instant at which `expire` has something to do, if nothing happens before."""
        return self._deadlines[0][0] if self._deadlines else None

    def send(self, n: int, due_ns: int) -> None:
        """Send request n of the schedule, which was due at `due_ns`, now."""
        own = opens_connection(n, self._plan.new_connections_percent)
        now = time.monotonic_ns()
        index = self._plan.order[n % len(self._plan.order)]
        stream = Stream(Sent(n, index, due_ns, now), self._plan.requests[index].body)
        link = Link(own=True) if own else self._link(now)
        self.under_way += 1
        self._deadlines.append((now + self._deadline_ns, link, stream))
        if link.state is LinkState.OPEN:
            self._open(link, stream)
            self._flush(link)
            return
        self._waiting.setdefault(id(link), []).append(stream)
        if link.sock is None:
            self._dial(link)

    def expire(self, now: int) -> None:
        """Give up what has waited too long."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, link, stream = self._deadlines.popleft()
            if stream.sent.done_ns:
                continue
            self._fail(link, stream, Failure.TIMEOUT, f"no answer within {self._plan.deadline_s:g} s")
            if link.state is LinkState.OPEN:
                try:
                    link.protocol.reset_stream(stream.number, ErrorCodes.CANCEL)
                except ProtocolError:
                    continue
                self._flush(link)

    def handle(self, connection: Link, mask: int) -> None:
        """The selector says that a connection is ready."""
        if connection.state is LinkState.CONNECTING:
            self._connected(connection)
        elif connection.state is LinkState.SHAKING_HANDS:
            self._shake_hands(connection)
        else:
            if mask & WRITE:
                self._flush(connection)
            if mask & READ:
                self._read(connection)

    def _link(self, now: int) -> Link:
        """The next connection with room, all in turn; a new one while there are fewer than asked for, or none has."""
        for link in list(self._links):
            self._links.rotate(-1)
            if not link.streams and link.idle_since_ns and now - link.idle_since_ns >= MAX_IDLE_NS:
                self.counts["idle_retired"] += 1
                self._close(link)
            elif len(self._links) >= self._plan.connections and link.has_room():
                return link
        link = Link(own=False)
        self._links.append(link)
        return link

    def _dial(self, link: Link) -> None:
        try:
            link.sock = self._connect()
        except OSError as error:
            self._break(link, failure_of(error), str(error))
            return
        self._selector.register(link.sock, WRITE, link)
        link.watches_write = True

    def _connected(self, link: Link) -> None:
        assert link.sock is not None
        code = link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            error = OSError(code, os.strerror(code))
            self._break(link, failure_of(error), str(error))
        elif self._tls is None:
            self._begin(link)
        else:
            self._selector.unregister(link.sock)
            link.sock = self._tls.wrap_socket(link.sock, server_hostname=self._plan.host, do_handshake_on_connect=False)
            link.state = LinkState.SHAKING_HANDS
            self._selector.register(link.sock, READ | WRITE, link)
            self._shake_hands(link)

    def _shake_hands(self, link: Link) -> None:
        assert isinstance(link.sock, ssl.SSLSocket)
        try:
            link.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(link, write=False)
        except ssl.SSLWantWriteError:
            self._watch(link, write=True)
        except OSError as error:
            self._break(link, failure_of(error), str(error))
        else:
            if link.sock.selected_alpn_protocol() == "h2":
                self._begin(link)
            else:
                self._break(link, Failure.TLS_ERROR, "the server does not take HTTP/2")

    def _begin(self, link: Link) -> None:
        link.state = LinkState.OPEN
        link.protocol.initiate_connection()
        link.protocol.increment_flow_control_window(WINDOW_BYTES)
        for stream in self._waiting.pop(id(link), []):
            if not stream.sent.done_ns:
                self._open(link, stream)
        self._flush(link)
        if link.own and not link.streams and link.state is LinkState.OPEN:
            self._close(link)  # its request was given up meanwhile

    def _close(self, link: Link) -> None:
        link.state = LinkState.CLOSED
        link.retired = True
        if link in self._links:
            self._links.remove(link)
        self._hang_up(link)

    def _break(self, link: Link, failure: Failure, detail: str) -> None:
        """The connection is lost, and with it every request that it carries."""
        for stream in [*link.streams.values(), *self._waiting.pop(id(link), [])]:
            if not stream.sent.done_ns:
                ended = failure is Failure.CLOSED_EARLY and stream.started
                self._fail(link, stream, Failure.TRUNCATED if ended else failure, detail)
        self._close(link)

    def _open(self, link: Link, stream: Stream) -> None:
        """Begin the stream: head, and as much of the body as flow control lets through."""
        request = self._plan.requests[stream.sent.index]
        headers = self._headers[stream.sent.index]
        if request.fresh_key:
            headers = [*headers, (b"idempotency-key", next(self._keys))]
        try:
            stream.number = link.protocol.get_next_available_stream_id()
            link.protocol.send_headers(stream.number, headers, end_stream=not stream.unsent)
        except ProtocolError as error:
            self._fail(link, stream, Failure.NOT_SENT, str(error))
            return
        link.streams[stream.number] = stream
        stream.reused = link.carried > 0
        link.carried += 1
        link.idle_since_ns = 0
        self._push(link, stream)

    def _push(self, link: Link, stream: Stream) -> None:
        while stream.unsent:
            room = link.protocol.local_flow_control_window(stream.number)
            size = min(room, link.protocol.max_outbound_frame_size, len(stream.unsent))
            if size <= 0:
                return
            part, stream.unsent = bytes(stream.unsent[:size]), memoryview(stream.unsent)[size:]
            link.protocol.send_data(stream.number, part, end_stream=not stream.unsent)

    def _flush(self, link: Link) -> None:
        if link.sock is None:
            return
        link.unsent += link.protocol.data_to_send()
        try:
            while link.unsent:
                del link.unsent[: link.sock.send(link.unsent)]
        except WOULD_BLOCK:
            self._watch(link, write=True)
            return
        except OSError as error:
            self._read(link)  # the server may have answered before it closed
            if link.sock is not None:
                self._break(link, failure_of(error), str(error))
            return
        self._watch(link, write=False)

    def _read(self, link: Link) -> None:
        while link.sock is not None:
            try:
                data = link.sock.recv(65_536)
            except WOULD_BLOCK:
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            except OSError as error:
                self._break(link, failure_of(error), str(error))
                return
            if not data:
                self.counts["idle_closed_by_server"] += not link.streams
                self._break(link, Failure.CLOSED_EARLY, "the connection ended before the answer did")
                return
            try:
                for event in link.protocol.receive_data(data):
                    self._react(link, event)
            except ProtocolError as error:
                self._flush(link)
                self._break(link, Failure.PROTOCOL_ERROR, f"{type(error).__name__}: {error}")
                return
            self._flush(link)
            if not isinstance(link.sock, ssl.SSLSocket) or not link.sock.pending():
                return

    def _react(self, link: Link, event: events.Event) -> None:
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
                self._fail(link, stream, Failure.STREAM_RESET, f"the server reset the stream: {name}")
            case events.WindowUpdated() | events.RemoteSettingsChanged():
                for held in list(link.streams.values()):
                    self._push(link, held)
            case events.ConnectionTerminated():
                self._go_away(link, event.last_stream_id or 0)

    def _go_away(self, link: Link, last: int) -> None:
        """The server takes no more requests on this connection, and will not answer those beyond `last`."""
        link.retired = True
        if link in self._links:
            self._links.remove(link)
        for number, stream in list(link.streams.items()):
            if number > last:
                self._fail(link, stream, Failure.CLOSED_EARLY, "the server went away before it took the request")

    def _complete(self, link: Link, stream: Stream) -> None:
        stream.sent.done_ns = time.monotonic_ns()
        failure, detail = None, ""
        if stream.status >= 500:
            failure, detail = Failure.STATUS_5XX, f"status {stream.status}"
        elif self._plan.requests[stream.sent.index].check_release and not stream.agrees_with_itself():
            failure = Failure.MISMATCH
            detail = f"the header says {stream.release.decode('latin-1')}, the body does not"
        if failure is not None:
            self._recorder.sample(stream.sent, failure, detail, reused=stream.reused)
        self._end(link, stream, failure, complete=True)

    def _fail(self, link: Link, stream: Stream, failure: Failure, detail: str) -> None:
        stream.sent.done_ns = time.monotonic_ns()
        self._recorder.sample(stream.sent, failure, detail, reused=stream.reused)
        self._end(link, stream, failure, complete=False)

    def _end(self, link: Link, stream: Stream, failure: Failure | None, *, complete: bool) -> None:
        self.under_way -= 1
        link.streams.pop(stream.number, None)
        if not link.streams:
            link.idle_since_ns = stream.sent.done_ns
        self._recorder.record(stream.sent, stream, failure, own=link.own, reused=stream.reused, complete=complete)
        if (link.own or link.retired) and not link.streams and link.state is LinkState.OPEN:
            self._close(link)


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    return context
