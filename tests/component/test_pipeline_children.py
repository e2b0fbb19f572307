"""Waiting for the pipeline's child processes does not block the rest of the daemon."""

from __future__ import annotations

import asyncio

import pytest

from hitless.pipeline.children import run_child

pytestmark = pytest.mark.component


def test_waiting_for_many_children_blocks_nothing_else() -> None:
    async def story() -> None:
        waiting = [asyncio.create_task(run_child(["sleep", "90"])) for _ in range(40)]
        await asyncio.sleep(0)  # they have begun
        async with asyncio.timeout(60):
            assert await asyncio.to_thread(lambda: "a rollout's step") == "a rollout's step"
        for task in waiting:
            task.cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)

    asyncio.run(story())


def test_a_child_that_prints_too_much_is_ended() -> None:
    async def story() -> None:
        with pytest.raises(ValueError, match="more than 1000 bytes"):
            await run_child(["yes"], max_bytes=1000)
        with pytest.raises(ValueError, match="more than 1000 bytes"):
            await run_child(["sh", "-c", "yes >&2"], max_bytes=1000)
        code, out, error = await run_child(["sh", "-c", "cat; echo problem >&2"], line=b"x" * 900, max_bytes=1000)
        assert (code, out, error) == (0, b"x" * 900, b"problem\n")

    asyncio.run(story())
