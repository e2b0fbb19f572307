"""The client in this process: idle connections, TLS, and requests that this machine cannot send."""

from __future__ import annotations

import asyncio
import errno
import selectors
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from hitless.drill import http1
from hitless.drill.connection import Client, SenderConnection
from hitless.drill.http1 import Http1Client
from hitless.drill.http2 import Http2Client
from hitless.drill.pace import constant
from hitless.drill.requests import DrillRequest
from hitless.drill.wire import FAILURES, RECORD, FailureKind, Note, SenderPlan
from tests.component.drill_faulty_server import FaultyServer

pytestmark = pytest.mark.component


class Records:
    """Records and notes, kept."""

    def __init__(self) -> None:
        self.failures: list[FailureKind | None] = []
        self.notes: list[Note] = []

    def record(self, record: bytes) -> None:
        code = RECORD.unpack(record)[7]
        self.failures.append(FAILURES[code - 1] if code else None)

    def note(self, note: Note) -> None:
        self.notes.append(note)


def plan_of(port: int, request: DrillRequest, *, tls: bool = False) -> SenderPlan:
    wire = request.to_wire(f"127.0.0.1:{port}")
    return SenderPlan(
        host="127.0.0.1",
        addresses=(("127.0.0.1", port),),
        tls=tls,
        requests=(wire,),
        order=(0,),
        pieces=constant(1),
        new_connections_percent=0.0,
        connections=1,
        deadline_s=5.0,
    )


@contextmanager
def client_of(plan: SenderPlan) -> Iterator[tuple[Http1Client, Records, selectors.BaseSelector]]:
    records = Records()
    with selectors.DefaultSelector() as selector:
        yield Http1Client(plan, selector, records, time.monotonic_ns()), records, selector
        for key in list(selector.get_map().values()):
            assert isinstance(key.data, SenderConnection)
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


def pump(client: Client[Any], selector: selectors.BaseSelector) -> None:
    """Run until every request has its record."""
    end = time.monotonic() + 10
    while client.under_way:
        assert time.monotonic() < end
        for key, mask in selector.select(0.05):
            client.handle(key.data, mask)
        client.expire(time.monotonic_ns())


def test_a_connection_that_was_idle_too_long_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        FaultyServer() as server,
        client_of(plan_of(server.port, DrillRequest("GET", "/ok"))) as (client, records, sel),
    ):
        for n in range(3):
            client.send(n, time.monotonic_ns())
            pump(client, sel)
        assert client.counts["opened"] == 1
        monkeypatch.setattr(http1, "MAX_IDLE_NS", 0)
        client.send(3, time.monotonic_ns())
        pump(client, sel)
        assert client.counts["opened"] == 2
        assert records.failures == [None] * 4


def test_an_idle_connection_that_the_server_closes_is_not_a_failure() -> None:
    request = DrillRequest("GET", "/idle-close")
    with FaultyServer() as server, client_of(plan_of(server.port, request)) as (client, records, sel):
        for n in range(3):
            client.send(n, time.monotonic_ns())
            pump(client, sel)
            for key, mask in sel.select(5):
                client.handle(key.data, mask)
        assert records.failures == [None] * 3
        assert client.counts["idle_closed_by_server"] == 3


def test_a_request_lost_to_the_servers_close_is_marked_as_sent_on_a_reused_connection() -> None:
    request = DrillRequest("GET", "/idle-close")
    with FaultyServer() as server, client_of(plan_of(server.port, request)) as (client, records, sel):
        client.send(0, time.monotonic_ns())
        pump(client, sel)
        assert sel.select(5)  # the close has arrived, and is not read before the next request goes out
        client.send(1, time.monotonic_ns())
        pump(client, sel)
        assert records.failures[0] is None
        assert records.failures[1] in (FailureKind.CLOSED_EARLY, FailureKind.CONNECTION_RESET)
        sample = records.notes[-1].sample
        assert sample is not None
        assert sample.reused


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EMFILE])
def test_a_request_that_this_machine_cannot_send_counts_as_not_sent(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted(socket.socket):
        def connect_ex(self, address: object) -> int:
            return code

    monkeypatch.setattr("hitless.drill.connection.socket.socket", Exhausted)
    with client_of(plan_of(1, DrillRequest("GET", "/"))) as (client, records, sel):
        client.send(0, time.monotonic_ns())
        pump(client, sel)
        assert records.failures == [FailureKind.NOT_SENT]


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")
    names = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", str(names[0]), "-keyout", str(names[1])),
        ],
        check=True,
        capture_output=True,
    )
    return names


@contextmanager
def tls_server(certificate: tuple[Path, Path]) -> Iterator[int]:
    """Answers each request with 100 kB, over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()
    ports: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(5)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
        loop.close()


@pytest.mark.parametrize("percent", [0.0, 100.0], ids=["keep-alive", "new connections"])
def test_a_target_with_tls_gets_the_same_load(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, percent: float
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with tls_server(certificate) as port:
        plan = structs.replace(plan_of(port, DrillRequest("GET", "/"), tls=True), new_connections_percent=percent)
        with client_of(plan) as (client, records, sel):
            for n in range(4):
                client.send(n, time.monotonic_ns())
                pump(client, sel)
        assert records.failures == [None] * 4
        assert client.counts["opened"] == (4 if percent else 1)


@pytest.mark.parametrize(("host", "failure"), [("localhost", FailureKind.TLS_ERROR), ("127.0.0.1", None)])
def test_an_untrusted_certificate_is_a_tls_error_unless_the_host_is_an_address(
    certificate: tuple[Path, Path], host: str, failure: FailureKind | None
) -> None:
    with tls_server(certificate) as port:
        plan = structs.replace(plan_of(port, DrillRequest("GET", "/"), tls=True), host=host)
        with client_of(plan) as (client, records, sel):
            client.send(0, time.monotonic_ns())
            pump(client, sel)
        assert records.failures == [failure]


@pytest.mark.parametrize("client_class", [Http1Client, Http2Client])
def test_a_reset_just_before_the_handshake_fails_the_request(
    client_class: type[Client[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrap(_: ssl.SSLContext, sock: socket.socket, **options: object) -> ssl.SSLSocket:
        sock.close()
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap)
    records = Records()
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as selector:
        plan = plan_of(listener.getsockname()[1], DrillRequest("GET", "/ok"), tls=True)
        client = client_class(plan, selector, records, time.monotonic_ns())
        client.send(0, time.monotonic_ns())
        pump(client, selector)
        assert records.failures == [FailureKind.CONNECTION_RESET]
        assert not selector.get_map()
