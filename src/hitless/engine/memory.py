"""The engine's memory: measures what its workers use, and computes how many more fit.

On an engine of several services `memory_mb` limits its own service. The engine's limit is then a share of the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hitless.engine.engine import Engine
from hitless.engine.folders import service_of
from hitless.release.document import ReleaseDocument
from hitless.scaling.bounds import FIRST_GUESS_MB, budget_mb, room_for, taken_mb
from hitless.workers.pool import Pool
from hitless.workers.usage import machine_mb, mean_share_mb

WORKERS_MEASURED: Final = 8
"""Workers measured in each pool, as a sample of all."""
NONE: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """The limits of a service's workers, of all its functions and stages together."""

    memory_mb: int | None = None
    total_workers: int | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """How many more workers fit, and the limit that decides. None without a limit."""

    workers: int | None = None
    limit: str = ""


class EngineMemory:
    """The mean memory of each pool's workers; an unmeasured pool is assumed to be like the function's live pool."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._machine_mb = machine_mb()
        self._mean_mb: dict[str, float] = {}
        self._live: tuple[int | None, ...] = ()
        self._known: dict[str, ServiceLimits] = {}

    async def measure(self) -> None:
        """Measure every living pool. Takes some milliseconds in a thread."""
        living = dict(self._engine.pools.living)
        found = await asyncio.to_thread(lambda: {key: _mean_mb(pool) for key, pool in living.items()})
        known = {key: each for key, each in self._mean_mb.items() if key in living}
        self._mean_mb = known | {key: each for key, each in found.items() if each is not None}

    def has_measured(self, key: str) -> bool:
        return key in self._mean_mb

    def room(self, key: str | None, stage: str, function: str, starting: Mapping[str, int] = NONE) -> Room:
        """How many more workers fit, of that pool or of one like the function's live pool. `starting`: workers of the
        stage's functions that start at the same time.
        """
        each_mb = self._mean_mb.get(key or "")
        if each_mb is None:
            live = self._engine.pools.live_row(stage, function)
            each_mb = self._mean_mb.get(live.key if live else "") or FIRST_GUESS_MB
        limits, shared, living = self._limits(stage), self._engine.admit is not None, self._engine.pools.living
        service = service_of(stage) if shared else ""
        more_mb = taken_mb(sum(starting.values())) if starting else 0.0
        taken = {each: taken_mb(pool.size, self._mean_mb.get(each) or FIRST_GUESS_MB) for each, pool in living.items()}
        budget = budget_mb(None if shared else limits.memory_mb, self._machine_mb)
        rooms = [Room(room_for(each_mb, budget, sum(taken.values()) + more_mb), "the engine's memory")]
        own = {each: pool for each, pool in living.items() if not shared or pool.spec.service == service}
        if shared and limits.memory_mb is not None:
            used = sum(taken[each] for each in own) + more_mb
            rooms.append(Room(room_for(each_mb, limits.memory_mb, used), f"memory_mb of {service}"))
        if limits.total_workers is not None:
            most = {(stage, one): workers for one, workers in starting.items()}
            for pool in own.values():  # a candidate's workers replace those of the live release
                place = pool.spec.release_key.rpartition(".")[0], pool.spec.function
                most[place] = max(most.get(place, 0), pool.size)
            left = limits.total_workers - sum(most.values())
            size = living[key].size if key in living else 0
            rooms.append(Room(max(0, left + most.get((stage, function), 0) - size), "total_workers"))
        return min((one for one in rooms if one.workers is not None), key=lambda one: one.workers or 0, default=Room())

    def allowed(self, stage: str, function: str, wanted: int, starting: Mapping[str, int], key: str | None) -> int:
        """How many of the `wanted` workers a pool may have, a new one or that of the key; at least one."""
        room, living = self.room(key, stage, function, starting), self._engine.pools.living
        size = living[key].size if key in living else 0
        if room.workers is None or wanted <= size + room.workers:
            return wanted
        fewer = max(1, size + room.workers)
        if fewer < wanted and key is None:
            self._engine.say(f"{function} starts with {fewer} of {wanted} workers: {room.limit} allows no more", stage)
        return fewer

    def _limits(self, stage: str) -> ServiceLimits:
        """The limits of the stage's service, as its newest live release has them."""
        engine = self._engine
        live = tuple(engine.pools.gateway_stage(each).live for each in engine.stages)
        if live != self._live:
            self._live, self._known = live, {}
        service = service_of(stage)
        if service not in self._known:
            document = newest_live(engine, service if engine.admit is not None else None)
            self._known[service] = (
                ServiceLimits(document.memory_mb, document.total_workers) if document else ServiceLimits()
            )
        return self._known[service]


def newest_live(engine: Engine, service: str | None) -> ReleaseDocument | None:
    """The live release that was shipped last, of all stages of the engine, or of those of one of its services."""
    alike = [each for each in engine.stages if service in (None, service_of(each))]
    since = {each: found for each in alike if (found := engine.store.live(each)) is not None}
    newest = max(since, key=lambda each: since[each][1], default=None)
    return engine.release(newest, since[newest][0]).document if newest else None


def _mean_mb(pool: Pool) -> float | None:
    stats = pool.stats()
    return mean_share_mb(worker.pid for worker in stats.workers[:WORKERS_MEASURED] if worker.pid)
