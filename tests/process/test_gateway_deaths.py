"""SIGKILL of HAProxy, guardian and daemon, alone and together: nothing is refused, and everything recovers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import stat
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from hitless.errors import ConflictError, EngineError
from hitless.gateway.gateway import Gateway
from hitless.gateway.guardian import GUARDIAN_LOG
from hitless.gateway.life import haproxy_is_alive
from hitless.gateway.listeners import address_of, listen
from hitless.gateway.runtime import RuntimeSocket
from hitless.gateway.state import GatewayState, ServerState
from tests.process.gateway_support import (
    HAPROXY,
    Load,
    Workers,
    ask,
    busy,
    clients,
    event_of,
    finish,
    gone,
    kill,
    new_gateway,
    run_dir,
    running_gateway,
    shipped,
    until,
    with_release,
)

pytestmark = pytest.mark.process


def test_a_killed_haproxy_refuses_no_connection_and_the_next_one_has_its_state() -> None:
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
                        event = await event_of(gateway, "HAProxy was restarted")
                        assert event == f"HAProxy was restarted (pid {gateway.haproxy_pid})"
                        assert gateway.haproxy_pid != pid
                    seen = load.sent
                    await until(lambda: load.sent > seen + 50, "traffic")
                # Lost: what was open on a HAProxy that died, one request a client at most. Nothing was refused.
                assert set(load.failures) <= {"RemoteDisconnected", "ConnectionResetError", "BrokenPipeError"}
                assert sum(load.failures.values()) <= 4 * 3
                assert not await gateway._executor.reconcile(state, 1)

    asyncio.run(scenario())


def test_a_killed_guardian_fails_no_request_and_the_next_one_guards_the_same_haproxy() -> None:
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
                        event = await event_of(gateway, "took over")
                        assert event == f"guardian {gateway.guardian_pid} took over"
                        assert gateway.guardian_pid != guardian
                    seen = [load.sent for load in loads]
                    await until(lambda: all(load.sent > s + 50 for load, s in zip(loads, seen, strict=True)), "traffic")
                assert [load.failures for load in loads] == [{}, {}]
                assert gateway.haproxy_pid == haproxy
                await asyncio.to_thread(kill, haproxy)
                await event_of(gateway, "HAProxy was restarted")
                assert (await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")).status == 200

    asyncio.run(scenario())


def test_guardian_and_haproxy_killed_together_are_replaced_without_refused_connections() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                await with_release(gateway, workers)
                with Load(gateway.addresses["dev"], keep_alive=False, clients=3) as load:
                    await until(lambda: load.sent > 50, "traffic")
                    guardian, haproxy = gateway.guardian_pid, gateway.haproxy_pid
                    await asyncio.to_thread(kill, guardian)
                    await asyncio.to_thread(kill, haproxy)
                    await event_of(gateway, "took over")
                    seen = load.sent
                    await until(lambda: load.sent > seen + 50, "traffic")
                assert "ConnectionRefusedError" not in load.failures
                assert sum(load.failures.values()) <= 3

    asyncio.run(scenario())


def test_a_guardian_survives_simultaneous_deaths_of_haproxy_and_daemon() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = new_gateway(folder)
            await first.start({name: listen("127.0.0.1", 0) for name in first.state.listeners})
            state, guardian, haproxy = await with_release(first, workers), first.guardian_pid, first.haproxy_pid
            assert guardian is not None
            assert haproxy is not None
            os.kill(guardian, signal.SIGSTOP)  # so that it finds both in one look
            try:
                os.kill(haproxy, signal.SIGKILL)
                await until(lambda: not haproxy_is_alive(str(folder / "gw")), "HAProxy's end")
            finally:
                await first.close()
                os.kill(guardian, signal.SIGCONT)
            await until(lambda: haproxy_is_alive(str(folder / "gw")), "another HAProxy")
            second = new_gateway(folder)
            assert await second.adopt()
            assert second.guardian_pid == guardian
            assert second.state == state
            assert (await asyncio.to_thread(ask, second.addresses["dev"], "/zones")).status == 200
            await finish(second)

    asyncio.run(scenario())


def test_a_guardian_with_a_full_log_still_restarts_haproxy() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            (folder / "gw").mkdir(mode=0o700)
            (folder / "gw" / GUARDIAN_LOG).symlink_to("/dev/full")
            async with running_gateway(folder) as gateway:
                await with_release(gateway, workers)
                guardian = gateway.guardian_pid
                await asyncio.to_thread(kill, gateway.haproxy_pid)
                await event_of(gateway, "HAProxy was restarted")
                assert gateway.guardian_pid == guardian
                assert (await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")).status == 200

    asyncio.run(scenario())


def test_a_haproxy_started_with_older_files_is_updated_to_the_current_state() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                await with_release(gateway, workers)
                gateway._boot.write(GatewayState.initial(["dev", "prod"], pools=len(gateway.state.pools)))
                await asyncio.to_thread(kill, gateway.haproxy_pid)
                await event_of(gateway, "HAProxy's state was corrected")
                assert (await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")).status == 200

    asyncio.run(scenario())


FOREIGN = [
    ["set map MAPS/stages.map dev dev.99"],
    ["add map MAPS/literals.map dev.1/GET/evil p00", "del map MAPS/stages.map prod"],
    ["set server SERVER state maint"],
    ["set maxconn server SERVER 1"],
    ["add server p00/evil unix@/tmp/evil.sock", "set server p00/evil state ready"],
]


def test_what_somebody_else_writes_into_haproxy_is_put_right_with_an_event() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder, check_every_s=0.05) as gateway:
                state = await with_release(gateway, workers)
                names = {"MAPS": str(folder / "gw" / "boot"), "SERVER": f"p00/{state.pool('p00').servers[0].key}"}
                for commands in FOREIGN:
                    for command in commands:
                        line = re.sub("MAPS|SERVER", lambda found: names[found[0]], command)
                        answer = await RuntimeSocket(folder / "gw" / "adm.sock").ask(line)
                        assert answer.strip() in ("", "New server registered.")
                    assert "corrected by " in await event_of(gateway, "somebody else changed HAProxy")
                    assert await gateway._executor.foreign_changes(state, dict) == []
                    assert (await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")).status == 200
                assert gateway.state == state

    asyncio.run(scenario())


class KillingRuntime(RuntimeSocket):
    """Kills HAProxy once, just before the command with that number; if `patient`, waits until the next one responds."""

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
                await self._gateway._executor.wait_until_responding(10)
        elif self._before is not None:
            self._before -= 1
        await super().tell(command)


@pytest.mark.parametrize("patient", [False, True])
def test_a_change_succeeds_if_haproxy_dies_at_any_command(patient: bool) -> None:
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
    """A HAProxy that fails to start while a file exists."""
    program, broken = folder / "haproxy", folder / "broken"
    program.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -db ] && [ -e {broken} ] && echo "[ALERT] (1) : out of order" >&2 && exit 1\n'
        f'exec {HAPROXY} "$@"\n'
    )
    program.chmod(0o700)
    return program, broken


def test_a_haproxy_that_dies_at_each_start_is_restarted_with_back_off() -> None:
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
            event = await event_of(gateway, "times in a row")
            assert "out of order" in event
            waiting = asyncio.create_task(asyncio.to_thread(ask, gateway.addresses["dev"], "/zones"))
            await event_of(gateway, "times in a row")
            broken.unlink()
            assert (await waiting).status == 200
            await finish(gateway)

    asyncio.run(scenario())


def test_if_haproxy_never_starts_the_gateways_start_fails_with_its_message() -> None:
    async def scenario() -> None:
        with run_dir() as folder:
            broken = ServerState("w0", "/x")
            object.__setattr__(broken, "socket", f"/{'x' * 120}")
            gateway = new_gateway(folder, stages=("dev",))
            listener = listen("127.0.0.1", 0)
            host, port = address_of(listener)
            with pytest.raises(EngineError, match=r"rejects its configuration: .*too long \(max 97\)"):
                await gateway.start({"dev": listener}, gateway.state.with_servers("p00", [broken]))
            assert not (folder / "gw").exists()
            listen(host, port).close()

    asyncio.run(scenario())


def test_a_second_gateway_in_the_same_folder_is_refused() -> None:
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
                await busy(gateway, "p00")
                await gateway.stop(grace_s=5)
                assert (await slow).status == 200
                assert not (folder / "gw").exists()
                listen(host, port).close()

    asyncio.run(scenario())


def title_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def files_of(pid: int) -> list[str]:
    """Paths of the process's open files; for a Unix socket, its bound path."""
    bound = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    path_of = {f"socket:[{fields[6]}]": fields[7] for fields in bound if len(fields) > 7}
    held = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # HAProxy closes connections while this reads.
        with contextlib.suppress(FileNotFoundError):
            held.append(os.readlink(descriptor))
    return [path_of.get(name, name) for name in held]


