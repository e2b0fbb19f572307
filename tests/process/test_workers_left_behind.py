"""Handlers that affect other processes: daemons that they leave behind, and a zygote that they stop."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from hitless.clock import SystemClock
from hitless.worker.paths import GenerationPaths, folder_name
from hitless.worker.process import is_locked
from hitless.workers.fleet import Fleet
from hitless.workers.pool import Pool
from tests.process.workers_support import Nest, alive, ask, in_a_nest, kill
from tests.support import eventually, gone, have_ended

pytestmark = pytest.mark.process

DAEMONIZES = """
import ctypes, json, os, time
def main(event, context):
    fork = ctypes.CDLL(None).fork if event["path"] == "/raw" else os.fork
    reading, writing = os.pipe()
    if not fork():
        os.setsid()
        if not fork():
            os.write(writing, str(os.getpid()).encode())
            while True:
                time.sleep(60)
        os._exit(0)
    return {"statusCode": 200, "body": json.dumps({"daemon": int(os.read(reading, 20))})}
"""


def locks_of(nest: Nest, pool: Pool) -> GenerationPaths:
    return GenerationPaths(nest.run / "w" / folder_name(pool.key), pool.generation)


def files_of(pid: int) -> list[Path]:
    return [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]


async def daemon_of(pool: Pool, target: str) -> int:
    answer = await asyncio.to_thread(ask, pool.workers[0].socket, target)
    return int(answer.json["daemon"])


def test_a_daemon_process_started_by_a_handler_keeps_no_lock_and_ends_with_its_pool() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(DAEMONIZES)
        daemon, lock = await daemon_of(pool, "/x"), locks_of(nest, pool).alive_lock
        inherited = files_of(daemon)
        assert lock not in inherited
        assert not any("socket:" in str(target) for target in inherited), "connections end with their worker"
        await nest.fleet.stop_pool(pool.key, grace_s=0)
        assert not lock.exists()
        assert gone(daemon)

    in_a_nest(scenario)


def test_a_lock_kept_by_a_leftover_process_neither_revives_a_pool_nor_delays_its_end() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(DAEMONIZES)
        daemon, lock = await daemon_of(pool, "/raw"), locks_of(nest, pool).alive_lock
        pids = [worker.pid for worker in pool.stats().workers]
        await nest.fleet.detach()
        for pid in (pool.zygote_pid, *pids):
            kill(pid)
        have_ended(pids)
        assert alive(daemon)
        assert is_locked(lock)
        assert await nest.restart_daemon() == {}
        await nest.fleet.stop()
        eventually(lambda: gone(daemon), what="the end of what was left behind")
        await nest.fleet.start()  # for the nest's own end

    in_a_nest(scenario)


def test_a_zygote_stopped_by_sigstop_is_killed_reported_and_replaced() -> None:
    async def scenario(nest: Nest) -> None:
        await nest.fleet.detach()
        nest.fleet = Fleet(nest.run, clock=SystemClock(), ping_s=0.2)
        await nest.fleet.start()
        pool = await nest.pool(DAEMONIZES)
        os.kill(pool.zygote_pid, signal.SIGSTOP)
        stuck = await nest.event("does not respond and was killed")
        died = await nest.event("died; its workers keep serving")
        assert all(f"(pid {pool.zygote_pid})" in event.sentence for event in (stuck, died))
        renewed = await nest.fleet.replace_zygote(pool.key)
        assert (await asyncio.to_thread(ask, renewed.workers[0].socket)).status == 200

    in_a_nest(scenario)
