"""The engine's memory: measures what its workers use, and computes how many more fit."""

from __future__ import annotations

import asyncio
from typing import Final

from hitless.engine.engine import Engine
from hitless.scaling.bounds import FIRST_GUESS_MB, budget_mb, room_for, taken_mb
from hitless.workers.pool import Pool
from hitless.workers.usage import machine_mb, mean_share_mb

WORKERS_MEASURED: Final = 8
"""Workers measured in each pool, as a sample of all."""


class EngineMemory:
    """The mean memory of each pool's workers; an unmeasured pool is assumed to be like the function's live pool."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._machine_mb = machine_mb()
        self._mean_mb: dict[str, float] = {}
        self._live: tuple[int | None, ...] = ()
        self._setting_mb: int | None = None

    async def measure(self) -> None:
        """Measure every living pool. Takes some milliseconds in a thread."""
        living = dict(self._engine.pools.living)
        found = await asyncio.to_thread(lambda: {key: _mean_mb(pool) for key, pool in living.items()})
        known = {key: each for key, each in self._mean_mb.items() if key in living}
        self._mean_mb = known | {key: each for key, each in found.items() if each is not None}

    def has_measured(self, key: str) -> bool:
        return key in self._mean_mb

    def room(self, key: str | None, stage: str, function: str) -> int | None:
        """How many more workers fit, of that pool or of one like the function's live pool. None without a limit."""
        each_mb = self._mean_mb.get(key or "")
        if each_mb is None:
            live = self._engine.pools.live_row(stage, function)
            each_mb = self._mean_mb.get(live.key if live else "") or FIRST_GUESS_MB
        living = self._engine.pools.living.items()
        taken = (taken_mb(pool.size, self._mean_mb.get(each) or FIRST_GUESS_MB) for each, pool in living)
        return room_for(each_mb, self._budget(), sum(taken))

    def allowed(self, stage: str, function: str, wanted: int, beside: int) -> int:
        """How many of the `wanted` workers a new pool may start while `beside` others start; at least one."""
        room = self.room(None, stage, function)
        if room is None or wanted + beside <= room:
            return wanted
        fewer = max(1, room - beside)
        if fewer < wanted:
            self._engine.say(
                f"{function} starts with {fewer} of {wanted} workers: the memory limit allows no more", stage
            )
        return fewer

    def _budget(self) -> float | None:
        """The limit that the newest live release sets, or else a share of the machine's memory."""
        engine = self._engine
        live = tuple(engine.pools.gateway_stage(stage).live for stage in engine.stages)
        if live != self._live:
            self._live, self._setting_mb = live, _setting(engine)
        return budget_mb(self._setting_mb, self._machine_mb)


def _setting(engine: Engine) -> int | None:
    since = {stage: live for stage in engine.stages if (live := engine.store.live(stage)) is not None}
    if not since:
        return None
    stage = max(since, key=lambda each: since[each][1])
    return engine.release(stage, since[stage][0]).document.memory_mb


def _mean_mb(pool: Pool) -> float | None:
    stats = pool.stats()
    return mean_share_mb(worker.pid for worker in stats.workers[:WORKERS_MEASURED] if worker.pid)
