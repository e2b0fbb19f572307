"""`memory_mb` and `total_workers` limit a service: one service cannot take the room of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.engine.folders import service_of
from hitless.engine.memory import EngineMemory, Room
from tests.component.engine_bench import Bench, run
from tests.fakes import release_document

pytestmark = pytest.mark.component


async def ship(bench: Bench, stage: str, *functions: str, workers: int, number: int = 1, **limits: Any) -> None:
    """Deploy a release with a fixed number of workers for each function."""
    service = service_of(stage) or "shop"
    made = release_document(*functions, service=service, digest=f"sha256:{number}")
    settings = replace(made.settings, name="dev" if "_preview_" in stage else stage.rpartition("_")[2])
    sized = tuple(replace(function, workers=workers) for function in made.functions)
    document = replace(made, functions=sized, settings=settings, **limits)
    result = await bench.end(await bench.engine.deploy(stage, document, strategy=None, force=False))
    assert result["outcome"] == "live"


def limited(bench: Bench) -> EngineMemory:
    memory = EngineMemory(bench.engine)
    bench.engine.pools.allowed = memory.allowed
    return memory


def sizes(bench: Bench) -> dict[str, int]:
    living = bench.engine.pools.living.values()
    return {f"{pool.spec.service} {pool.spec.stage} {pool.spec.function}": pool.size for pool in living}


def told(bench: Bench) -> list[str]:
    return [event.sentence for event in bench.store.events() if "allows no more" in event.sentence]


def test_all_functions_and_stages_of_a_service_share_its_total(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        memory = limited(bench)
        await ship(bench, "dev", "a", "b", workers=4, total_workers=10)
        assert memory.room(None, "prod", "a") == Room(2, "total_workers")
        await ship(bench, "prod", "a", workers=4, total_workers=10)
        assert sizes(bench) == {"shop dev a": 4, "shop dev b": 4, "shop prod a": 2}
        assert told(bench) == ["a starts with 2 of 4 workers: total_workers allows no more"]

    run(tmp_path, story)


def test_the_workers_of_a_preview_count_beside_those_of_its_stage(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        async def admit(*_: Any) -> None:
            """All stages are there already."""

        bench.engine.admit = admit
        memory = limited(bench)
        await ship(bench, "small_dev", "a", workers=4, total_workers=10)
        await ship(bench, "small_preview_fix", "a", workers=3, total_workers=10)
        assert memory.room(None, "small_prod", "a") == Room(3, "total_workers")

    run(tmp_path, story, stages=("small_dev", "small_preview_fix"))


def test_a_candidate_is_as_large_as_the_release_that_it_replaces(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        limited(bench)
        for number in (1, 2):
            await ship(bench, "dev", "a", "b", workers=5, number=number, total_workers=10)
        assert sizes(bench) == {"shop dev a": 5, "shop dev b": 5}
        assert told(bench) == []

    run(tmp_path, story)


def test_the_limits_of_a_service_do_not_bind_another_one_of_the_engine(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        async def admit(*_: Any) -> None:
            """All stages are there already."""

        bench.engine.admit = admit
        memory = limited(bench)
        await ship(bench, "small_dev", "a", workers=2, memory_mb=64, total_workers=3)
        assert memory.room(None, "small_dev", "b") == Room(1, "total_workers")
        await ship(bench, "large_dev", "a", workers=12)
        assert sizes(bench) == {"small dev a": 2, "large dev a": 12}
        await ship(bench, "small_dev", "a", workers=2, number=2, memory_mb=64)
        assert memory.room(None, "small_dev", "b") == Room(2, "memory_mb of small"), "4 of 16 MiB fit"
        await ship(bench, "large_dev", "a", workers=13, number=2, memory_mb=1 << 24)
        room = memory.room(None, "large_dev", "b")
        assert room.limit == "the engine's memory", "a service cannot raise it"
        assert room.workers is not None
        assert room.workers < 1 << 20

    run(tmp_path, story, stages=("small_dev", "large_dev"))
