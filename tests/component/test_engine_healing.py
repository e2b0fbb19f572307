"""A pool whose zygote died: new workers join first, then the old ones are removed, with retries."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from hitless.engine.healing import heal_workers
from hitless.errors import CandidateFailedError, EngineError
from hitless.gateway.state import GatewayState
from hitless.workers.pool import PoolEvent
from tests.component.engine_bench import Bench, run, until
from tests.fakes import FakePool, FakeWorker

pytestmark = pytest.mark.component


@dataclass
class FakeFleet:
    """Returns a new generation of a pool, after failing as often as configured."""

    bench: Bench
    failures: int = 0
    replacing: asyncio.Event | None = None
    events: asyncio.Queue[PoolEvent] = field(default_factory=asyncio.Queue)

    async def replace_zygote(self, key: str) -> FakePool:
        self.bench.diary.append(f"replace the zygote of {key}")
        if self.replacing is not None:
            await self.replacing.wait()
        if self.failures:
            self.failures -= 1
            raise CandidateFailedError("import fails today")
        old = self.bench.workers.running[key]
        generation = old.generation + 1
        workers = tuple(
            FakeWorker(w.index, f"w{w.index}g{generation}", Path(f"/run/{key}/g{generation}-w{w.index}.sock"))
            for w in old.workers
        )
        new = replace(old, generation=generation, workers=workers)
        self.bench.workers.running[key] = new
        return new

    async def stop_old_generation(self, key: str, generation: int, *, grace_s: float) -> None:
        self.bench.diary.append(f"stop generation {generation} of {key}")


async def zygote_dies(bench: Bench, fleet: FakeFleet) -> None:
    """Send the event and run the healing until the old generation is gone."""
    key = next(iter(bench.workers.running))
    healer = asyncio.create_task(heal_workers(bench.engine, cast(Any, fleet)))
    fleet.events.put_nowait(PoolEvent(key, "the zygote died", zygote_died=True))
    await until(lambda: f"stop generation 1 of {key}" in bench.diary)
    healer.cancel()
    await asyncio.gather(healer, return_exceptions=True)


def test_new_workers_join_before_the_old_ones_are_removed(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.diary.clear()
        await zygote_dies(bench, FakeFleet(bench))
        assert bench.diary == [
            "replace the zygote of dev-r1-api-1",
            "p00 has 4 servers",
            "drain 2 servers of p00",
            "p00 has 2 servers",
            "stop generation 1 of dev-r1-api-1",
        ]
        assert all("/g2-" in server.socket for server in bench.gateway.state.pool("p00").servers)

    run(tmp_path, story)


def test_a_failed_replacement_of_a_zygote_is_retried(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        await zygote_dies(bench, FakeFleet(bench, failures=3))
        sentences = [event.sentence for event in bench.store.events()]
        assert sum("cannot replace its zygote: import fails today" in sentence for sentence in sentences) == 3
        assert sentences[-1] == "pool dev-r1-api-1 has a new zygote and new workers"

    run(tmp_path, story)


def test_events_of_an_unwanted_pool_change_nothing(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        before, fleet = bench.gateway.state, FakeFleet(bench)
        healer = asyncio.create_task(heal_workers(bench.engine, cast(Any, fleet)))
        fleet.events.put_nowait(PoolEvent("gone-1", "a zygote of the past died", zygote_died=True))
        await until(lambda: any("of the past" in event.sentence for event in bench.store.events()))
        healer.cancel()
        await asyncio.gather(healer, return_exceptions=True)
        assert bench.gateway.state == before

    run(tmp_path, story)


def test_a_replacement_rejected_by_the_gateway_is_retried_with_the_same_workers(tmp_path: Path) -> None:
    refusals = [EngineError("HAProxy is away"), OSError("disk full")]

    def refuse(state: GatewayState) -> None:
        if refusals and any("/g2-" in server.socket for server in state.pool("p00").servers):
            raise refusals.pop(0)

    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.diary.clear()
        bench.gateway.on_apply = refuse
        await zygote_dies(bench, FakeFleet(bench))
        assert bench.diary.count("replace the zygote of dev-r1-api-1") == 1
        assert len(bench.gateway.state.pool("p00").servers) == 2
        assert all("/g2-" in server.socket for server in bench.gateway.state.pool("p00").servers)

    run(tmp_path, story)


def test_replacing_a_zygote_of_a_retiring_release_leaves_no_servers(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        fleet = FakeFleet(bench, replacing=asyncio.Event())
        assert fleet.replacing is not None
        key = next(iter(bench.workers.running))
        stop_pool = bench.workers.stop_pool

        async def stop_after_the_replacement(key: str, *, grace_s: float) -> None:
            assert fleet.replacing is not None
            fleet.replacing.set()  # as the fleet: a pool's stop waits until its zygote was replaced
            await until(lambda: f"stop generation 1 of {key}" in bench.diary)
            await stop_pool(key, grace_s=grace_s)

        bench.workers.stop_pool = stop_after_the_replacement  # type: ignore[method-assign]
        healer = asyncio.create_task(heal_workers(bench.engine, cast(Any, fleet)))
        fleet.events.put_nowait(PoolEvent(key, "the zygote died", zygote_died=True))
        await until(lambda: f"replace the zygote of {key}" in bench.diary)
        assert (await bench.deploy(digest="sha256:2"))["outcome"] == "live"
        healer.cancel()
        await asyncio.gather(healer, return_exceptions=True)
        assert bench.gateway.state.pool("p00").servers == ()
        assert "p00" in bench.gateway.state.free_pools()

    run(tmp_path, story)
