"""An HTTP/2 server that misbehaves on purpose, as the path of a request says. Cleartext, with prior knowledge."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections import Counter
from types import TracebackType
from typing import ClassVar

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes


class FaultyHttp2Server:
    """Listens on a free port of 127.0.0.1; `seen` counts requests by path, `keys` and `bodies` keep what was
    received.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.keys: list[bytes] = []
        self.bodies: Counter[bytes] = Counter()
        self.connections = 0
        self._server = _Server(("127.0.0.1", 0), _talker(self))
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FaultyHttp2Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    allow_reuse_address = True


def _talker(owner: FaultyHttp2Server) -> type[socketserver.BaseRequestHandler]:
    class Talker(_Talker):
        server_of: ClassVar[FaultyHttp2Server] = owner

    return Talker


class _Talker(socketserver.BaseRequestHandler):
    server_of: ClassVar[FaultyHttp2Server]
    request: socket.socket

    def handle(self) -> None:
        owner = self.server_of
        owner.connections += 1
        self.protocol = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.protocol.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.heads: dict[int, dict[bytes, bytes]] = {}
        try:
            self._flush()
            while data := self.request.recv(65_536):
                for event in self.protocol.receive_data(data):
                    if not self._react(event):
                        return
                self._flush()
        except OSError:
            return

    def _flush(self) -> None:
        self.request.sendall(self.protocol.data_to_send())

    def _react(self, event: events.Event) -> bool:
        match event:
            case events.RequestReceived():
                self.heads[event.stream_id or 0] = dict(event.headers or ())
                self.bodies[event.stream_id or 0] = b""
            case events.DataReceived():
                self.bodies[event.stream_id or 0] += event.data or b""
                self.protocol.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            case events.StreamEnded():
                return self._answer(event.stream_id or 0)
        return True

    def _answer(self, stream: int) -> bool:
        """Answer one request as its path says; False to close the connection."""
        head, owner = self.heads[stream], self.server_of
        path = head[b":path"].decode()
        owner.seen[path] += 1
        owner.bodies[self.bodies[stream]] += 1
        if b"idempotency-key" in head:
            owner.keys.append(head[b"idempotency-key"])
        match path:
            case "/stall":
                return True
            case "/drop":
                return False
            case "/reset":
                self.protocol.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
            case "/refuse":
                self.protocol.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            case "/cut":
                self._send(stream, 200, b'{"a": 1}', end=False)
                self._flush()
                return False
            case "/go-away":
                self.protocol.close_connection(ErrorCodes.NO_ERROR, last_stream_id=0)
            case "/garbage":
                self.request.sendall(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")  # a window of no width
            case "/500":
                self._send(stream, 500, b"{}")
            case "/lie":
                self._send(stream, 200, json.dumps({"release": "4"}).encode())
            case "/shielded":
                self._send(stream, 200, b"{}", (b"x-hitless-shielded", b"1"))
            case _:
                self._send(stream, 200, json.dumps({"release": "5"}).encode())
        return True

    def _send(self, stream: int, status: int, body: bytes, *more: tuple[bytes, bytes], end: bool = True) -> None:
        headers = [(b":status", str(status).encode()), (b"x-hitless-release", b"5"), *more]
        self.protocol.send_headers(stream, headers)
        self.protocol.send_data(stream, body, end_stream=end)
