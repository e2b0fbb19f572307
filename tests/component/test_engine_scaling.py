"""Pools that grow and shrink, on fakes: the order of steps, and what must not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

from hitless.engine.scaling import Scaler
from hitless.errors import EngineError
from hitless.gateway.observe import BackendLoad
from hitless.gateway.state import ServerMode
from hitless.release.document import ReleaseDocument
from hitless.scaling.decide import ScaleInPace
from hitless.store.store import PoolRow
from hitless.workers.stats import Pulse
from tests.component.engine_bench import Bench, run, until
from tests.fakes import FakePool, release_document

pytestmark = pytest.mark.component

MS = 1_000_000


def document(digest: str = "sha256:1", strategy: str = "AllAtOnce", **function: Any) -> ReleaseDocument:
    """A release of one function with these settings."""
    made = release_document(digest=digest, strategy=strategy)
    return structs.replace(made, functions=(structs.replace(made.functions[0], **function),))


async def ship(bench: Bench, **settings: Any) -> PoolRow:
    """Deploy it and wait for the end; returns the live pool's row."""
    given = document(**settings)
    result = await bench.end(await bench.engine.deploy("dev", given, strategy=None, force=True))
    assert result["outcome"] == "live"
    bench.diary.clear()
    row = bench.engine.pools.live_row("dev", "api")
    assert row is not None
    return row


def modes(bench: Bench, pool: str) -> list[ServerMode]:
    return [server.mode for server in bench.gateway.state.pool(pool).servers]


