"""SIGKILL of HAProxy, guardian and daemon, alone and together: nothing refused, everything heals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hitless.errors import ConflictError, EngineError
from hitless.gateway.gateway import Gateway, GatewayEventKind
from hitless.gateway.guardian import is_alive
from hitless.gateway.listen import address_of, listen
from hitless.gateway.runtime import RuntimeSocket
from hitless.gateway.state import GatewayState, ServerState
from tests.process.gateway_support import (
    HAPROXY,
    Load,
    Workers,
    ask,
    event_of,
    finish,
    gone,
    new_gateway,
    run_dir,
    running_gateway,
    shipped,
    until,
)
from tests.support import eventually

pytestmark = pytest.mark.process


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid), what=f"end of {pid}")


async def with_release(gateway: Gateway, workers: Workers, count: int = 2) -> GatewayState:
    servers = await asyncio.to_thread(workers.start, 1, count)
    state = shipped(gateway.state, "p00", 1, servers)
    await gateway.apply(state)
    return state


def clients(gateway: Gateway) -> Iterator[Load]:
    for keep_alive in (True, False):
        yield Load(gateway.addresses["dev"], keep_alive=keep_alive)


def test_kill_9_of_haproxy_refuses_nothing_and_the_next_one_has_routes_weights_and_servers() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                state = await with_release(gateway, workers)
                state = state.with_stage("dev", live=1, candidate=1, weight=500)
                await gateway.apply(state)
                with Load(gateway.addresses["dev"], keep_alive=False, clients=3) as load:
                    for _ in range(4):
                        seen, pid = load.sent, gateway.haproxy_pid
                        await until(lambda seen=seen: load.sent > seen + 50, "traffic")  # type: ignore[misc]
                        await asyncio.to_thread(kill, pid)
                        event = await event_of(gateway, GatewayEventKind.HAPROXY_RESTARTED)
                        assert event.pid == gateway.haproxy_pid != pid
                    seen = load.sent
                    await until(lambda: load.sent > seen + 50, "traffic")
                # Lost: what was open on a HAProxy that died, one request a client at most. Nothing was refused.
                assert set(load.failures) <= {"RemoteDisconnected", "ConnectionResetError", "BrokenPipeError"}
                assert sum(load.failures.values()) <= 4 * 3
                assert not await gateway._executor.reconcile(state, 1)

    asyncio.run(scenario())


def test_kill_9_of_the_guardian_fails_no_request_and_its_successor_guards_the_same_haproxy() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                await with_release(gateway, workers)
                haproxy = gateway.haproxy_pid
                loads = list(clients(gateway))
                with ExitStack() as stack:
                    for load in loads:
                        stack.enter_context(load)
                    for _ in range(3):
                        guardian = gateway.guardian_pid
                        await asyncio.to_thread(kill, guardian)
                        event = await event_of(gateway, GatewayEventKind.GUARDIAN_REPLACED)
                        assert event.pid == gateway.guardian_pid != guardian
                    seen = [load.sent for load in loads]
                    await until(lambda: all(load.sent > s + 50 for load, s in zip(loads, seen, strict=True)), "traffic")
                assert [load.failures for load in loads] == [{}, {}]
                assert gateway.haproxy_pid == haproxy
                await asyncio.to_thread(kill, haproxy)
                await event_of(gateway, GatewayEventKind.HAPROXY_RESTARTED)
                assert (await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")).status == 200

    asyncio.run(scenario())


def test_guardian_and_haproxy_killed_together_are_both_replaced_and_nothing_is_refused() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                await with_release(gateway, workers)
                with Load(gateway.addresses["dev"], keep_alive=False, clients=3) as load:
                    await until(lambda: load.sent > 50, "traffic")
                    guardian, haproxy = gateway.guardian_pid, gateway.haproxy_pid
                    await asyncio.to_thread(kill, guardian)
                    await asyncio.to_thread(kill, haproxy)
                    await event_of(gateway, GatewayEventKind.GUARDIAN_REPLACED)
                    seen = load.sent
                    await until(lambda: load.sent > seen + 50, "traffic")
                assert "ConnectionRefusedError" not in load.failures
                assert sum(load.failures.values()) <= 3

    asyncio.run(scenario())


def test_a_daemon_that_went_is_followed_by_one_that_adopts_everything() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = new_gateway(folder)
            await first.start({stage: listen("127.0.0.1", 0) for stage in ("dev", "prod")})
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
            await event_of(second, GatewayEventKind.HAPROXY_RESTARTED)
            await finish(second)

    asyncio.run(scenario())


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux lets sockets be taken out of a process")
def test_a_haproxy_alone_is_adopted_with_its_sockets_and_no_request_fails() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = new_gateway(folder)
            await first.start({stage: listen("127.0.0.1", 0) for stage in ("dev", "prod")})
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
            await event_of(second, GatewayEventKind.HAPROXY_RESTARTED)
            assert (await asyncio.to_thread(ask, addresses["dev"], "/zones")).status == 200
            await finish(second)

    asyncio.run(scenario())


def test_where_sockets_cannot_be_taken_a_haproxy_alone_is_replaced_and_finishes_what_it_has() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = new_gateway(folder)
            await first.start({stage: listen("127.0.0.1", 0) for stage in ("dev", "prod")})
            state = await with_release(first, workers)
            addresses, guardian, haproxy = dict(first.addresses), first.guardian_pid, first.haproxy_pid
            slow = asyncio.create_task(asyncio.to_thread(ask, addresses["dev"], "/slow/700"))
            loop = asyncio.get_running_loop()
            end = loop.time() + 10
            while not (await first.load("p00")).scur:
                assert loop.time() < end
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


def test_where_nothing_lives_there_is_nothing_to_adopt_and_a_start_begins_with_the_state() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = new_gateway(folder)
            assert not await first.adopt()
            await first.start({stage: listen("127.0.0.1", 0) for stage in ("dev", "prod")})
            state = await with_release(first, workers)
            pids = first.guardian_pid, first.haproxy_pid
            await first.close()
            for pid in pids:
                await asyncio.to_thread(kill, pid)
            second = new_gateway(folder)
            assert not await second.adopt()
            await second.start({stage: listen("127.0.0.1", 0) for stage in ("dev", "prod")}, state)
            assert (await asyncio.to_thread(ask, second.addresses["dev"], "/zones")).status == 200
            await finish(second)

    asyncio.run(scenario())


@pytest.mark.parametrize("done", [0, 1, 3, 5])
def test_a_daemon_that_died_within_a_change_leaves_one_that_the_next_daemon_finishes(done: int) -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = new_gateway(folder)
            await first.start({stage: listen("127.0.0.1", 0) for stage in ("dev", "prod")})
            old = await with_release(first, workers)
            new = shipped(old, "p01", 2, await asyncio.to_thread(workers.start, 2))
            first._boot.write(new)
            await first._executor.run(first._executor.between(old, new)[:done], 1)
            await first.close()
            second = new_gateway(folder)
            assert await second.adopt()
            assert second.state == new
            assert (await asyncio.to_thread(ask, second.addresses["dev"], "/zones")).json["release"] == "2"
            assert not await second._executor.reconcile(new, 1)
            await finish(second)

    asyncio.run(scenario())


def test_a_haproxy_that_came_up_with_older_files_is_brought_to_the_state() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                await with_release(gateway, workers)
                gateway._boot.write(GatewayState.initial(["dev", "prod"], pools=len(gateway.state.pools)))
                await asyncio.to_thread(kill, gateway.haproxy_pid)
                await event_of(gateway, GatewayEventKind.REPAIRED)
                assert (await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")).status == 200

    asyncio.run(scenario())


class KillingRuntime(RuntimeSocket):
    """Kills HAProxy once, just before the command of that number; `patient`: and waits until the next one answers."""

    def __init__(self, gateway: Gateway, path: Path, before: int, patient: bool) -> None:
        super().__init__(path)
        self._gateway = gateway
        self._before: int | None = before
        self._patient = patient

    async def tell(self, command: str) -> None:
        if self._before == 0:
            self._before = None
            await asyncio.to_thread(kill, self._gateway.haproxy_pid)
            if self._patient:
                await self._gateway._executor.answering(10)
        elif self._before is not None:
            self._before -= 1
        await super().tell(command)


@pytest.mark.parametrize("patient", [False, True])
def test_a_change_succeeds_wherever_haproxy_dies_within_it(patient: bool) -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                one, two = [await asyncio.to_thread(workers.start, release) for release in (1, 2)]
                base = gateway.state
                await gateway.apply(shipped(base, "p00", 1, one))
                for turn, before in enumerate((0, 1, 4, 8, 11, 14)):
                    pool, release, servers = ("p01", 2, two) if turn % 2 == 0 else ("p00", 1, one)
                    new, pid = shipped(base, pool, release, servers), gateway.haproxy_pid
                    gateway._executor._runtime = KillingRuntime(gateway, folder / "gw" / "adm.sock", before, patient)
                    await gateway.apply(new, drain_s=1)
                    assert gateway.state == new
                    assert gone(pid)
                    answer = await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")
                    assert answer.json["release"] == str(release)
                    await until(lambda: not gateway._uncertain.is_set(), "the repair")
                    assert not await gateway._executor.reconcile(new, 1)

    asyncio.run(scenario())


def wrapper(folder: Path) -> tuple[Path, Path]:
    """A HAProxy that fails to start as long as a file is there."""
    program, broken = folder / "haproxy", folder / "broken"
    program.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -db ] && [ -e {broken} ] && echo "[ALERT] (1) : out of order" >&2 && exit 1\n'
        f'exec {HAPROXY} "$@"\n'
    )
    program.chmod(0o700)
    return program, broken


def test_a_haproxy_that_dies_at_each_start_is_tried_again_more_slowly_until_it_comes_up() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            program, broken = wrapper(folder)
            gateway = Gateway(
                folder, clock=new_gateway(folder)._clock, haproxy=str(program), stages=("dev", "prod"), pools=2
            )
            await gateway.start({stage: listen("127.0.0.1", 0) for stage in ("dev", "prod")})
            await with_release(gateway, workers)
            broken.touch()
            await asyncio.to_thread(kill, gateway.haproxy_pid)
            event = await event_of(gateway, GatewayEventKind.HAPROXY_BACKING_OFF)
            assert "out of order" in event.sentence
            waiting = asyncio.create_task(asyncio.to_thread(ask, gateway.addresses["dev"], "/zones"))
            await event_of(gateway, GatewayEventKind.HAPROXY_BACKING_OFF)
            broken.unlink()
            assert (await waiting).status == 200
            await finish(gateway)

    asyncio.run(scenario())


def test_a_haproxy_that_never_comes_up_fails_the_start_with_its_words_and_leaves_nothing() -> None:
    async def scenario() -> None:
        with run_dir() as folder:
            broken = ServerState("w0", "/x")
            object.__setattr__(broken, "socket", f"/{'x' * 120}")
            gateway = new_gateway(folder, stages=("dev",))
            listener = listen("127.0.0.1", 0)
            host, port = address_of(listener)
            with pytest.raises(EngineError, match=r"refuses its configuration: .*too long \(max 97\)"):
                await gateway.start({"dev": listener}, gateway.state.with_servers("p00", [broken]))
            assert not (folder / "gw").exists()
            listen(host, port).close()

    asyncio.run(scenario())


def test_a_second_gateway_in_one_folder_is_refused_and_the_first_goes_on() -> None:
    async def scenario() -> None:
        with run_dir() as folder:
            async with running_gateway(folder) as gateway:
                second = new_gateway(folder)
                sockets = {stage: listen("127.0.0.1", 0) for stage in ("dev", "prod")}
                with pytest.raises(ConflictError):
                    await second.start(sockets)
                for each in sockets.values():
                    each.close()
                assert (await asyncio.to_thread(ask, gateway.addresses["dev"], "/")).status == 503

    asyncio.run(scenario())


def test_stopping_ends_requests_within_the_grace_and_frees_the_port() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                await with_release(gateway, workers)
                host, port = gateway.addresses["dev"]
                slow = asyncio.create_task(asyncio.to_thread(ask, (host, port), "/slow/300"))
                loop = asyncio.get_running_loop()
                end = loop.time() + 10
                while not (await gateway.load("p00")).scur:
                    assert loop.time() < end
                await gateway.stop(grace_s=5)
                assert (await slow).status == 200
                assert not (folder / "gw").exists()
                listen(host, port).close()

    asyncio.run(scenario())


def title_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def files_of(pid: int) -> list[str]:
    return [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]


def test_processes_are_their_own_masters_and_sockets_are_private() -> None:
    async def scenario() -> None:
        with run_dir() as folder:
            async with running_gateway(folder) as gateway:
                guardian, haproxy = gateway.guardian_pid, gateway.haproxy_pid
                assert guardian is not None
                assert haproxy is not None
                assert os.getsid(guardian) == guardian != os.getsid(0)
                assert os.getpgid(haproxy) == haproxy
                for name in ("adm.sock", "hop.sock", "guardian.sock"):
                    assert stat.S_IMODE((folder / "gw" / name).stat().st_mode) == 0o600
                assert stat.S_IMODE((folder / "gw").stat().st_mode) == 0o700
                if sys.platform.startswith("linux"):
                    assert title_of(guardian).startswith("hitless: guardian")
                    assert not any("guardian" in name for name in files_of(haproxy))

    asyncio.run(scenario())


def test_counts_go_on_over_a_restart_of_haproxy_and_an_adoption() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = new_gateway(folder)
            await first.start({stage: listen("127.0.0.1", 0) for stage in ("dev", "prod")})
            await with_release(first, workers)
            address = first.addresses["dev"]

            async def some(count: int, path: str = "/zones") -> None:
                for _ in range(count):
                    await asyncio.to_thread(ask, address, path)

            await some(5)
            assert (await first.counts())["p00"].requests == 5
            await asyncio.to_thread(kill, first.haproxy_pid)
            await event_of(first, GatewayEventKind.HAPROXY_RESTARTED)
            await some(4)
            await some(2, path="/")
            assert (await first.counts())["p00"].by_class["2xx"] == 9
            await first.close()
            second = new_gateway(folder)
            assert await second.adopt()
            await some(3)
            counts, stages = await second.counts(), await second.stage_counts()
            assert counts["p00"].requests == 12
            assert (stages["dev"].requests, stages["dev"].by_class["4xx"], stages["prod"].requests) == (14, 2, 0)
            await finish(second)

    asyncio.run(scenario())


def test_haproxy_lives_as_long_as_its_fifo_says() -> None:
    async def scenario() -> None:
        with run_dir() as folder:
            async with running_gateway(folder) as gateway:
                assert is_alive(str(folder / "gw"))
                guardian, haproxy = gateway.guardian_pid, gateway.haproxy_pid
                await gateway.close()
                await asyncio.to_thread(kill, guardian)
                assert is_alive(str(folder / "gw"))
                await asyncio.to_thread(kill, haproxy)
                assert not is_alive(str(folder / "gw"))

    asyncio.run(scenario())


def test_listeners_of_a_running_gateway_are_shared_with_nobody() -> None:
    async def scenario() -> None:
        with run_dir() as folder:
            async with running_gateway(folder) as gateway:
                with socket.socket() as other:
                    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    with pytest.raises(OSError, match="in use"):
                        other.bind(gateway.addresses["dev"])

    asyncio.run(scenario())
