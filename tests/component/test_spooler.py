"""The spooler over real sockets: complete requests pass, slow and oversized ones do not, readers get their rest."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hitless.clock import SystemClock
from hitless.gateway.spooler import LOCK, UPLOADS, Budget, Spooler, TransferPace
from hitless.gateway.spooling import SpoolerKeeper
from tests.support import gone

pytestmark = pytest.mark.component

MIB = 1 << 20
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Inner:
    """Receives the requests that the spooler passes on. `responds`: after how many bytes (None: after the whole
    request), and with what.
    """

    response: bytes = OK
    after_bytes: int | None = None
    seen: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if self.after_bytes is None:
            self.seen.append(head + await reader.readexactly(length))
        writer.write(self.response)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@dataclass
class World:
    """A running spooler, the server behind it, and its budget."""

    folder: Path
    inner: Inner
    budget: Budget
    handed: socket.socket

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.folder / "up"))

    async def send(self, data: bytes) -> bytes:
        """Send one request at once; returns everything that comes back."""
        reader, writer = await self.connect()
        writer.write(data)
        response = await reader.read()
        writer.close()
        return response

    def hand_over(self, connection: socket.socket, rest: bytes) -> None:
        """Hand over a connection as a worker does."""
        with tempfile.TemporaryFile(dir=self.folder) as file, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            file.write(rest)
            file.flush()
            out.connect(self.handed.getsockname())
            both = struct.pack("2i", connection.fileno(), file.fileno())
            out.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, both)])
        connection.close()


@asynccontextmanager
async def running(inner: Inner, pace: TransferPace = TransferPace(), **budget: int) -> AsyncIterator[World]:  # noqa: B008 - frozen
    with tempfile.TemporaryDirectory(prefix="hls-", dir="/tmp") as name:
        folder = Path(name)
        server = await asyncio.start_unix_server(inner.serve, str(folder / "in"))
        uploads, handed = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        uploads.bind(str(folder / "up"))
        uploads.listen(64)
        handed.bind(str(folder / "handed"))
        uploads.setblocking(False)
        handed.setblocking(False)
        world = World(folder, inner, Budget(**{"left_bytes": 100 * MIB, **budget}), handed)
        spooler = Spooler(str(folder / "in"), name, world.budget, pace)
        asyncio.get_running_loop().add_reader(handed, spooler.take_over, handed)
        accepting = asyncio.create_task(spooler.accept(uploads))
        try:
            yield world
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            asyncio.get_running_loop().remove_reader(handed)
            server.close()
            uploads.close()
            handed.close()


def play(
    story: Callable[[World], Awaitable[None]],
    inner: Inner | None = None,
    pace: TransferPace = TransferPace(),  # noqa: B008 - frozen
    **budget: int,
) -> None:
    async def told() -> None:
        async with asyncio.timeout(30), running(inner or Inner(), pace, **budget) as world:
            await story(world)

    asyncio.run(told())


def post(body: bytes, *lines: bytes) -> bytes:
    head = (b"POST /items?a=%20 HTTP/1.1", b"host: h", b"x-hl-id: 7", *lines, b"content-length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST /items HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - the story's time-out is the deadline
        await asyncio.sleep(0.005)


def test_only_complete_requests_are_passed_on_and_unchanged() -> None:
    async def story(world: World) -> None:
        reader, writer = await world.connect()
        request = post(b"x" * 50_000, b"X-Twice: 1", b"X-Twice: 2", b"te: trailers")
        writer.write(request[:-1])
        await until(lambda: world.budget.left_bytes == 100 * MIB - 49_999)
        assert not world.inner.seen
        writer.write(request[-1:])
        assert await reader.read() == OK
        head, _, body = world.inner.seen[0].partition(b"\r\n\r\n")
        assert body == b"x" * 50_000
        assert head.split(b"\r\n") == [
            b"POST /items?a=%20 HTTP/1.1",
            b"host: h",
            b"X-Twice: 1",
            b"X-Twice: 2",
            b"te: trailers",
            b"x-hl-id: 7",
            b"content-length: 50000",
            b"connection: close",
        ]
        writer.close()

    play(story)


def test_bodies_beyond_the_memory_limit_are_on_disk_and_arrive_complete() -> None:
    async def story(world: World) -> None:
        bodies = [bytes([number]) * (3 * MIB) for number in range(3)]
        assert await asyncio.gather(*(world.send(post(body)) for body in bodies)) == [OK] * 3
        assert sorted(seen.partition(b"\r\n\r\n")[2] for seen in world.inner.seen) == bodies
        await until(lambda: world.budget.left_bytes == 100 * MIB)
        assert world.budget.memory_bytes == MIB

    play(story, memory_bytes=MIB)


def test_a_chunked_body_beyond_10_mib_is_refused_with_413_before_it_ends() -> None:
    async def story(world: World) -> None:
        response = await world.send(chunked(*[b"x" * MIB] * 11)[:-5])
        assert response.startswith(b"HTTP/1.1 413 ")
        assert b'{"message": "Request Too Long"}' in response
        assert await world.send(chunked(b"a", b"bc")) == OK
        assert world.inner.seen[0].endswith(b"content-length: 3\r\nconnection: close\r\n\r\nabc")

    play(story)


def test_an_upload_beyond_the_budget_gets_503_until_there_is_room() -> None:
    async def story(world: World) -> None:
        _, held = await world.connect()
        held.write(post(b"x" * MIB)[:-1])
        await until(lambda: world.budget.left_bytes < MIB)
        assert (await world.send(post(b"x" * MIB))).startswith(b"HTTP/1.1 503 ")
        assert await world.send(post(b"small")) == OK
        held.close()
        await until(lambda: world.budget.left_bytes == MIB + 1000)
        assert await world.send(post(b"x" * MIB)) == OK

    play(story, left_bytes=MIB + 1000)


def test_a_response_beyond_the_budget_is_a_502() -> None:
    async def story(world: World) -> None:
        assert (await world.send(post(b"x" * 1000))).startswith(b"HTTP/1.1 502 ")
        await until(lambda: world.budget.left_bytes == MIB)

    play(story, inner=Inner(OK + b"x" * 2 * MIB), left_bytes=MIB)


def test_an_upload_that_fills_the_disk_gets_503() -> None:
    async def story(world: World) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (69_000, hard))
        try:
            assert (await world.send(post(b"x" * 70_000))).startswith(b"HTTP/1.1 503 ")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not world.inner.seen

    play(story, memory_bytes=0)


def test_an_upload_that_is_too_slow_gets_408() -> None:
    async def story(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(post(b"x" * 1000)[:-1])
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        assert not world.inner.seen
        writer.close()

    play(story, pace=TransferPace(grace_s=0.05, least_bytes_per_s=1e6))


def test_a_steady_upload_may_take_longer_than_the_grace() -> None:
    async def story(world: World) -> None:
        reader, writer = await world.connect()
        request = post(b"x" * 40)
        for index in range(40, 0, -1):
            writer.write(request[len(request) - index - 1 : len(request) - index] if index < 40 else request[:-40])
            await asyncio.sleep(0.01)
        writer.write(request[-1:])
        assert await reader.read() == OK
        writer.close()

    play(story, pace=TransferPace(grace_s=0.2, least_bytes_per_s=40))


@pytest.mark.parametrize(("response", "status"), [(b"", b"502"), (b"HTTP/1.1 503 Full\r\n\r\n", b"503")])
def test_an_early_response_is_passed_on_and_a_missing_response_is_a_502(response: bytes, status: bytes) -> None:
    async def story(world: World) -> None:
        assert (await world.send(post(b"x" * 5 * MIB)))[9:12] == status

    play(story, inner=Inner(response, after_bytes=0))


def test_invalid_http_gets_400_and_a_client_that_disconnects_is_harmless() -> None:
    async def story(world: World) -> None:
        assert (await world.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        _, writer = await world.connect()
        writer.write(post(b"x" * 1000)[:-1])
        await until(lambda: world.budget.left_bytes < 100 * MIB)
        writer.close()
        await until(lambda: world.budget.left_bytes == 100 * MIB)
        assert not world.inner.seen

    play(story)


def test_without_the_gateway_an_upload_gets_503() -> None:
    async def story(world: World) -> None:
        os.unlink(world.folder / "in")
        assert (await world.send(post(b"x"))).startswith(b"HTTP/1.1 503 ")

    play(story)


def test_a_connection_handed_over_by_a_worker_gets_the_rest_and_is_closed() -> None:
    async def story(world: World) -> None:
        mine, worker_s = socket.socketpair()
        rest = bytes(range(256)) * 20_000
        world.hand_over(worker_s, rest)
        reader, writer = await asyncio.open_connection(sock=mine)
        assert await reader.read() == rest
        await until(lambda: world.budget.left_bytes == 100 * MIB)
        writer.close()

    play(story)


def test_a_reader_that_is_too_slow_is_cut_off() -> None:
    async def story(world: World) -> None:
        mine, worker_s = socket.socketpair()
        world.hand_over(worker_s, b"x" * 5 * MIB)
        await until(lambda: world.budget.left_bytes < 100 * MIB)
        await until(lambda: world.budget.left_bytes == 100 * MIB)
        reader, writer = await asyncio.open_connection(sock=mine)
        assert len(await reader.read()) < 5 * MIB
        writer.close()

    play(story, pace=TransferPace(grace_s=0.05, least_bytes_per_s=1e8))


def test_beyond_the_budget_the_oldest_reader_is_cut_off() -> None:
    async def story(world: World) -> None:
        pairs = [socket.socketpair() for _ in range(3)]
        for _, worker_s in pairs:
            world.hand_over(worker_s, b"x" * 2 * MIB)
        lengths = []
        for mine, _ in reversed(pairs):
            reader, writer = await asyncio.open_connection(sock=mine)
            lengths.append(len(await reader.read()))
            writer.close()
        assert lengths[:2] == [2 * MIB] * 2
        assert lengths[2] < 2 * MIB

    play(story, left_bytes=5 * MIB)


def test_a_spooler_that_is_stopped_is_replaced() -> None:
    async def story() -> None:
        with tempfile.TemporaryDirectory(prefix="hls-", dir="/tmp") as name:
            folder = Path(name)
            spooling = SpoolerKeeper(
                folder, folder / "bodies", folder / "in", MIB, SystemClock(), responds_within_s=0.5
            )
            assert await spooling.ensure()
            try:
                assert not await spooling.ensure(), "it lives and responds"
                await until(lambda: (folder / LOCK).read_text() != "")
                pid = int((folder / LOCK).read_text())
                os.kill(pid, signal.SIGSTOP)
                assert await spooling.ensure()
                assert gone(pid)
                await until(lambda: (folder / LOCK).read_text() not in ("", str(pid)))
                assert not await spooling.ensure()
            finally:
                await spooling.stop()

    asyncio.run(story())


def test_a_spooler_that_is_replaced_finishes_its_transfers() -> None:
    async def story() -> None:
        with tempfile.TemporaryDirectory(prefix="hls-", dir="/tmp") as name:
            folder = Path(name)
            spooling = SpoolerKeeper(folder, folder / "bodies", folder / "in", MIB, SystemClock())
            assert await spooling.ensure()
            try:
                await until(lambda: (folder / LOCK).read_text() != "")
                old = int((folder / LOCK).read_text())
                reader, writer = await asyncio.open_unix_connection(str(folder / UPLOADS))
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nha")
                await spooling.replace()
                await until(lambda: (folder / LOCK).read_text() not in ("", str(old)))
                assert not await spooling.ensure(), "the new one lives and responds"
                assert not gone(old), "it has a transfer"
                writer.write(b"lf")
                assert (await reader.read()).startswith(b"HTTP/1.1 503 "), "nothing listens on the inner socket"
                writer.close()
                await until(lambda: gone(old))
                assert spooling.pid not in (None, old)
            finally:
                await spooling.stop()

    asyncio.run(story())
