"""Start and stop of the running whole, over fakes: a start that fails ends nothing that serves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from hitless.engine.machine import Machine
from hitless.errors import EngineError
from hitless.scaling.decide import Pace
from tests.component.engine_bench import Bench, run

pytestmark = pytest.mark.component


class FakeFleet:
    """Finds these pools running, and tells in the diary that it was stopped."""

    def __init__(self, diary: list[str], found: dict[str, Any]) -> None:
        self.diary, self.found = diary, found

    async def start(self) -> None:
        self.diary.append("fleet starts")

    async def adopt(self) -> dict[str, Any]:
        return self.found

    async def stop(self, *, force: bool = False) -> None:
        self.diary.append("fleet stops")


class UnreachableGateway:
    """Lives, and cannot be taken over."""

    async def adopt(self) -> bool:
        raise EngineError("HAProxy does not answer")


def start_over(bench: Bench, found: dict[str, Any]) -> None:
    machine = Machine(
        bench.engine,
        cast(Any, FakeFleet(bench.diary, found)),
        cast(Any, UnreachableGateway()),
        clock=bench.clock,
        listen=dict,
        leave=lambda: None,
        pace=Pace(),
    )
    with pytest.raises(EngineError, match="does not answer"):
        asyncio.run(machine.start())


async def _deployed(bench: Bench) -> None:
    await bench.deploy()


def test_a_gateway_that_cannot_be_taken_over_keeps_the_workers_behind_it(tmp_path: Path) -> None:
    bench = run(tmp_path, _deployed).again()
    bench.engine.pools.living.clear()
    start_over(bench, cast(Any, bench.workers.running))
    assert "fleet stops" not in bench.diary


def test_a_start_that_fails_where_nothing_ran_leaves_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    start_over(bench, {})
    assert bench.diary == ["fleet starts", "fleet stops"]