def play(tmp_path: Path, story: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    run(tmp_path, story)


def test_new_workers_are_ready_before_the_gateway_gets_them(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=1, max_workers=8)
        await bench.engine.pools.servers.scale(row, 4)
        assert bench.diary == [f"scale {row.key} to 4", "p00 has 4 servers"]
        assert bench.engine.pools.living[row.key].size == 4

    play(tmp_path, story)


def test_workers_end_only_after_the_gateway_drained_and_removed_them(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=4, max_workers=8)
        await bench.engine.pools.servers.scale(row, 1)
        assert bench.engine.pools.living[row.key].size == 1
        assert bench.diary == [
            "p00 has 4 servers",
            "drain 3 servers of p00",
            "p00 has 1 servers",
            f"scale {row.key} to 1",
        ]

    play(tmp_path, story)


def test_a_weight_change_does_not_wait_for_draining_servers(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=4, max_workers=8)
        bench.gateway.draining = asyncio.Event()
        leaving = asyncio.create_task(bench.engine.pools.servers.scale(row, 1))
        await until(lambda: "drain 3 servers of p00" in bench.diary)
        await bench.engine.pools.change_gateway(lambda state: state.with_stage("dev", live=1, candidate=2, weight=500))
        assert not leaving.done()
        assert bench.gateway.state.stage("dev").weight == 500
        bench.gateway.draining.set()
        await leaving
        assert bench.engine.pools.living[row.key].size == 1
        assert bench.gateway.state.stage("dev").weight == 500

    play(tmp_path, story)


def test_draining_workers_stay_if_they_are_needed_again(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=4, max_workers=8)
        bench.gateway.draining = asyncio.Event()
        leaving = asyncio.create_task(bench.engine.pools.servers.scale(row, 1))
        await until(lambda: "drain 3 servers of p00" in bench.diary)
        assert modes(bench, "p00").count(ServerMode.DRAIN) == 3
        await bench.engine.pools.servers.scale(row, 6)
        await leaving
        assert bench.engine.pools.living[row.key].size == 6
        assert modes(bench, "p00") == [ServerMode.READY] * 6
        assert f"scale {row.key} to 1" not in bench.diary

    play(tmp_path, story)


def test_if_a_zygote_refuses_to_scale_the_gateway_is_not_changed(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=4, max_workers=8)
        bench.workers.refuses_to_scale = True
        for size in (1, 8):
            with pytest.raises(EngineError, match="no process"):
                await bench.engine.pools.servers.scale(row, size)
            assert modes(bench, "p00") == [ServerMode.READY] * 4

    play(tmp_path, story)


def test_a_pool_that_retires_while_it_grows_adds_no_servers(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=1, max_workers=8)
        grown, growing = bench.workers.scale, asyncio.Event()

        async def slowly(key: str, size: int, *, ready_timeout_s: float) -> FakePool:
            growing.set()
            await until(lambda: row.key not in bench.engine.pools.living)
            return await grown(key, size, ready_timeout_s=ready_timeout_s)

        bench.workers.scale = slowly  # type: ignore[method-assign]
        moving = asyncio.create_task(bench.engine.pools.servers.scale(row, 8))
        await growing.wait()
        bench.engine.pools.living.pop(row.key)
        await bench.engine.pools.change_gateway(lambda state: state.without_servers("p00"))
        await moving
        assert modes(bench, "p00") == []
        assert row.key not in bench.engine.pools.living

    play(tmp_path, story)


def test_requests_reach_a_sleeping_pool_by_its_door_until_it_wakes(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=0, max_workers=8)
        standing, workers = bench.engine.pools.servers, bench.workers
        await standing.scale(row, 0)
        (door,) = bench.gateway.state.pool("p00").servers
        assert (door.name, door.checked) == ("z0", False)
        workers.running[row.key] = FakePool.of(workers.running[row.key].spec, 1, workers.pulses)
        await standing.reconcile(row)
        (server,) = bench.gateway.state.pool("p00").servers
        assert (server.name, server.socket, server.checked) == ("w0", door.socket, True)

    play(tmp_path, story)


def test_a_candidate_has_the_live_releases_current_size_when_it_serves(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=1, max_workers=8)
        await bench.engine.pools.servers.scale(row, 5)
        new = await ship(bench, digest="sha256:2", workers=1, max_workers=8)
        assert new.key != row.key
        assert bench.engine.pools.living[new.key].size == 5
        bench.workers.hold = asyncio.Event()
        started = await bench.engine.deploy(
            "dev", document("sha256:3", workers=1, max_workers=8), strategy=None, force=True
        )
        await until(lambda: "start api r3" in bench.diary)
        await bench.engine.pools.servers.scale(new, 7)
        bench.workers.hold.set()
        assert (await bench.end(started))["outcome"] == "live"
        live = bench.engine.pools.live_row("dev", "api")
        assert live
        assert bench.engine.pools.living[live.key].size == 7
        before_routes = bench.diary[: bench.diary.index("routes of dev.2, dev.3")]
        assert f"scale {live.key} to 7" in before_routes

    play(tmp_path, story)


class Watch:
    """A scaler whose pools' pulses and queues are set by a test."""

    def __init__(self, bench: Bench, pace: ScaleInPace | None = None) -> None:
        self.bench = bench
        self.scaler = Scaler(bench.engine, cast(Any, bench.gateway), bench.clock, pace or ScaleInPace(2.0, 0.2))

    async def see(self, row: PoolRow, *, busy: int, waiting: int = 0, ended: int = 0, seconds: float = 0.05) -> None:
        """Let time pass with this many busy workers, then sample; moves are carried out."""
        ticks = round(seconds / 0.05)
        for _ in range(ticks):
            last = self.bench.workers.pulses.get(row.key, Pulse(0, 0, 0, 0, 0))
            self.bench.clock.elapsed_s += 0.05
            self.bench.workers.pulses[row.key] = Pulse(
                last.at_ns + 50 * MS, last.work_ns + busy * 50 * MS, last.ended + ended, last.ended_us, busy
            )
            self.bench.gateway.load[row.gateway_pool] = BackendLoad(busy + waiting, waiting)
            await self.scaler.scale_once()
            for _ in range(20):
                await asyncio.sleep(0)

    def size(self, row: PoolRow) -> int:
        return len(self.bench.gateway.state.pool(row.gateway_pool).servers)

    def told(self) -> list[str]:
        return [event.sentence for event in self.bench.store.events() if "workers" in event.sentence]


def test_load_adds_workers_and_idle_time_removes_them_with_an_event_each(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=1, max_workers=8)
        watch = Watch(bench)
        await watch.see(row, busy=0)
        await watch.see(row, busy=1, waiting=9)
        assert watch.size(row) == 8
        await watch.see(row, busy=8, seconds=0.2)
        assert watch.scaler.reason_of(row.key) == "as many as needed"
        assert watch.told() == ["api of release 1: 1 → 8 workers: 1.0 busy and 9 waiting, target 70 %, the maximum"]
        await watch.see(row, busy=0, seconds=1.5)
        assert watch.size(row) == 8
        await watch.see(row, busy=0, seconds=8)
        assert watch.size(row) == 1
        assert watch.told()[-1].startswith("api of release 1: ")
        assert watch.told()[-1].endswith(" → 1 workers: at most 1 worker was needed in the last 2 s")
        assert len(watch.told()) <= 6

    play(tmp_path, story)


def test_a_pool_of_fixed_size_is_never_scaled(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=2)
        watch = Watch(bench)
        await watch.see(row, busy=2, waiting=50, seconds=1)
        assert watch.size(row) == 2
        assert watch.scaler.reason_of(row.key) is None

    play(tmp_path, story)


def test_a_short_request_between_two_samples_keeps_a_worker(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=0, max_workers=8)
        watch = Watch(bench)
        await watch.see(row, busy=0, seconds=4)
        assert bench.engine.pools.living[row.key].size == 0
        workers = bench.workers
        workers.running[row.key] = FakePool.of(workers.running[row.key].spec, 1, workers.pulses)  # as its zygote does
        asleep = replace(workers.running[row.key], workers=(), woken_to=1)
        bench.engine.pools.living[row.key] = cast(Any, asleep)
        await watch.see(row, busy=0, ended=1)
        await watch.see(row, busy=0, seconds=1.5)
        assert bench.engine.pools.living[row.key].size == 1

    play(tmp_path, story)


def test_a_memory_refusal_is_reported_once_a_minute_and_limits_a_deploy(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=1, max_workers=32)
        watch = Watch(bench)
        bench.store.set_live("dev", 1, "2026-11-24T06:00:00Z")
        limited = structs.replace(document("sha256:2", workers=1, max_workers=32), memory_mb=100)
        assert (await bench.end(await bench.engine.deploy("dev", limited, strategy=None, force=True)))[
            "outcome"
        ] == "live"
        row = bench.engine.pools.live_row("dev", "api") or row
        await watch.see(row, busy=0)
        for _ in range(20):
            await watch.see(row, busy=1, waiting=90)
        assert watch.size(row) == 100 // 16
        refusals = [sentence for sentence in watch.told() if "room for" in sentence and "→" not in sentence]
        assert len(refusals) == 1
        demanding = structs.replace(document("sha256:3", workers=20, max_workers=32), memory_mb=100)
        assert (await bench.end(await bench.engine.deploy("dev", demanding, strategy=None, force=True)))[
            "outcome"
        ] == "live"
        assert any("api starts with 1 of 20 workers" in sentence for sentence in watch.told())

    play(tmp_path, story)


def test_scaling_pauses_after_a_failure(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=1, max_workers=8)
        watch = Watch(bench)
        bench.workers.refuses_to_scale = True
        await watch.see(row, busy=0)
        await watch.see(row, busy=1, waiting=9, seconds=0.9)
        assert bench.diary.count(f"scale {row.key} to 8") == 1
        assert watch.told() == ["api of release 1: cannot scale to 8 workers: no process to be had; next try in 1 s"]
        bench.workers.refuses_to_scale = False
        await watch.see(row, busy=1, waiting=9, seconds=0.3)
        assert watch.size(row) == 8

    play(tmp_path, story)


def test_a_candidate_grows_with_the_live_release_and_shrinks_only_when_it_serves(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        row = await ship(bench, workers=1, max_workers=8)
        watch = Watch(bench)
        await bench.engine.pools.servers.scale(row, 3)
        await watch.see(row, busy=2)
        settings: dict[str, Any] = {"digest": "sha256:2", "strategy": "Canary10Percent60Minutes"}
        started = await bench.engine.deploy(
            "dev", document(**settings, workers=1, max_workers=8), strategy=None, force=True
        )
        await until(lambda: bench.gateway.state.stage("dev").candidate == 2)
        (candidate,) = bench.store.pools("dev", 2)
        assert watch.size(candidate) == 3
        await watch.see(row, busy=5, seconds=3)
        assert (watch.size(row), watch.size(candidate)) == (8, 8)
        await watch.see(row, busy=0, seconds=20)
        assert (watch.size(row), watch.size(candidate)) == (1, 8)
        bench.engine.abort("dev")
        await bench.end(started)

    play(tmp_path, story)
