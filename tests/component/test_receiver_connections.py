"""Slow senders to the receiver delay no other request, and are ended."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hitless.api.senders import SenderProtocol, server_of
from hitless.gateway.listeners import listen
from tests.component.pipeline_bench import until
from tests.component.receiver_site import FakeEngine, Site, signed

pytestmark = pytest.mark.component

HEAD = b"POST /github HTTP/1.1\r\nhost: receiver\r\n"
MIB = 1 << 20
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.remote.store.close()


def bounded(**bounds: float) -> type[SenderProtocol]:
    """The receiver's connections under other bounds; without any it waits for as long as the test may last."""
    return type("Bounded", (SenderProtocol,), {"head_s": 600.0, "life_s": 600.0, **bounds})


def serving(site: Site, protocol: type[SenderProtocol], story: Callable[[int], Awaitable[None]]) -> None:
    """The story with the port of the site's receiver."""

    async def told() -> None:
        with listen("127.0.0.1", 0, purpose="the receiver") as listener:
            server = server_of(site.receiver.application(), protocol)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                async with asyncio.timeout(60):
                    await story(int(listener.getsockname()[1]))
            finally:
                server.should_exit = server.force_exit = True
                await serving

    asyncio.run(told())


async def slow(port: int, sent: bytes = HEAD, *, address: str = "127.0.0.1") -> Stream:
    """A sender that has not sent all yet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def deliver(port: int, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"http://127.0.0.1:{port}/github", **options)


async def ended(one: Stream) -> bool:
    """Whether the receiver closes the connection without a response."""
    with contextlib.suppress(ConnectionResetError):
        return await one[0].read() == b""
    return True


async def stands(one: Stream) -> bool:
    """Whether its request is still accepted: the rest of it gets its response."""
    one[1].write(b"content-length: 0\r\n\r\n")
    return (await one[0].read()).startswith(b"HTTP/1.1 403 ")


def close(*streams: Stream) -> None:
    for _, writer in streams:
        writer.transport.abort()


def test_slow_senders_do_not_delay_a_webhook_from_their_address(site: Site) -> None:
    async def story(port: int) -> None:
        senders = [await slow(port) for _ in range(40)]
        answer = await deliver(port, **signed("ping", {}))
        assert answer.status_code == 202
        assert answer.headers["connection"] == "close"
        assert all([await ended(one) for one in senders[:9]]), "the delivery's own connection took a place too"
        assert all([await stands(one) for one in senders[9:]])
        close(*senders)

    serving(site, bounded(most_of_one=32), story)


def test_beyond_the_limit_the_oldest_connection_of_the_busiest_address_is_closed(site: Site) -> None:
    async def story(port: int) -> None:
        first = await slow(port, address="127.0.0.2")
        many = [await slow(port) for _ in range(4)]
        last = await slow(port, address="127.0.0.3")
        assert await ended(many[0])
        assert all([await stands(one) for one in (first, *many[1:], last)])
        close(first, *many, last)

    serving(site, bounded(most=5), story)


@pytest.mark.parametrize("bound", ["head_s", "life_s"])
def test_an_endless_request_is_ended(site: Site, bound: str) -> None:
    site.receiver.body_s = 600.0
    sent = HEAD if bound == "head_s" else HEAD + b"content-length: 100\r\n\r\n{"

    async def story(port: int) -> None:
        one = await slow(port, sent)
        assert await ended(one)
        close(one)

    serving(site, bounded(**{"head_s": 0.1, bound: 0.1}), story)


def test_a_request_being_handled_is_not_ended_to_make_room_for_others(site: Site) -> None:
    reached, answers = threading.Event(), threading.Event()

    class Slow(FakeEngine):
        def call(self, method: str, path: str, body: Any = None, service: str = "") -> Any:
            reached.set()
            answers.wait(60)
            return super().call(method, path, body)

    site.receiver.client = Slow()  # type: ignore[assignment]

    async def story(port: int) -> None:
        one = await slow(port, f"GET /approve/7?token={site.token()} HTTP/1.1\r\nhost: receiver\r\n\r\n".encode())
        await asyncio.to_thread(reached.wait, 60)
        others = [await slow(port) for _ in range(5)]
        answer = await deliver(port, **signed("ping", {}))
        answers.set()
        assert answer.status_code == 202
        assert (await one[0].read()).startswith(b"HTTP/1.1 200 ")
        close(one, *others)

    serving(site, bounded(most_of_one=2), story)


def test_an_endless_header_is_refused(site: Site) -> None:
    async def story(port: int) -> None:
        one = await slow(port, HEAD + b"x: " + b"x" * MIB)
        with contextlib.suppress(ConnectionResetError):
            assert (await one[0].read()).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
        close(one)

    serving(site, bounded(), story)


def test_large_bodies_do_not_block_a_small_one(site: Site) -> None:
    site.receiver.body_s = 600.0
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def hold() -> None:
        chunks = iter([b"x" * (21 * MIB), b"x" * (MIB // 4)])

        async def receive() -> dict[str, Any]:
            if (chunk := next(chunks, None)) is None:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": chunk, "more_body": True}

        scope = {"type": "http", "method": "POST", "path": "/github", "headers": [], "query_string": b""}
        await site.receiver.application()(scope, receive, send)

    async def story() -> None:
        holding = [asyncio.create_task(hold()) for _ in range(3)]
        async with asyncio.timeout(60), site.client() as client:
            await until(lambda: len(site.receiver.bodies) == 3)
            answer = await client.post("/github", **signed("ping", {"zen": "x" * MIB}))
            assert answer.status_code == 202
            await until(lambda: statuses == [413])
            for task in holding:
                task.cancel()
            await asyncio.gather(*holding, return_exceptions=True)

    asyncio.run(story())
    assert site.receiver.bodies == {}