def test_gateway_processes_have_their_own_sessions_and_private_sockets() -> None:
    async def scenario() -> None:
        with run_dir() as folder:
            async with running_gateway(folder) as gateway:
                guardian, haproxy = gateway.guardian_pid, gateway.haproxy_pid
                assert guardian is not None
                assert haproxy is not None
                assert os.getsid(guardian) == guardian != os.getsid(0)
                assert os.getpgid(haproxy) == haproxy
                for name in ("adm.sock", "guardian.sock"):
                    assert stat.S_IMODE((folder / "gw" / name).stat().st_mode) == 0o600
                assert (folder / "gw" / "hop" / "in.sock").is_socket(), "isolated workers see its folder alone"
                assert stat.S_IMODE((folder / "gw").stat().st_mode) == 0o700
                if sys.platform.startswith("linux"):
                    assert title_of(guardian).startswith("hitless: guardian")
                    assert any("guardian.sock" in name for name in files_of(guardian))
                    assert any("adm.sock" in name for name in files_of(haproxy))
                    assert not any("guardian" in name for name in files_of(haproxy))

    asyncio.run(scenario())


def test_a_running_gateways_port_cannot_be_bound_by_others() -> None:
    async def scenario() -> None:
        with run_dir() as folder:
            async with running_gateway(folder) as gateway:
                with socket.socket() as other:
                    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    with pytest.raises(OSError, match="in use"):
                        other.bind(gateway.addresses["dev"])

    asyncio.run(scenario())


def test_the_runtime_folder_is_locked_and_missing_boot_files_are_rewritten() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                await with_release(gateway, workers)
                assert is_locked_for_cleaners(folder)
                shutil.rmtree((folder / "gw" / "boot").resolve())
                await asyncio.to_thread(kill, gateway.haproxy_pid)
                await until(lambda: (folder / "gw" / "boot" / "haproxy.cfg").exists(), "the boot files")
                answer = await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")
                assert answer.status == 200

    asyncio.run(scenario())


def is_locked_for_cleaners(folder: Path) -> bool:
    """systemd-tmpfiles does not clean a folder whose lock it cannot get."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
