"""Which process each fault signals, and when it reports recovery."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from hitless.drill.faults import FAULTS, HANG_S, FaultContext, Recovered
from hitless.drill.shipper import Shipper
from hitless.errors import ConflictError

pytestmark = pytest.mark.unit


def status_of(*, zygote: int | None = 20, workers: tuple[int, ...] = (21, 22), **engine: int) -> dict[str, Any]:
    pids = [{"pid": pid, "busy": False} for pid in workers]
    functions = [{"name": "api", "zygote_pid": zygote, "workers": pids}]
    return {
        "engine": {"pid": 1, "gateway_pid": 2, "guardian_pid": 3, **engine},
        "stages": [{"stage": "dev", "live": {"release": 1}, "functions": functions}],
    }


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
        context = FaultContext(self, "dev", lambda pid, number: self.done.append((pid, number)), _Clock(self))
        return asyncio.run(_inject(name, context))


class _Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 24, tzinfo=UTC)

    async def sleep(self, seconds: float) -> None:
        await self._world.sleep(seconds)


async def _inject(name: str, context: FaultContext) -> Recovered:
    return await FAULTS[name].inject(context)


KILL = signal.SIGKILL


@pytest.mark.parametrize(
    ("name", "done", "not_yet", "well"),
    [
        ("kill-worker", [(21, KILL)], status_of(workers=(22,)), status_of(workers=(22, 23))),
        ("kill-zygote", [(20, KILL)], status_of(zygote=None), status_of(zygote=30, workers=(31, 32))),
        ("kill-daemon", [(1, KILL), "up"], status_of(), status_of(pid=9)),
        ("kill-guardian", [(3, KILL)], status_of(), status_of(guardian_pid=9)),
        ("kill-gateway", [(2, KILL)], status_of(), status_of(gateway_pid=9)),
        (
            "hang",
            [(21, signal.SIGSTOP), HANG_S, (21, signal.SIGCONT)],
            status_of(workers=(22,)),
            status_of(),
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


def test_the_tests_cover_every_fault() -> None:
    assert set(FAULTS) == {"kill-worker", "kill-zygote", "kill-daemon", "kill-guardian", "kill-gateway", "hang"}


@pytest.mark.parametrize("name", ["kill-worker", "kill-zygote", "kill-gateway", "hang"])
def test_a_fault_without_a_target_process_is_an_error(name: str) -> None:
    world = World(status_of(zygote=None, workers=(), gateway_pid=0))
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
    assert world.done == [(21, signal.SIGSTOP), (21, signal.SIGCONT)]
