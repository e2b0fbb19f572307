"""How many requests the gateway may hand one worker at a time (HAProxy's server maxconn).

A worker runs one request at a time; a second one waits in its socket. For handlers of microseconds that wait hides
the way back to the gateway and saves wake-ups (measured: 15.9 k requests/s at depth 1, 23.5 k at 8; 16 costs a tenth
less than 8 of all processor time); for slower ones it puts a request behind a slow neighbour while another worker is
free. So: 16 while the last second's requests were quick, 1 otherwise; a pure decision, one look a second.

A quick request is slow by the clock where its worker had to wait for a processor. Without counting that in, a busy
machine would get the depth that costs it most (measured there: 47 instead of 32 µs of worker a request).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hitless.clock import Clock
from hitless.engine.engine import Engine
from hitless.workers.stats import EMPTY, Histogram, PoolStats, Pulse
from hitless.workers.usage import NO_WAITS, ProcessorWaits, read_waits

PERIOD_S = 1.0
SHALLOW, DEEP = 1, 16
QUICK_MEAN_US = 500
"""At that a request waits 8 ms at worst behind the others of its worker."""
QUICK_P999_US = 5_000
"""One slow request in a thousand delays fifteen quick ones behind it: then the mean is not to be trusted."""
WAITS = 8
"""Of so many mean waits for a processor the slowest in a thousand may consist (three to ten were measured)."""
MINIMUM_REQUESTS = 200
"""Fewer in a second: depth brings nothing, and the figures are noise."""


class MeasuredPool(Protocol):
    """What this needs of a pool."""

    def pulse(self) -> Pulse: ...
    def stats(self) -> PoolStats: ...


@dataclass(frozen=True, slots=True)
class DepthSample:
    """What a pool had done when it was last looked at; `latency` is None where that was not read."""

    ended: int = 0
    latency: Histogram | None = EMPTY
    waits: ProcessorWaits = NO_WAITS


def decide_depth(last_second: Histogram, wait_us: float = 0.0) -> int:
    """The depth for the next second, from the time that workers spent in each request of the last one, and how long
    they waited for a processor each time.
    """
    if last_second.count < MINIMUM_REQUESTS or last_second.mean_us > QUICK_MEAN_US:
        return SHALLOW
    p999_us = last_second.percentile_us(99.9)
    return DEEP if p999_us is not None and p999_us <= QUICK_P999_US + WAITS * wait_us else SHALLOW


def next_depth(pool: MeasuredPool, before: DepthSample, depth: int) -> tuple[DepthSample, int]:
    """What the pool has done by now, and the depth that it should have instead of `depth`.

    Nothing is decided for a pool that nobody asked anything, and at the first look that finds it busy again.
    """
    pulse = pool.pulse()
    ended = pulse.ended - before.ended
    if ended == 0 and not pulse.busy:
        return before, depth
    if ended < MINIMUM_REQUESTS:  # without reading every worker's histogram
        return DepthSample(pulse.ended, None), SHALLOW
    stats = pool.stats()
    present = DepthSample(pulse.ended, stats.latency, read_waits(worker.pid for worker in stats.workers if worker.pid))
    if before.latency is None:
        return present, depth
    return present, decide_depth(stats.latency - before.latency, present.waits.mean_us(before.waits))


async def adapt_depth(engine: Engine, clock: Clock) -> None:
    """Watch every pool for ever."""
    looks: dict[str, DepthSample] = {}
    while True:
        await clock.sleep(PERIOD_S)
        for row in engine.store.pools():
            pool = engine.pools.living.get(row.key)
            if pool is None:
                continue
            present = engine.pools.depth_of(row)
            looks[row.key], wanted = next_depth(pool, looks.get(row.key, DepthSample()), present)
            if wanted != present:
                await engine.pools.set_depth(row, wanted)
        for gone in looks.keys() - engine.pools.living.keys():
            del looks[gone]
