"""A pool's number of workers changes: new ones are forked, surplus ones finish their requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hitless.errors import EngineError
from hitless.workers.pool import Pool
from tests.process.workers_support import Nest, alive, ask, in_a_nest, kill
from tests.support import eventually

pytestmark = pytest.mark.process

SOURCE = """
import json, os, time
STAMP = time.time_ns()
def main(event, context):
    time.sleep(float((event.get("queryStringParameters") or {}).get("s", "0")))
    return {"statusCode": 200, "body": json.dumps({"pid": os.getpid(), "stamp": STAMP})}
"""


async def until(probe: Callable[[], object]) -> None:
    await asyncio.to_thread(eventually, probe)


def pids(pool: Pool) -> list[int]:
    return [worker.pid for worker in pool.stats().workers]


async def small(nest: Nest, size: int = 1, key: str = "dev-r3-api-1") -> Pool:
    """A pool of this size that may have six workers."""
    spec = nest.spec(SOURCE, key, workers=6)
    return await nest.fleet.start_pool(spec, size=size, ready_timeout_s=20)


def test_added_workers_serve_as_soon_as_scaling_returns_and_share_one_import() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await small(nest)
        assert (pool.size, len(pool.workers), len(pids(pool))) == (1, 1, 1)
        pool = await nest.fleet.scale(pool.key, 6)
        answers = [await asyncio.to_thread(ask, worker.socket) for worker in pool.workers]
        assert sorted(answer.json["pid"] for answer in answers) == sorted(pids(pool))
        assert len({answer.json["stamp"] for answer in answers}) == 1
        assert (await nest.fleet.scale(pool.key, 99)).size == 6

    in_a_nest(scenario)


def test_a_surplus_worker_finishes_its_request_and_is_not_replaced() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await small(nest, size=3)
        first, *surplus = pids(pool)
        last = asyncio.create_task(asyncio.to_thread(ask, pool.workers[2].socket, "/x?s=0.5"))
        await until(lambda: pool.stats().workers[2].busy)
        smaller = await nest.fleet.scale(pool.key, 1)
        assert (await last).status == 200
        await until(lambda: not any(map(alive, surplus)))
        assert pids(smaller) == [first]
        assert alive(first)
        assert not pool.workers[2].socket.exists()
        assert smaller.stats().restarts == 0
        assert smaller.stats().requests == 1  # of a worker that is gone

    in_a_nest(scenario)


def test_a_surplus_worker_that_does_not_end_is_killed() -> None:
    async def scenario(nest: Nest) -> None:
        stubborn = "import signal, time\n" + SOURCE.replace(
            "time.sleep(", "signal.signal(15, signal.SIG_IGN); time.sleep("
        )
        spec = nest.spec(stubborn, workers=2, timeout_s=1)
        pool = await nest.fleet.start_pool(spec, size=2, ready_timeout_s=20)
        assert (await asyncio.to_thread(ask, pool.workers[1].socket)).status == 200, "it is deaf to SIGTERM from now on"
        pid = pids(pool)[1]
        await nest.fleet.scale(pool.key, 1)
        await until(lambda: not alive(pid))

    in_a_nest(scenario)


def test_scaling_out_while_a_worker_leaves_starts_a_new_worker() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await small(nest, size=2)
        old = pids(pool)[1]
        slow = asyncio.create_task(asyncio.to_thread(ask, pool.workers[1].socket, "/x?s=0.4"))
        await until(lambda: pool.stats().workers[1].busy)
        await nest.fleet.scale(pool.key, 1)
        pool = await nest.fleet.scale(pool.key, 2)
        assert (await slow).json["pid"] == old
        assert (await asyncio.to_thread(ask, pool.workers[1].socket)).json["pid"] == pids(pool)[1] != old
        assert pool.stats().restarts == 0

    in_a_nest(scenario)


def test_a_connection_to_a_sleeping_pool_forks_a_worker() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await small(nest, size=2)
        before = pids(pool)
        pool = await nest.fleet.scale(pool.key, 0)
        assert (pool.workers, pool.size) == ((), 0)
        await until(lambda: not any(map(alive, before)))
        knocks = [asyncio.create_task(asyncio.to_thread(ask, pool.door.socket)) for _ in range(5)]
        answers = [await knock for knock in knocks]
        assert {answer.status for answer in answers} == {200}
        assert len({answer.json["pid"] for answer in answers}) == 1
        await nest.event("worker 0 runs")
        assert len(nest.fleet.present(pool.key).workers) == 1

    in_a_nest(scenario)


def test_a_sleeping_pool_wakes_without_a_daemon_and_the_next_one_finds_its_size() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await small(nest, size=2)
        before = pids(pool)
        await nest.fleet.scale(pool.key, 0)
        await until(lambda: not any(map(alive, before)))
        await nest.fleet.detach()
        assert (await asyncio.to_thread(ask, pool.door.socket)).status == 200
        adopted = (await nest.restart_daemon())[pool.key]
        assert len(adopted.workers) == 1
        pool = await nest.fleet.scale(pool.key, 4)
        adopted = (await nest.restart_daemon())[pool.key]
        assert pids(adopted) == pids(pool)
        assert len(adopted.workers) == 4

    in_a_nest(scenario)


def test_a_worker_of_a_woken_pool_that_dies_is_replaced_like_any_other() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await small(nest, size=0)
        pid = (await asyncio.to_thread(ask, pool.door.socket)).json["pid"]
        kill(pid)
        assert (await asyncio.to_thread(ask, pool.door.socket)).json["pid"] != pid

    in_a_nest(scenario)


def test_a_new_zygote_has_as_many_workers_as_the_one_that_died() -> None:
    async def scenario(nest: Nest) -> None:
        for size in (4, 0):
            pool = await small(nest, size=1, key=f"dev-r3-api-{size}")
            await nest.fleet.scale(pool.key, size)
            kill(pool.zygote_pid)
            await nest.event("died; its workers keep serving")
            with pytest.raises(EngineError, match="no zygote"):
                await nest.fleet.scale(pool.key, 6)
            renewed = await nest.fleet.replace_zygote(pool.key)
            assert (renewed.generation, renewed.size, len(renewed.workers)) == (2, size, size)
            assert (await asyncio.to_thread(ask, renewed.door.socket)).status == 200
            await nest.fleet.stop_old_generation(pool.key, 1, grace_s=1)
            assert (await nest.fleet.scale(pool.key, 2)).size == 2

    in_a_nest(scenario)


def test_workers_that_start_too_late_leave_the_pool_unchanged() -> None:
    async def scenario(nest: Nest) -> None:
        late = "import os, threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        late += "if os.path.exists(os.environ['LAMBDA_TASK_ROOT'] + '/slow'): time.sleep(30)\n" + SOURCE
        spec = nest.spec(late, workers=3)
        pool = await nest.fleet.start_pool(spec, size=1, ready_timeout_s=20)
        assert pool.fresh
        (nest.folder / "task1" / "slow").touch()
        with pytest.raises(EngineError, match="3 workers were not ready within"):
            await nest.fleet.scale(pool.key, 3, ready_timeout_s=0.3)
        await until(lambda: pool.size == 1)
        assert (await asyncio.to_thread(ask, pool.workers[0].socket)).status == 200
        (nest.folder / "task1" / "slow").unlink()
        assert (await nest.fleet.scale(pool.key, 2)).size == 2

    in_a_nest(scenario)
