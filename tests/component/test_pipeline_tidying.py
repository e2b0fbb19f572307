"""The engine's repository is packed after a push if git finds it necessary, and never during a fetch."""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
from pathlib import Path

import pytest

from hitless.pipeline.repository import FETCH_LOCK
from tests.component.pipeline_bench import PipelineBench, tell_story
from tests.support import eventually

pytestmark = pytest.mark.component

FILES = 2000
"""git estimates the loose objects from one folder in 256; with so many there are several in it."""


def pushes_loose_objects(bench: PipelineBench) -> None:
    """As after many small pushes, which git unpacks if they have up to a hundred objects."""
    for key, value in {"receive.unpackLimit": "100000", "gc.auto": "256"}.items():
        subprocess.run(["git", "--git-dir", str(bench.repository.folder), "config", key, value], check=True)
    for number in range(FILES):
        (bench.clone / f"file{number}").write_text(str(number))


def loose(bench: PipelineBench) -> int:
    return sum(1 for _ in (bench.repository.folder / "objects").glob("??/*"))


def packs(bench: PipelineBench) -> int:
    return sum(1 for _ in (bench.repository.folder / "objects" / "pack").glob("*.pack"))


def test_a_repository_with_many_loose_objects_is_packed_after_a_push(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        commit = bench.commit("1")
        await bench.end_of(await bench.push())
        await asyncio.to_thread(eventually, lambda: packs(bench) == 1 and not loose(bench), what="a pack")
        assert await bench.repository.has(commit)

    tell_story(tmp_path, story, prepare=pushes_loose_objects)


def test_a_repository_with_few_loose_objects_is_not_packed(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        await bench.end_of(await bench.push())
        assert await bench.repository.tidy()
        assert (packs(bench), loose(bench)) == (0, 3)

    tell_story(tmp_path, story)


def test_packing_and_fetching_exclude_each_other(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        with (bench.repository.folder / FETCH_LOCK).open("a") as held:
            fcntl.flock(held, fcntl.LOCK_SH)  # another fetch, of the receiver's process
            commit = bench.commit("1")
            await bench.end_of(await bench.push())
            assert not await bench.repository.tidy()
            assert (packs(bench), loose(bench) > FILES) == (0, True)
            assert await bench.repository.fetch(str(bench.clone), "refs/heads/dev") == commit
            fcntl.flock(held, fcntl.LOCK_EX)  # as who packs
            fetching = asyncio.create_task(bench.repository.fetch(str(bench.clone), "refs/heads/dev"))
            assert not (await asyncio.wait([fetching], timeout=0.5))[0]
            fcntl.flock(held, fcntl.LOCK_UN)
            assert await fetching == commit
        assert await bench.repository.tidy()
        assert (packs(bench), loose(bench)) == (1, 0)

    tell_story(tmp_path, story, prepare=pushes_loose_objects)
