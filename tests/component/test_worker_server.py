"""The worker's loop over real sockets, with a simple handler."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hitless.worker.request import Request
from hitless.worker.response import http_response
from hitless.worker.server import Server, SpoolerClient
from tests.support import eventually

pytestmark = pytest.mark.component


class FakeHandler:
    """Responds with the target and the length of the body, or with what a test sets for a target."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.seen: list[str] = []
        self.gates: dict[str, threading.Event] = {}

    def respond(self, request: Request, last: bool, send: Callable[[bytes], None]) -> None:
        self.seen.append(request.target)
        if request.target in self.gates:
            assert self.gates[request.target].wait(10)
        body = self.bodies.get(request.target) or f"{request.target} {len(request.body)}".encode()
        status = request.refusal or 200
        send(http_response(status, body, "connection: close\r\n" if last else ""))


class Running:
    """A server in a thread."""

    def __init__(self, path: Path, spooled: bool) -> None:
        self.path = path
        self.handler = FakeHandler()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(600)
        self.spooler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if spooled:
            self.spooler.bind(f"{path}.spooler")
        self.spooler.settimeout(10)
        self.server = Server(self.listener, self.handler, SpoolerClient(f"{path}.spooler", str(path.parent)))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        self.clients: list[socket.socket] = []

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(self.path))
        self.clients.append(client)
        return client

    def connect_without_a_descriptor_for_the_other_side(self) -> socket.socket:
        """Connect with an existing socket, after setting the process's limit to its open descriptors."""
        client = socket.socket(socket.AF_UNIX)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(client.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            client.connect(str(self.path))
            eventually(lambda: not self.thread.is_alive(), deadline_s=5.0, what="the end of the server")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        return client

    def end(self) -> None:
        self.server.stop()
        for gate in self.handler.gates.values():
            gate.set()
        for client in self.clients:
            client.close()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.server.close()
        self.listener.close()
        self.spooler.close()


@contextmanager
def running(*, spooled: bool = False) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="hlw-", dir="/tmp") as folder:
        server = Running(Path(folder) / "s", spooled)
        try:
            yield server
        finally:
            server.end()


def read_answer(client: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of one response with a length."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte, f"closed after {head!r}"
        head += byte
    length, body = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]), b""
    while len(body) < length:
        chunk = client.recv(length - len(body))
        assert chunk, "closed in the body"
        body += chunk
    return head, body


def read_to_end(client: socket.socket) -> bytes:
    data = b""
    while chunk := client.recv(65536):
        data += chunk
    return data


def test_requests_sent_at_once_are_answered_in_order_one_at_a_time() -> None:
    with running() as server:
        client = server.connect()
        client.sendall(b"".join(b"GET /%d HTTP/1.1\r\nhost: h\r\n\r\n" % number for number in range(20)))
        data = b""
        while data.count(b"HTTP/1.1 200") < 20 or not data.endswith(b"/19 0"):
            data += client.recv(65536)
        assert server.handler.seen == [f"/{number}" for number in range(20)]


def test_an_unread_response_goes_to_the_spooler_with_its_connection() -> None:
    with running(spooled=True) as server:
        large = server.handler.bodies["/large"] = bytes(range(256)) * 20_000
        slow = server.connect()
        slow.sendall(b"GET /large HTTP/1.1\r\nhost: h\r\n\r\n")
        _, descriptors, _, _ = socket.recv_fds(server.spooler, 64, 2)
        eventually(lambda: not server.server._connections, what="the worker has let go of the connection")
        with socket.socket(fileno=descriptors[0]) as connection, open(descriptors[1], "rb") as rest:
            rest.seek(0)
            left = rest.read()
            head, body = b"", b""
            while len(head + body) < len(large) - len(left):
                head += slow.recv(65536)
            sent = head.partition(b"\r\n\r\n")[2]
            assert sent + left == large
            connection.sendall(b"more")
            while not head.endswith(b"more"):
                head += slow.recv(65536)


