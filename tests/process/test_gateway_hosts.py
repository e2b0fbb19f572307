"""Stages that are added and removed while HAProxy runs: one listener for all, told apart by host."""

from __future__ import annotations

import asyncio

import pytest

from hitless.gateway.gateway import Gateway
from hitless.gateway.state import SHARED
from tests.process.gateway_support import (
    Answer,
    Load,
    Workers,
    ask,
    event_of,
    finish,
    kill,
    new_gateway,
    raw,
    run_dir,
    running_gateway,
    shipped,
    with_release,
)

pytestmark = pytest.mark.process

HOST = "feature-x.preview.localhost"


def asked(address: tuple[str, int], host: str) -> Answer:
    return ask(address, "/zones", headers={"host": host})


async def previewed(gateway: Gateway, workers: Workers) -> tuple[str, int]:
    """A stage that responds under HOST; returns the address of the shared listener."""
    servers = await asyncio.to_thread(workers.start, 2)
    await gateway.apply(gateway.state.with_new_stage("preview_x", HOST))
    await gateway.apply(shipped(gateway.state, "p01", 2, servers, "preview_x"))
    return gateway.addresses[SHARED]


def test_adding_and_removing_stages_with_a_host_fails_no_other_request() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder, shared=True) as gateway:
                await with_release(gateway, workers)
                address = gateway.addresses[SHARED]
                second = await asyncio.to_thread(workers.start, 2)
                with Load(gateway.addresses["dev"]) as load:
                    for _ in range(10):
                        assert asked(address, HOST).status == 404
                        await gateway.apply(gateway.state.with_new_stage("preview_x", HOST))
                        assert asked(address, HOST).status == 503
                        await gateway.apply(shipped(gateway.state, "p01", 2, second, "preview_x"))
                        answer = asked(address, f"{HOST}:{address[1]}")
                        assert (answer.status, answer.headers["x-release"]) == (200, "2")
                        gone = gateway.state.without_stage("preview_x")
                        await gateway.apply(gone.without_servers("p01").without_routes("preview_x.2"))
                assert load.failures == {}
                assert load.sent > 100
                assert set(load.releases) == {"1"}

    asyncio.run(scenario())


def test_a_host_is_matched_as_a_whole_ignoring_port_and_case() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder, shared=True) as gateway:
                address = await previewed(gateway, workers)
                for host in (HOST, HOST.upper(), f"{HOST}:80", f"{HOST}:{address[1]}"):
                    assert asked(address, host).status == 200, host
                others = (f"a,{HOST}", f"{HOST},a", f"{HOST}/", f" {HOST} b", "preview.localhost", "127.0.0.1", "", "|",
                          "preview_x", f"y.{HOST}", f"{HOST}:80:80")  # fmt: skip
                for host in others:
                    answer = asked(address, host)
                    assert answer.status in (400, 404), host
                    assert HOST not in answer.body.decode(), host
                answer = asked(address, "other.preview.localhost")
                assert (answer.status, answer.json) == (404, {"message": "Not Found"})
                assert b" 404 " in raw(address, b"GET /zones HTTP/1.0\r\n\r\n")
                twice = f"GET /zones HTTP/1.1\r\nHost: {HOST}\r\nHost: a.localhost\r\n\r\n".encode()
                assert b" 400 " in raw(address, twice, timeout_s=2.0)
                absolute = f"GET http://{HOST}/zones HTTP/1.1\r\nHost: a.localhost\r\n\r\n".encode()
                assert b" 400 " in raw(address, absolute, timeout_s=2.0)

    asyncio.run(scenario())


def test_added_stages_survive_the_deaths_of_haproxy_and_daemon() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder, shared=True) as gateway:
                address = await previewed(gateway, workers)
                kill(gateway.haproxy_pid)
                await event_of(gateway, "HAProxy was restarted")
                assert asked(address, HOST).status == 200
                await gateway.close()
                later = new_gateway(folder, stages=("other",))
                assert await later.adopt()
                assert later.addresses[SHARED] == address
                assert asked(address, HOST).status == 200
                await later.apply(later.state.without_stage("preview_x"))
                assert asked(address, HOST).status == 404
                await finish(later)

    asyncio.run(scenario())
