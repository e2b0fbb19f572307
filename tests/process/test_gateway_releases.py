"""Releases under load through a real HAProxy: why the commands are in that order."""

from __future__ import annotations

import asyncio
import http.client
from contextlib import ExitStack

import pytest

from hitless.errors import EngineError
from hitless.gateway.gateway import Gateway
from hitless.gateway.state import GatewayState, ServerMode, ServerState
from tests.process.gateway_support import (
    Load,
    Workers,
    ask,
    busy,
    haproxy_version,
    routes_to,
    run_dir,
    running_gateway,
    shipped,
    until,
)
from tests.support import eventually, release_keys, with_mode

pytestmark = pytest.mark.process


async def swap(gateway: Gateway, workers: Workers, release: int) -> None:
    """Swap all at once in the engine's order: join, swap, drain, remove, and only then end the workers."""
    old, new = f"p{release % 2:02}", f"p{(release + 1) % 2:02}"
    servers = await asyncio.to_thread(workers.start, release)
    before = gateway.state.pool(old).servers
    await gateway.apply(shipped(gateway.state, new, release, servers))
    assert await gateway.drained(old, deadline_s=10, readers=True)
    key = f"dev.{release - 1}"
    state = gateway.state.without_servers(old)
    await gateway.apply(state.without_routes(key) if key in release_keys(state) else state)
    for server in before:
        workers.end(server.socket)


def test_ten_releases_fail_no_request_of_any_kind_of_client() -> None:
    """Nor does the check of HAProxy's state mistake a step of a rollout for somebody else's change."""

    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder, check_every_s=0.01) as gateway:
                await swap(gateway, workers, 1)
                address = gateway.addresses["dev"]
                loads = [
                    Load(address, keep_alive=keep_alive, method=method, body=b"x" * 2000 if method == "POST" else None)
                    for keep_alive in (True, False)
                    for method in ("GET", "POST")
                ]
                with ExitStack() as stack:
                    for load in loads:
                        stack.enter_context(load)
                    for release in range(2, 12):
                        await swap(gateway, workers, release)
                        await until(lambda r=str(release): all(x.releases[r] > 5 for x in loads), "traffic")  # type: ignore[misc]
                for load in loads:
                    assert load.failures == {}
                    assert load.sent > 100
                    assert set(load.releases) == {str(release) for release in range(1, 12)}
                assert gateway.events.empty()

    asyncio.run(scenario())


def test_removing_a_busy_pool_waits_for_its_requests() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                first = await asyncio.to_thread(workers.start, 1, delay_ms=30, maxconn=1)
                await gateway.apply(shipped(gateway.state, "p00", 1, first))
                with Load(gateway.addresses["dev"], clients=6) as load:
                    await until(lambda: load.sent > 20, "traffic")
                    second = await asyncio.to_thread(workers.start, 2, delay_ms=30, maxconn=1)
                    state = shipped(gateway.state, "p01", 2, second)
                    await gateway.apply(state.without_routes("dev.1").without_servers("p00"))
                    for server in first:
                        workers.end(server.socket)
                    await until(lambda: load.releases["2"] > 20, "traffic on the new release")
                assert load.failures == {}

    asyncio.run(scenario())


def test_a_worker_is_replaced_under_its_name_without_a_failure() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                first = await asyncio.to_thread(workers.start, 1, delay_ms=5, maxconn=1)
                await gateway.apply(shipped(gateway.state, "p00", 1, first))
                with Load(gateway.addresses["dev"], clients=6) as load:
                    for tag in ("b", "c", "d"):
                        again = await asyncio.to_thread(workers.start, 1, delay_ms=5, maxconn=1, tag=tag)
                        await gateway.apply(gateway.state.with_servers("p00", again))
                        for server in first:
                            workers.end(server.socket)
                        first, seen = again, load.sent
                        await until(lambda seen=seen: load.sent > seen + 20, "traffic")  # type: ignore[misc]
                assert load.failures == {}

    asyncio.run(scenario())


def test_a_replaced_worker_finishes_its_long_request() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                first = await asyncio.to_thread(workers.start, 1, 1)
                await gateway.apply(shipped(gateway.state, "p00", 1, first))
                slow = asyncio.create_task(asyncio.to_thread(ask, gateway.addresses["dev"], "/slow/900"))
                await busy(gateway, "p00")
                again = await asyncio.to_thread(workers.start, 1, 1, tag="b")
                await gateway.apply(gateway.state.with_servers("p00", again))
                # Cut off, it would be answered too: HAProxy would send it to the other worker, a second time.
                assert (await slow).json["pid"] == workers.running[first[0].socket].pid

    asyncio.run(scenario())


