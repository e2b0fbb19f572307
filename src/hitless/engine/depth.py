"""How many requests the gateway may hand one worker at a time (HAProxy's server maxconn).

A worker runs one request at a time; a second one waits in its socket. For handlers of microseconds that wait hides
the way back to the gateway and saves wake-ups (measured: 15.9 k requests/s at depth 1, 23.5 k at 8; 16 costs a tenth
less than 8 of all processor time); for slower ones it puts a request behind a slow neighbour while another worker is
free. So: 16 while the last second's requests were quick, 1 otherwise; a pure decision, one look a second.
"""

from __future__ import annotations

from hitless.clock import Clock
from hitless.engine.engine import Engine
from hitless.workers.stats import Histogram

PERIOD_S = 1.0
SHALLOW, DEEP = 1, 16
QUICK_MEAN_US = 500
"""At that a request waits 8 ms at worst behind the others of its worker."""
QUICK_P999_US = 5_000
"""One slow request in a thousand delays fifteen quick ones behind it: then the mean is not to be trusted."""
MINIMUM_REQUESTS = 200
"""Fewer in a second: depth brings nothing, and the figures are noise."""


def decide_depth(last_second: Histogram) -> int:
    """The depth for the next second, from the time that workers spent in each request of the last one."""
    if last_second.count < MINIMUM_REQUESTS or last_second.mean_us > QUICK_MEAN_US:
        return SHALLOW
    p999_us = last_second.percentile_us(99.9)
    return DEEP if p999_us is not None and p999_us <= QUICK_P999_US else SHALLOW


async def adapt_depth(engine: Engine, clock: Clock) -> None:
    """Watch every pool for ever."""
    counts: dict[str, int] = {}
    seen: dict[str, Histogram] = {}
    while True:
        await clock.sleep(PERIOD_S)
        for row in engine.store.pools():
            pool = engine.pools.living.get(row.key)
            if pool is None:
                continue
            earlier, counts[row.key] = counts.get(row.key, 0), pool.pulse().ended
            if counts[row.key] - earlier < MINIMUM_REQUESTS:  # without reading every worker's histogram
                seen.pop(row.key, None)
                wanted = SHALLOW
            else:
                present = pool.stats().latency
                wanted = decide_depth(present - seen.get(row.key, present))
                seen[row.key] = present
            if wanted != engine.pools.depth_of(row):
                await engine.pools.set_depth(row, wanted)
        for gone in counts.keys() - engine.pools.living.keys():
            del counts[gone]
            seen.pop(gone, None)
