"""Keeps each pool as large as its load needs: samples it, decides by a pure function, runs one move per pool at a time.

A sample takes some microseconds per pool, because the counters are in shared memory. HAProxy is asked, once for all
pools, only if half of a pool's workers are busy: otherwise nothing can be queued. A pool without traffic (a
candidate, or a release that may return) never shrinks, and a candidate is as large as the release it may replace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hitless.clock import Clock
from hitless.engine.engine import Engine
from hitless.engine.memory import EngineMemory
from hitless.errors import HitlessError
from hitless.gateway.gateway import Gateway
from hitless.gateway.observe import BackendLoad
from hitless.scaling.bounds import Bounds, bounds_of
from hitless.scaling.decide import NEGLIGIBLE, Decision, LoadHistory, PoolLoad, ScaleInPace, decide
from hitless.store.store import PoolRow
from hitless.workers.pool import Pool
from hitless.workers.stats import Pulse

TICK_S: Final = 0.05
IDLE_TICK_S: Final = 0.1
"""The period while there are no requests: 0.1 % of a core."""
QUIET_TICK_S: Final = 1.0
REPORT_EVERY_S: Final = 2.0
"""Moves of one pool within this time become one event."""
REPORT_REFUSAL_EVERY_S: Final = 60.0
MEASURE_EVERY_S: Final = 5.0
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0


@dataclass(slots=True)
class ScaledPool:
    """A pool, its last pulse, the memory of the decisions, and the move in progress."""

    row: PoolRow
    bounds: Bounds
    pulse: Pulse
    memory: LoadHistory = field(default_factory=LoadHistory)
    decided_at_s: float = float("-inf")
    service_s: float | None = None
    move: asyncio.Task[None] | None = None
    reason: str = ""
    """Why the pool has its size."""
    moved_because: str = ""
    reported_size: int = 0
    reported_at_s: float = float("-inf")
    refused_at_s: float = float("-inf")
    pause_s: float = 0.0
    paused_until_s: float = 0.0

    @property
    def moving(self) -> bool:
        return self.move is not None and not self.move.done()

    def needs_decision(self, earlier: Pulse, pool: Pool, now_s: float) -> bool:
        """Whether anything may have changed; true at least once a second."""
        return (
            self.pulse.busy > 0
            or self.pulse.work_ns != earlier.work_ns
            or self.memory.mean > NEGLIGIBLE
            or pool.size != len(pool.workers)
            or now_s - self.decided_at_s >= QUIET_TICK_S
        )


class Scaler:
    """Scales every living pool of an engine."""

    def __init__(self, engine: Engine, gateway: Gateway, clock: Clock, pace: ScaleInPace) -> None:
        self._engine, self._gateway, self._clock, self._pace = engine, gateway, clock, pace
        self._memory = EngineMemory(engine)
        self._measuring: asyncio.Task[None] | None = None
        self._measured_at_s = float("-inf")
        engine.pools.allowed = self._memory.allowed
        self._watched: dict[str, ScaledPool] = {}
        self._measured_mb: set[str] = set()
        self._moves: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Scale forever; cancels the moves in progress at its end."""
        try:
            while True:
                await self._clock.sleep(TICK_S if await self.scale_once() else IDLE_TICK_S)
        finally:
            for move in self._moves:
                move.cancel()
            await asyncio.gather(*self._moves, return_exceptions=True)

    async def scale_once(self) -> bool:
        """Sample all pools once and start the moves they need; returns whether any pool is busy."""
        self._update_watched()
        self._measure()
        living, now_s = self._engine.pools.living, self._clock.monotonic()
        seen = [(watched, living[key], living[key].pulse()) for key, watched in self._watched.items()]
        asked = [watched.row.gateway_pool for watched, pool, pulse in seen if _may_queue(watched, pool, pulse)]
        loads = await self._gateway.loads(asked) if asked else {}
        for watched, _, pulse in seen:
            earlier, watched.pulse = watched.pulse, pulse
            if (pool := living.get(watched.row.key)) is None:
                continue
            if watched.needs_decision(earlier, pool, now_s):
                load = _load(watched, earlier, loads.get(watched.row.gateway_pool), now_s)
                self._decide(watched, pool, load, now_s)
            if pool.size != watched.reported_size and now_s - watched.reported_at_s >= REPORT_EVERY_S:
                before, watched.reported_size, watched.reported_at_s = watched.reported_size, pool.size, now_s
                sentence = f"{_title(watched)}: {before} → {pool.size} workers: {watched.moved_because}"
                self._engine.say(sentence, watched.row.stage)
        return any(pulse.busy or watched.memory.mean > NEGLIGIBLE for watched, _, pulse in seen)

    def reason_of(self, key: str) -> str | None:
        """Why the pool has its size; None for a fixed number of workers."""
        watched = self._watched.get(key)
        return watched.reason or None if watched else None

    def _update_watched(self) -> None:
        """Watch the living pools whose size may change; forget the others."""
        living = self._engine.pools.living
        if self._measured_mb == living.keys():
            return
        self._measured_mb = set(living)
        for row in self._engine.store.pools():
            if row.key in living and row.key not in self._watched:
                function = self._engine.release(row.stage, row.release).function(row.function)
                bounds = bounds_of(function)
                most = min(bounds.most, living[row.key].spec.workers)
                bounds = replace(bounds, least=min(bounds.least, most), most=most)
                if not bounds.fixed:
                    self._watched[row.key] = ScaledPool(
                        row, bounds, living[row.key].pulse(), reported_size=living[row.key].size
                    )
        for key in self._watched.keys() - living.keys():
            del self._watched[key]

    def _measure(self) -> None:
        """Measure new pools once, and all pools now and then while one is above its minimum. It takes milliseconds."""
        now_s = self._clock.monotonic()
        if (self._measuring and not self._measuring.done()) or now_s - self._measured_at_s < MEASURE_EVERY_S:
            return
        living = self._engine.pools.living
        at_rest = (
            key in living and living[key].size <= each.bounds.least and self._memory.has_measured(key)
            for key, each in self._watched.items()
        )
        if all(at_rest):
            return
        self._measured_at_s = now_s
        self._measuring = asyncio.create_task(self._memory.measure())
        self._moves.add(self._measuring)
        self._measuring.add_done_callback(self._moves.discard)

    def _decide(self, watched: ScaledPool, pool: Pool, load: PoolLoad, now_s: float) -> None:
        size = pool.size
        room = self._memory.room(watched.row.key, watched.row.stage, watched.row.function)
        bounds = self._bounds(watched, size)
        decision = decide(
            bounds, size, load, watched.memory, now_s=now_s, room=room.workers, limit=room.limit, pace=self._pace
        )
        watched.memory, watched.decided_at_s = decision.history, now_s
        if not watched.moving:
            watched.reason = decision.reason
        if size != len(pool.workers):
            if not watched.moving:
                watched.reported_size = size  # its zygote reports this wake-up
                self._start_move(watched, self._reconcile(watched))
            return
        if decision.refused and now_s - watched.refused_at_s >= REPORT_REFUSAL_EVERY_S:
            watched.refused_at_s = now_s
            self._engine.say(f"{_title(watched)}: {decision.reason}", watched.row.stage)
        if decision.workers == size or now_s < watched.paused_until_s:
            return
        only_drains = self._engine.pools.servers.is_draining(watched.row.key)
        if not watched.moving or (decision.workers > size and only_drains):
            watched.moved_because = decision.reason
            self._start_move(watched, self._scale(watched, decision))

    def _bounds(self, watched: ScaledPool, size: int) -> Bounds:
        """The function's limits. A release without traffic keeps its size; a candidate has the live release's size."""
        row, bounds = watched.row, watched.bounds
        entry = self._engine.pools.gateway_stage(row.stage)
        if entry.live == row.release:
            return bounds
        live = self._engine.pools.live_row(row.stage, row.function) if entry.candidate == row.release else None
        least = max(size, self._engine.pools.living[live.key].size if live else 0)
        return replace(bounds, least=max(bounds.least, min(least, bounds.most)))

    def _start_move(self, watched: ScaledPool, move: Coroutine[Any, Any, None]) -> None:
        watched.move = asyncio.create_task(move)
        self._moves.add(watched.move)
        watched.move.add_done_callback(self._moves.discard)

    async def _scale(self, watched: ScaledPool, decision: Decision) -> None:
        try:
            await self._engine.pools.servers.scale(watched.row, decision.workers)
        except HitlessError as error:
            self._pause(watched, f"{_title(watched)}: cannot scale to {decision.workers} workers: {error.message}")
            return
        watched.pause_s = 0.0

    async def _reconcile(self, watched: ScaledPool) -> None:
        try:
            await self._engine.pools.servers.reconcile(watched.row)
        except HitlessError as error:
            self._pause(watched, f"{_title(watched)}: cannot update the gateway: {error.message}")

    def _pause(self, watched: ScaledPool, sentence: str) -> None:
        watched.pause_s = min(max(2 * watched.pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        watched.paused_until_s = self._clock.monotonic() + watched.pause_s
        self._engine.say(f"{sentence}; next try in {watched.pause_s:g} s", watched.row.stage)


def _may_queue(watched: ScaledPool, pool: Pool, pulse: Pulse) -> bool:
    """Whether half of the workers are busy, or were on average since the last sample."""
    took_ns = max(pulse.at_ns - watched.pulse.at_ns, 1)
    return 2 * max(pulse.busy, (pulse.work_ns - watched.pulse.work_ns) / took_ns) >= max(pool.size, 1)


def _load(watched: ScaledPool, earlier: Pulse, at_gateway: BackendLoad | None, now_s: float) -> PoolLoad:
    pulse = watched.pulse
    took_ns = max(pulse.at_ns - earlier.at_ns, 1)
    ended = max(pulse.ended - earlier.ended, 0)
    if ended:
        watched.service_s = max(pulse.ended_us - earlier.ended_us, 0) / ended / 1e6
    waiting = max(at_gateway.scur - pulse.busy, 0) if at_gateway else 0
    # After an idle time, this sample covers all of it.
    since_s = max(now_s - watched.decided_at_s, took_ns / 1e9)
    return PoolLoad(max(pulse.work_ns - earlier.work_ns, 0) / took_ns, waiting, ended, watched.service_s, since_s)


def _title(watched: ScaledPool) -> str:
    return f"{watched.row.function} of release {watched.row.release}"
