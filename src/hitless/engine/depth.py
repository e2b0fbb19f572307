"""How many requests the gateway may hand one worker at a time (HAProxy's server maxconn).

A worker runs one request at a time; a second one waits in its socket. For handlers of microseconds that wait hides
the way back to the gateway (measured: 15.9 k requests/s at depth 1, 23.5 k at 8), for slower ones it puts a request
behind a slow neighbour while another worker is free. So: 8 while the last second's requests were quick, 1 otherwise;
pure decision, one look a second.
"""

from __future__ import annotations

from hitless.clock import Clock
from hitless.engine.engine import Engine

PERIOD_S = 1.0
SHALLOW, DEEP = 1, 8
QUICK_MEAN_US = 1_000
MINIMUM_REQUESTS = 200
"""Fewer in a second: depth brings nothing, and the mean is noise."""


def decide_depth(*, present: int, requests: int, busy_us: float) -> int:
    """The depth for the next second, from the last one's requests and the time that workers spent in them."""
    if requests < MINIMUM_REQUESTS:
        return SHALLOW
    mean_us = busy_us / requests
    if mean_us <= QUICK_MEAN_US:
        return DEEP
    return SHALLOW if mean_us > 2 * QUICK_MEAN_US else present


async def adapt_depth(engine: Engine, clock: Clock) -> None:
    """Watch every pool for ever."""
    seen: dict[str, tuple[int, float]] = {}
    while True:
        await clock.sleep(PERIOD_S)
        rows = [row for row in engine.store.pools() if row.key in engine.pools.living]
        present = {row.key: engine.pools.living[row.key].stats() for row in rows}
        for row in rows:
            now = (present[row.key].requests, present[row.key].latency.sum_us)
            before = seen.get(row.key, now)
            depth = engine.pools.depth_of(row)
            wanted = decide_depth(present=depth, requests=now[0] - before[0], busy_us=now[1] - before[1])
            if wanted != depth:
                await engine.pools.set_depth(row, wanted)
            seen[row.key] = now
        seen = {key: value for key, value in seen.items() if key in present}