def test_a_request_that_outlives_its_drain_is_cut_off_at_the_deadline() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                servers = await asyncio.to_thread(workers.start, 1)
                await gateway.apply(shipped(gateway.state, "p00", 1, servers))
                slow = asyncio.create_task(asyncio.to_thread(ask, gateway.addresses["dev"], "/slow/20000"))
                await busy(gateway, "p00")
                state = gateway.state.with_stage("dev", live=None)
                assert not await gateway.drained("p00", deadline_s=0.2, readers=True)
                await gateway.apply(state.without_routes("dev.1").without_servers("p00"), drain_s=0.2)
                try:
                    assert (await slow).status in (502, 503)
                except http.client.RemoteDisconnected:
                    assert haproxy_version() > (2, 6), "3.0 closes the connection instead"
                assert gateway.state.free_pools()[0] == "p00"

    asyncio.run(scenario())


def test_a_canary_gets_its_share_and_the_swap_moves_all_clients() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                one, two = [await asyncio.to_thread(workers.start, release) for release in (1, 2)]
                state = shipped(gateway.state, "p00", 1, one)
                state = state.with_servers("p01", two).with_routes("dev.2", routes_to("p01", 2))
                await gateway.apply(state.with_stage("dev", live=1, candidate=2, weight=2500))
                with Load(gateway.addresses["dev"]) as load:
                    await until(lambda: load.sent >= 800, "traffic")
                share = load.releases["2"] / load.sent
                assert 0.15 < share < 0.35
                assert load.failures == {}
                await gateway.apply(gateway.state.with_stage("dev", live=1, candidate=2, weight=0))
                assert {ask(gateway.addresses["dev"], "/zones").json["release"] for _ in range(50)} == {"1"}
                await gateway.apply(gateway.state.with_stage("dev", live=2))
                assert {ask(gateway.addresses["dev"], "/zones").json["release"] for _ in range(50)} == {"2"}

    asyncio.run(scenario())


def test_a_change_that_haproxy_rejects_is_undone() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                servers = await asyncio.to_thread(workers.start, 1)
                good = shipped(gateway.state, "p00", 1, servers)
                await gateway.apply(good)
                boot = {path.name: path.read_text() for path in (folder / "gw" / "boot").iterdir()}
                broken = ServerState("w0", "/x")
                object.__setattr__(broken, "socket", f"/{'x' * 120}")
                bad = good.with_routes("dev.2", routes_to("p01", 2)).with_servers("p01", [broken])
                with pytest.raises(EngineError, match="HAProxy rejected `add server p01/w0"):
                    await gateway.apply(bad)
                assert gateway.state == good
                assert {path.name: path.read_text() for path in (folder / "gw" / "boot").iterdir()} == boot
                assert not await gateway._executor.reconcile(good, 1)
                assert ask(gateway.addresses["dev"], "/zones").json["release"] == "1"

    asyncio.run(scenario())


def test_workers_in_back_off_are_skipped_at_once_and_return_by_themselves() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                servers = await asyncio.to_thread(workers.start, 1, 3)
                await gateway.apply(shipped(gateway.state, "p00", 1, servers))
                with Load(gateway.addresses["dev"], keep_alive=False) as load:
                    await until(lambda: load.sent > 50, "traffic")
                    for server in servers[:2]:
                        workers.end(server.socket)
                    await until(lambda: load.sent > 500, "traffic")
                # Lost at most: what was on the two, and a retry that met the second before that was known to be out.
                assert sum(load.failures.values()) <= 4
                await asyncio.to_thread(workers.start, 1, 2)
                back = [workers.running[server.socket].pid for server in servers[:2]]
                for pid in back:
                    await asyncio.to_thread(
                        eventually,
                        lambda pid=pid: ask(gateway.addresses["dev"], "/zones").json["pid"] == pid,
                        what="the worker's return",
                    )

    asyncio.run(scenario())


def test_changes_of_a_servers_depth_and_mode_reach_haproxy() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                servers = await asyncio.to_thread(workers.start, 1)
                await gateway.apply(shipped(gateway.state, "p00", 1, servers))
                out = workers.running[servers[0].socket].pid
                state: GatewayState = gateway.state.with_maxconn("p00", 1)
                await gateway.apply(with_mode(state, "p00", ServerMode.DRAIN, "w0"))
                assert not await gateway._executor.reconcile(gateway.state, 1)
                assert out not in {ask(gateway.addresses["dev"], "/zones").json["pid"] for _ in range(30)}
                await gateway.apply(with_mode(gateway.state, "p00", ServerMode.MAINT, "w0"))
                await gateway.apply(with_mode(gateway.state, "p00", ServerMode.READY))
                assert not await gateway._executor.reconcile(gateway.state, 1)
                assert out in {ask(gateway.addresses["dev"], "/zones").json["pid"] for _ in range(30)}

    asyncio.run(scenario())
