"""The last hour of each stage in memory: requests and latency of each release, for people who look after an incident.

The figures are the workers' counters, read without a system call. A release without requests adds no sample.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import starmap
from struct import Struct
from typing import Any, Final

import msgspec

from hitless.clock import Clock
from hitless.engine.engine import Engine
from hitless.workers.stats import EMPTY, PoolStats

EVERY_S: Final = 2
KEPT: Final = 2400
"""Samples of a stage: an hour, and 20 minutes of a second release. The oldest is dropped."""
_PACKED: Final = Struct("<dIIIff")
_NOTHING: Final = PoolStats((), 0, {5: 0}, 0, 0, 0, 0, EMPTY)


class RecentSample(msgspec.Struct, frozen=True, array_like=True):
    """The requests that a release's workers ended since the sample before, and their latency."""

    at_s: float
    release: int
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float


class Recent:
    """The samples of all stages, which end with the daemon."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine, self._clock = engine, clock
        self._rings: dict[str, bytearray] = {}
        self._counted: dict[str, PoolStats] | None = None

    async def watch(self) -> None:
        """Sample every stage, forever."""
        while True:
            self.sample()
            await self._clock.sleep(EVERY_S)

    def sample(self) -> None:
        """Add what each stage's pools have counted since the last sample. The first one is the basis."""
        before, counted, at_s = self._counted or {}, dict[str, PoolStats](), self._clock.now().timestamp()
        grown: defaultdict[tuple[str, int], list[Any]] = defaultdict(lambda: [0, 0, EMPTY])
        for row in self._engine.store.pools():
            if (pool := self._engine.pools.living.get(row.key)) is None:
                continue
            was = counted[row.key] = before.get(row.key, _NOTHING)
            if pool.pulse().ended != was.requests:
                now = counted[row.key] = pool.stats()
                more = (now.requests - was.requests, now.failed - was.failed, now.latency - was.latency)
                total = grown[row.stage, row.release]
                total[:] = [a + b for a, b in zip(total, more, strict=True)]
        for (stage, release), (requests, failed, latency) in grown.items() if self._counted is not None else ():
            p50, p99 = ((latency.percentile_us(percent) or 0.0) / 1000 for percent in (50, 99))
            ring = self._rings.setdefault(stage, bytearray())
            # a handler can write any number into the counters of its own pool
            most = (max(0, min(one, 0xFFFF_FFFF)) for one in (requests, failed))
            ring += _PACKED.pack(at_s, release, *most, p50, p99)
            del ring[: -KEPT * _PACKED.size]
        self._counted = counted
        self._rings = {stage: ring for stage, ring in self._rings.items() if stage in self._engine.turns}

    def of(self, stage: str, newest: int = KEPT) -> Iterator[RecentSample]:
        """The stage's samples, oldest first."""
        packed = self._rings.get(stage, b"")[-newest * _PACKED.size :]
        return starmap(RecentSample, _PACKED.iter_unpack(packed))

    def per_second(self, stage: str) -> float:
        """Requests a second, over ten seconds."""
        since_s = self._clock.now().timestamp() - 10
        return sum(one.requests for one in self.of(stage, 10) if one.at_s > since_s) / 10
