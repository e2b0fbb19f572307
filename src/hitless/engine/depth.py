"""Chooses how many requests the gateway may hand to one worker at a time (HAProxy's server maxconn).

A worker runs one request at a time; a second one waits in its socket. For handlers that take microseconds, the wait
hides the round trip to the gateway and saves wake-ups (measured: 15.9 k requests/s at depth 1, 23.5 k at 8). For slower
handlers, a request would wait behind a slow one while another worker is free. So the depth is 16 while the last
second's requests were quick, and 1 otherwise. The decision is pure and is taken once a second.
"""

from __future__ import annotations

from dataclasses import dataclass

from hitless.clock import Clock
from hitless.engine.engine import Engine
from hitless.workers.pool import Pool
from hitless.workers.stats import EMPTY, Histogram
from hitless.workers.usage import NO_WAITS, ProcessorWaits, read_waits

PERIOD_S = 1.0
SHALLOW, DEEP = 1, 16
QUICK_MEAN_US = 500
"""At this mean, a request waits at most 8 ms behind the others of its worker."""
QUICK_P999_US = 5_000
"""One slow request in a thousand delays fifteen quick ones behind it, so the mean alone is not enough."""
WAITS_IN_P999 = 8
"""A p99.9 may contain this many mean waits for a processor (three to ten were measured). Without this allowance a busy
machine would get depth 1, where a request takes more processor time (measured: 47 instead of 32 µs).
"""
MINIMUM_REQUESTS = 200
"""With fewer requests per second, a greater depth gains nothing, and the figures are noise."""


@dataclass(frozen=True, slots=True)
class DepthSample:
    """One reading of a pool's counters; `latency` is None if it was not read."""

    ended: int = 0
    latency: Histogram | None = EMPTY
    waits: ProcessorWaits = NO_WAITS


def decide_depth(last_second: Histogram, wait_us: float = 0.0) -> int:
    """The depth for the next second, from the last second's latencies and mean wait for a processor."""
    if last_second.count < MINIMUM_REQUESTS or last_second.mean_us > QUICK_MEAN_US:
        return SHALLOW
    p999_us = last_second.percentile_us(99.9)
    return DEEP if p999_us is not None and p999_us <= QUICK_P999_US + WAITS_IN_P999 * wait_us else SHALLOW


def next_depth(pool: Pool, before: DepthSample, depth: int) -> tuple[DepthSample, int]:
    """The new sample, and the depth that the pool should have instead of `depth`.

    The depth does not change if the pool had no requests, nor at the first sample after it was idle.
    """
    pulse = pool.pulse()
    ended = pulse.ended - before.ended
    if ended == 0 and not pulse.busy:
        return before, depth
    if ended < MINIMUM_REQUESTS:  # too few to decide by, so no histogram is read
        return DepthSample(pulse.ended, None), SHALLOW
    stats = pool.stats()
    present = DepthSample(pulse.ended, stats.latency, read_waits(worker.pid for worker in stats.workers if worker.pid))
    if before.latency is None:
        return present, depth
    return present, decide_depth(stats.latency - before.latency, present.waits.mean_us(before.waits))


async def adapt_depth(engine: Engine, clock: Clock) -> None:
    """Adapt the depth of every pool, forever."""
    samples: dict[str, DepthSample] = {}
    while True:
        await clock.sleep(PERIOD_S)
        for row in engine.store.pools():
            pool = engine.pools.living.get(row.key)
            if pool is None:
                continue
            present = engine.pools.depth_of(row)
            samples[row.key], wanted = next_depth(pool, samples.get(row.key, DepthSample()), present)
            if wanted != present:
                await engine.pools.set_depth(row, wanted)
        for gone in samples.keys() - engine.pools.living.keys():
            del samples[gone]