def test_with_many_connections_each_response_closes_its_own() -> None:
    with running() as server:
        closed = []
        for client in [server.connect() for _ in range(103)]:
            client.sendall(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n")
            closed.append(b"connection: close" in read_answer(client)[0])
            assert not closed[-1] or client.recv(1) == b""
        assert closed == [True] * 3 + [False] * 100


def test_a_response_larger_than_the_sockets_buffer_arrives_complete() -> None:
    with running() as server:
        server.handler.bodies["/large"] = bytes(range(256)) * 20_000
        slow, quick = server.connect(), server.connect()
        slow.sendall(b"GET /large HTTP/1.1\r\nhost: h\r\n\r\n")
        quick.sendall(b"GET /quick HTTP/1.1\r\nhost: h\r\n\r\n")
        assert read_answer(quick)[1] == b"/quick 0"
        head, body = read_answer(slow)
        assert body == server.handler.bodies["/large"]
        assert b"\r\nconnection: close\r\n" in head
        assert slow.recv(1) == b""


def test_a_client_that_expects_100_continue_gets_it() -> None:
    with running() as server:
        client = server.connect()
        client.sendall(b"POST /a HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"ab")
        assert read_answer(client)[1] == b"/a 2"


def test_a_connection_that_asks_to_be_closed_is_closed_after_its_response() -> None:
    with running() as server:
        client = server.connect()
        client.sendall(b"GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        answer = read_to_end(client)
        assert answer.endswith(b"/a 0")
        assert b"connection: close" in answer


def test_invalid_http_gets_400_and_is_closed() -> None:
    with running() as server:
        client = server.connect()
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert read_to_end(client).startswith(b"HTTP/1.1 400 ")


def test_clients_that_disconnect_at_any_point_are_harmless() -> None:
    with running() as server:
        server.handler.bodies["/large"] = b"x" * 4_000_000
        for sent in (
            b"",
            b"GET /",
            b"POST /a HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc",
            b"GET /large HTTP/1.1\r\n\r\n",
        ):
            client = server.connect()
            client.sendall(sent)
            client.close()
        client = server.connect()
        client.sendall(b"GET /alive HTTP/1.1\r\nhost: h\r\n\r\n")
        assert read_answer(client)[1] == b"/alive 0"


def test_connections_beyond_the_limit_wait_until_others_close() -> None:
    with running() as server:
        first = [server.connect() for _ in range(500)]
        late = server.connect()
        late.sendall(b"GET /late HTTP/1.1\r\nhost: h\r\n\r\n")
        first[0].sendall(b"GET /first HTTP/1.1\r\nhost: h\r\n\r\n")
        assert read_answer(first[0])[1] == b"/first 0"
        first[1].close()
        assert read_answer(late)[1] == b"/late 0"


def test_a_stopping_server_answers_all_received_and_half_received_requests() -> None:
    with running() as server:
        server.handler.gates["/slow"] = threading.Event()
        slow, received, half, idle = (server.connect() for _ in range(4))
        idle.sendall(b"GET /before HTTP/1.1\r\nhost: h\r\n\r\n")
        assert read_answer(idle)[1] == b"/before 0"
        half.sendall(b"POST /half HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nab")
        half_seen = server.connect()  # once this is answered, so was what came before it read
        half_seen.sendall(b"GET /seen HTTP/1.1\r\nhost: h\r\n\r\n")
        assert read_answer(half_seen)[1] == b"/seen 0"
        slow.sendall(b"GET /slow HTTP/1.1\r\nhost: h\r\n\r\n")
        eventually(lambda: "/slow" in server.handler.seen, what="it is in hand")
        received.sendall(b"GET /received HTTP/1.1\r\nhost: h\r\n\r\n")
        unaccepted = server.connect()
        unaccepted.sendall(b"GET /unaccepted HTTP/1.1\r\nhost: h\r\n\r\n")
        server.server.stop()
        server.handler.gates["/slow"].set()
        assert read_answer(slow)[1] == b"/slow 0"
        for client, target in ((received, b"/received 0"), (unaccepted, b"/unaccepted 0")):
            head, body = read_answer(client)
            assert body == target
            assert b"connection: close" in head
        half.sendall(b"cd")
        assert read_answer(half)[1] == b"/half 4"
        server.thread.join(10)
        assert not server.thread.is_alive()


def test_a_server_without_free_descriptors_answers_its_requests_and_ends() -> None:
    with running() as server:
        first = server.connect()
        first.sendall(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"/a 0" in first.recv(4096)
        second = server.connect_without_a_descriptor_for_the_other_side()
        server.thread.join(10)
        assert not server.thread.is_alive()
        assert server.server.exhausted
        second.close()
