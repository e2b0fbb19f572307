"""A daemon after another one: it adopts what is alive, whatever else has died."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack

import pytest

from hitless.gateway.life import haproxy_is_alive
from tests.process.gateway_support import (
    Workers,
    ask,
    busy,
    clients,
    event_of,
    finish,
    free_listeners,
    gone,
    kill,
    new_gateway,
    run_dir,
    running_gateway,
    shipped,
    started_gateway,
    until,
    with_release,
)
from tests.support import eventually

pytestmark = pytest.mark.process


def test_the_next_daemon_adopts_the_running_gateway() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = await started_gateway(folder)
            state = await with_release(first, workers)
            addresses, pids = dict(first.addresses), (first.guardian_pid, first.haproxy_pid)
            loads = list(clients(first))
            with ExitStack() as stack:
                for load in loads:
                    stack.enter_context(load)
                await first.close()
                second = new_gateway(folder, stages=("others",))
                assert await second.adopt()
                seen = [load.sent for load in loads]
                await until(lambda: all(load.sent > s + 50 for load, s in zip(loads, seen, strict=True)), "traffic")
            assert [load.failures for load in loads] == [{}, {}]
            assert second.state == state
            assert dict(second.addresses) == addresses
            assert (second.guardian_pid, second.haproxy_pid) == pids
            await asyncio.to_thread(kill, second.haproxy_pid)
            await event_of(second, "HAProxy was restarted")
            await finish(second)

    asyncio.run(scenario())


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux lets sockets be taken out of a process")
def test_a_haproxy_without_a_guardian_is_adopted_with_its_sockets_and_no_request_fails() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = await started_gateway(folder)
            state = await with_release(first, workers)
            addresses, guardian, haproxy = dict(first.addresses), first.guardian_pid, first.haproxy_pid
            loads = list(clients(first))
            with ExitStack() as stack:
                for load in loads:
                    stack.enter_context(load)
                await first.close()
                await asyncio.to_thread(kill, guardian)
                second = new_gateway(folder)
                assert await second.adopt()
                seen = [load.sent for load in loads]
                await until(lambda: all(load.sent > s + 50 for load, s in zip(loads, seen, strict=True)), "traffic")
            assert [load.failures for load in loads] == [{}, {}]
            assert (second.haproxy_pid, second.state, dict(second.addresses)) == (haproxy, state, addresses)
            await asyncio.to_thread(kill, haproxy)
            await event_of(second, "HAProxy was restarted")
            assert (await asyncio.to_thread(ask, addresses["dev"], "/zones")).status == 200
            await finish(second)

    asyncio.run(scenario())


def test_a_haproxy_whose_sockets_cannot_be_taken_is_replaced_and_finishes_its_requests() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = await started_gateway(folder)
            state = await with_release(first, workers)
            addresses, guardian, haproxy = dict(first.addresses), first.guardian_pid, first.haproxy_pid
            slow = asyncio.create_task(asyncio.to_thread(ask, addresses["dev"], "/slow/700"))
            await busy(first, "p00")
            await first.close()
            await asyncio.to_thread(kill, guardian)
            second = new_gateway(folder)
            second._keeper._take = lambda pid, inherited: None
            assert await second.adopt()
            assert second.haproxy_pid != haproxy
            assert (second.state, dict(second.addresses)) == (state, addresses)
            assert (await asyncio.to_thread(ask, addresses["dev"], "/zones")).status == 200
            assert (await slow).status == 200
            await asyncio.to_thread(eventually, lambda: gone(haproxy), what="end of the first HAProxy")
            await finish(second)

    asyncio.run(scenario())


def test_without_a_living_gateway_adopt_returns_false_and_start_uses_the_state() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = new_gateway(folder)
            assert not await first.adopt()
            await first.start(free_listeners(first))
            state = await with_release(first, workers)
            pids = first.guardian_pid, first.haproxy_pid
            await first.close()
            for pid in pids:
                await asyncio.to_thread(kill, pid)
            second = new_gateway(folder)
            assert not await second.adopt()
            await second.start(free_listeners(second), state)
            assert (await asyncio.to_thread(ask, second.addresses["dev"], "/zones")).status == 200
            await finish(second)

    asyncio.run(scenario())


@pytest.mark.parametrize("done", [0, 1, 3, 5])
def test_a_change_interrupted_by_the_daemons_death_is_finished_by_the_next(done: int) -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = await started_gateway(folder)
            old = await with_release(first, workers)
            new = shipped(old, "p01", 2, await asyncio.to_thread(workers.start, 2))
            first._boot.write(new)
            await first._executor.run(first._executor.commands_between(old, new)[:done], 1)
            await first.close()
            second = new_gateway(folder)
            assert await second.adopt()
            assert second.state == new
            assert (await asyncio.to_thread(ask, second.addresses["dev"], "/zones")).json["release"] == "2"
            assert not await second._executor.reconcile(new, 1)
            await finish(second)

    asyncio.run(scenario())


def test_counts_continue_over_a_restart_of_haproxy_and_an_adoption() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = await started_gateway(folder)
            await with_release(first, workers)
            address = first.addresses["dev"]

            async def some(count: int, path: str = "/zones") -> None:
                for _ in range(count):
                    await asyncio.to_thread(ask, address, path)

            await some(5)
            assert (await first.counts())["p00"]["requests"] == 5
            await asyncio.to_thread(kill, first.haproxy_pid)
            await event_of(first, "HAProxy was restarted")
            await some(4)
            await some(2, path="/")
            assert (await first.counts())["p00"]["2xx"] == 9
            await first.close()
            second = new_gateway(folder)
            assert await second.adopt()
            await some(3)
            counts, stages = await second.counts(), await second.stage_counts()
            assert counts["p00"]["requests"] == 12
            assert (stages["dev"]["requests"], stages["dev"]["4xx"], stages["prod"]["requests"]) == (14, 2, 0)
            await finish(second)

    asyncio.run(scenario())


def test_the_fifo_shows_exactly_whether_haproxy_is_alive() -> None:
    async def scenario() -> None:
        with run_dir() as folder:
            async with running_gateway(folder) as gateway:
                assert haproxy_is_alive(str(folder / "gw"))
                guardian, haproxy = gateway.guardian_pid, gateway.haproxy_pid
                await gateway.close()
                await asyncio.to_thread(kill, guardian)
                assert haproxy_is_alive(str(folder / "gw"))
                await asyncio.to_thread(kill, haproxy)
                assert not haproxy_is_alive(str(folder / "gw"))

    asyncio.run(scenario())


def test_guardian_spooler_and_haproxy_are_replaced_and_no_request_fails() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                state = await with_release(gateway, workers)
                guardian, spooler, haproxy = gateway.guardian_pid, gateway.spooler_pid, gateway.haproxy_pid
                addresses = dict(gateway.addresses)
                slow = asyncio.create_task(asyncio.to_thread(ask, addresses["dev"], "/slow/700"))
                await busy(gateway, "p00")
                loads = list(clients(gateway))
                with ExitStack() as stack:
                    for load in loads:
                        stack.enter_context(load)
                    await gateway.replacement.guardian()
                    await gateway.replacement.spooler()
                    await gateway.replace_haproxy()
                    seen = [load.sent for load in loads]
                    await until(lambda: all(load.sent > s + 50 for load, s in zip(loads, seen, strict=True)), "traffic")
                assert [load.failures for load in loads] == [{}, {}]
                assert (await slow).status == 200
                assert haproxy != gateway.haproxy_pid, "the new one"
                for pid in (guardian, spooler, haproxy):
                    await asyncio.to_thread(eventually, lambda pid=pid: gone(pid), what=f"end of {pid}")
                await event_of(gateway, f"HAProxy {haproxy} has finished its requests")
                assert (gateway.state, dict(gateway.addresses)) == (state, addresses)
                slow = asyncio.create_task(asyncio.to_thread(ask, addresses["dev"], "/slow/3000"))
                await busy(gateway, "p00")
                await gateway.replace_haproxy()
                assert await gateway.drained("p00", deadline_s=5.0, readers=True)
                assert slow.done(), "the replaced HAProxy had a request for the pool"
                await asyncio.to_thread(kill, gateway.haproxy_pid)
                await event_of(gateway, "HAProxy was restarted")
                assert (await asyncio.to_thread(ask, addresses["dev"], "/zones")).status == 200

    asyncio.run(scenario())


def test_the_old_haproxy_serves_on_when_the_new_one_does_not_start() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                await with_release(gateway, workers)
                haproxy, configuration = gateway.haproxy_pid, gateway._layout.configuration
                text = configuration.read_text()
                configuration.write_text("not a configuration")
                await gateway._keeper.replace_haproxy()
                await event_of(gateway, "the old one keeps serving")
                assert (await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")).status == 200
                assert gateway._keeper.finishing == 0
                await until(lambda: gateway.haproxy_pid == haproxy, "the pid of the one that serves")
                configuration.write_text(text)
                assert haproxy_is_alive(str(gateway._layout.folder))
                await gateway.replace_haproxy()
                await asyncio.to_thread(eventually, lambda: gone(haproxy), what="end of the first HAProxy")
                assert (await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")).status == 200

    asyncio.run(scenario())
