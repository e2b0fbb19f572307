"""Which process each fault signals, and when it reports recovery."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from hitless.drill.faults import FAULTS, HELD_S, FaultContext, Recovered, choose
from hitless.drill.shipper import Shipper
from hitless.drill.timeline import Timeline
from hitless.errors import ConflictError, UsageError

pytestmark = pytest.mark.unit


ENGINE = {"pid": 1, "gateway_pid": 2, "guardian_pid": 3, "root_zygote_pid": 4, "spooler_pid": 5}


def status_of(*, zygote: int | None = 20, workers: tuple[int, ...] = (21, 22), **engine: int | None) -> dict[str, Any]:
    pids = [{"pid": pid, "busy": False} for pid in workers]
    functions = [{"name": "api", "zygote_pid": zygote, "workers": pids}]
    stage = {"stage": "dev", "url": "http://127.0.0.1:1", "live": {"release": 1}, "functions": functions}
    return {"engine": {**ENGINE, **engine}, "stages": [stage]}


class World(Shipper):
    """A shipper, a clock and signals that only take notes."""

    def __init__(self, status: Mapping[str, Any] | None = None) -> None:
        self.now = status or status_of()
        self.done: list[object] = []

    async def status(self) -> Mapping[str, Any]:
        return self.now

    async def up(self) -> None:
        self.done.append("up")

    async def sleep(self, seconds: float) -> None:
        self.done.append(seconds)

    def inject(self, name: str) -> Recovered:
        self.window = Timeline().open(name, 0, fault=True)
        context = FaultContext(
            *(self, "dev", lambda pid, number: self.done.append((pid, number)), _Clock(self), self.window),
            *(lambda: 7, lambda pid: True),
        )
        (fault,) = choose([name])
        return asyncio.run(fault.inject(context))


class _Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 24, tzinfo=UTC)

    async def sleep(self, seconds: float) -> None:
        await self._world.sleep(seconds)


KILL, STOP, CONTINUE = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT


@pytest.mark.parametrize(
    ("name", "done", "not_yet", "well"),
    [
        ("kill-worker", [(21, KILL)], status_of(workers=(22,)), status_of(workers=(22, 23))),
        ("kill-zygote", [(20, KILL)], status_of(zygote=None), status_of(zygote=30, workers=(31, 32))),
        ("kill-daemon", [(1, KILL), "up"], status_of(), status_of(pid=9)),
        ("kill-guardian", [(3, KILL)], status_of(), status_of(guardian_pid=9)),
        ("kill-gateway", [(2, KILL)], status_of(), status_of(gateway_pid=9)),
        ("kill-root-zygote", [(4, KILL)], status_of(root_zygote_pid=None), status_of(root_zygote_pid=9)),
        ("kill-spooler", [(5, KILL)], status_of(), status_of(spooler_pid=9)),
        ("hang", [(21, STOP), HELD_S, (21, CONTINUE)], status_of(workers=(22,)), status_of()),
        ("stop-daemon", [(1, STOP), HELD_S, (1, CONTINUE)], status_of(gateway_pid=None), status_of()),
        (
            "kill-daemon+stop-gateway",
            [(1, KILL), (2, STOP), HELD_S, (2, CONTINUE), "up"],
            status_of(gateway_pid=9),
            status_of(pid=9),
        ),
    ],
)
def test_a_fault_signals_one_process_that_the_status_names(
    name: str, done: list[object], not_yet: dict[str, Any], well: dict[str, Any]
) -> None:
    world = World()
    recovered = world.inject(name)
    assert world.done == done
    assert not recovered(not_yet)
    assert recovered(well)


def test_only_the_death_of_a_gateway_is_recorded_with_its_times() -> None:
    for name, kills in (("kill-gateway+kill-worker", 1), ("kill-worker", 0), ("stop-gateway", 0)):
        world = World()
        world.inject(name)
        assert world.window.gateway_ends == [(7, 7)] * kills


def test_all_is_each_fault_once_and_the_same_pairs_in_the_same_order_for_a_seed() -> None:
    names = [fault.name for fault in choose(["all"])]
    assert sorted(names) == sorted(FAULTS.keys() - {"hang"})
    seeded = [[fault.name for fault in choose(["all"], seed)] for seed in (1, 1, 2)]
    assert seeded[0] == seeded[1] != seeded[2]
    assert set(names) < set(seeded[0])
    assert any("+" in name for name in seeded[0])


@pytest.mark.parametrize("name", ["kill-worker+stop-worker", "kill-worker+full-disk", "kill-worker+", "kill-x"])
def test_a_pair_needs_signals_for_two_different_processes(name: str) -> None:
    with pytest.raises(UsageError):
        choose([name])


@pytest.mark.parametrize("name", ["kill-worker", "kill-zygote", "kill-gateway", "hang"])
def test_a_fault_without_a_target_process_is_an_error(name: str) -> None:
    world = World(status_of(zygote=None, workers=(), gateway_pid=None))
    with pytest.raises(ConflictError):
        world.inject(name)
    assert world.done == []


def test_a_stopped_worker_continues_when_the_drill_is_cancelled() -> None:
    class Impatient(World):
        async def sleep(self, seconds: float) -> None:
            raise asyncio.CancelledError

    world = Impatient()
    with pytest.raises(asyncio.CancelledError):
        world.inject("hang")
    assert world.done == [(21, STOP), (21, CONTINUE)]
