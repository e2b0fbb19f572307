"""Start and stop of the engine over fakes: a failed start ends no serving process."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from hitless.engine.acme import Acme
from hitless.engine.machine import Machine
from hitless.errors import EngineError
from hitless.gateway.observe import ServerLoad
from hitless.gateway.state import GatewayState
from hitless.gateway.view import ServerKey
from hitless.scaling.decide import ScaleInPace
from tests.certificates import no_authority
from tests.component.engine_bench import Bench, run
from tests.fakes import FakeGateway

pytestmark = pytest.mark.component


class Parts:
    """The parts that an upgrade would replace: none runs."""

    guardian_pid = spooler_pid = haproxy_pid = root_pid = None
    replacement = SimpleNamespace(guardian=None, spooler=None)
    replace_haproxy = replace_root = None
    pools: ClassVar[dict[str, Any]] = {}


class FakeFleet(Parts):
    """Adopts these pools, and records in the diary that it was stopped."""

    def __init__(self, diary: list[str], found: dict[str, Any], *, survives: bool = False) -> None:
        self.diary, self.found, self.survives = diary, found, survives

    async def start(self) -> None:
        self.diary.append("fleet starts")

    async def adopt(self) -> dict[str, Any]:
        return self.found

    async def stop(self, *, force: bool = False) -> None:
        self.diary.append("fleet stops")
        if self.survives:
            raise EngineError("processes survive SIGKILL")


class FakeListeners(Parts):
    """A gateway that does not run yet; records the state that it is started with."""

    addresses: ClassVar[dict[str, tuple[str, int]]] = {}

    def __init__(self, bench: Bench) -> None:
        self.bench, self.state = bench, bench.gateway.state

    async def adopt(self) -> bool:
        return False

    async def start(self, sockets: Any) -> None:
        live = self.bench.gateway.state.stage("dev").live
        self.bench.diary.append(f"gateway starts with release {live} live")

    async def stop(self, *, grace_s: float) -> None:
        self.bench.diary.append("gateway stops")


class UnreachableGateway:
    """Alive, and cannot be adopted."""

    async def adopt(self) -> bool:
        raise EngineError("HAProxy does not answer")


class ReadingGateway(Parts, FakeGateway):
    """Alive. Each worker has a request whose response a client is still reading."""

    async def adopt(self) -> bool:
        self.seen = asyncio.Event()
        return True

    async def server_loads(self, pools: Collection[str]) -> Mapping[ServerKey, ServerLoad]:
        return {(name, one.key): ServerLoad(1, 1) for name in pools for one in self.state.pool(name).servers}

    async def raise_limits(self, reading: Mapping[ServerKey, int], loads: Mapping[ServerKey, ServerLoad]) -> None:
        if any(reading.values()):
            self.seen.set()

    async def drained(self, pool: str, *, deadline_s: float, readers: bool) -> bool:
        await self.seen.wait()
        return True


def machine_over(bench: Bench, found: dict[str, Any], gateway: object) -> Machine:
    return Machine(
        bench.engine,
        cast(Any, FakeFleet(bench.diary, found)),
        cast(Any, gateway),
        clock=bench.clock,
        listen=dict,
        leave=lambda: None,
        acme=Acme(Path("/nowhere"), bench.clock, no_authority),
        pace=ScaleInPace(),
    )


def start_over(bench: Bench, found: dict[str, Any]) -> None:
    machine = machine_over(bench, found, UnreachableGateway())
    with pytest.raises(EngineError, match="does not answer"):
        asyncio.run(machine.start())


async def _deployed(bench: Bench) -> None:
    await bench.deploy()


def test_a_gateway_that_cannot_be_adopted_keeps_its_workers(tmp_path: Path) -> None:
    bench = run(tmp_path, _deployed).again()
    bench.engine.pools.living.clear()
    start_over(bench, cast(Any, bench.workers.running))
    assert "fleet stops" not in bench.diary


def test_a_failed_first_start_leaves_no_processes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    start_over(bench, {})
    assert bench.diary == ["fleet starts", "fleet stops"]


def machine_of(bench: Bench, *, survives: bool = False) -> Machine:
    return Machine(
        bench.engine,
        cast(Any, FakeFleet(bench.diary, {}, survives=survives)),
        cast(Any, FakeListeners(bench)),
        clock=bench.clock,
        listen=dict,
        leave=lambda: bench.diary.append("the daemon leaves"),
        acme=Acme(Path("/nowhere"), bench.clock, no_authority),
        pace=ScaleInPace(),
    )


def test_a_daemon_whose_workers_do_not_end_reports_them_and_exits(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(EngineError, match="survive SIGKILL"):
        asyncio.run(machine_of(bench, survives=True).shut_down(force=True))
    assert bench.diary == ["gateway stops", "fleet stops", "the daemon leaves"]


def test_after_a_restart_the_gateway_starts_with_the_live_release(tmp_path: Path) -> None:
    bench = run(tmp_path, _deployed).again()
    bench.engine.pools.living.clear()
    bench.gateway.state = GatewayState.initial(["dev", "prod"], 6)

    async def start() -> None:
        machine = machine_of(bench)
        await machine.start()
        for healer in machine._background_tasks:
            healer.cancel()
        await asyncio.gather(*machine._background_tasks, return_exceptions=True)

    asyncio.run(start())
    assert bench.diary[-1] == "gateway starts with release 1 live"


def test_a_start_does_not_wait_for_slow_readers_of_an_old_release(tmp_path: Path) -> None:
    async def shipped_twice(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.reading["p00"] = 1
        await bench.deploy(digest="sha256:2")

    bench = run(tmp_path, shipped_twice)
    bench.gateway = ReadingGateway(bench.diary, bench.gateway.state)
    bench = bench.again()
    assert [row.release for row in bench.store.pools("dev")] == [1, 2]

    async def start() -> None:
        async with asyncio.timeout(5):
            await machine_over(bench, cast(Any, bench.workers.running), bench.gateway).start()

    asyncio.run(start())
    assert [row.release for row in bench.store.pools("dev")] == [2]
