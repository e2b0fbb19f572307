"""Keeps slowly reading clients from using up the requests that the gateway allows per worker.

HAProxy counts a request as in progress until the client has read the response, even when the worker is done with it. A
few slow readers of large responses would leave a function without a free worker. If a worker is idle, the requests that
HAProxy counts for it are such responses, so the worker's `maxconn` is raised by their number.

A sample is valid if the worker was idle before and after HAProxy was asked and ended no request in between. It takes
two samples, because a request may be on its way. The number never rises by more than the requests that the worker has
ended, so a worker that hangs while idle gets no more. A worker that is always busy keeps its number. A wrong number has
little effect: a worker gets one request too many for an instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from hitless.clock import Clock
from hitless.engine.engine import Engine
from hitless.gateway.gateway import Gateway
from hitless.gateway.observe import ServerLoad
from hitless.gateway.view import ServerKey
from hitless.rollout.servers import servers_of
from hitless.store.store import PoolRow
from hitless.workers.pool import Pool, WorkerAddress

ACTIVE_PERIOD_S: Final = 0.025
"""The sampling period while a pool has slow readers, or may have them."""
PERIOD_S: Final = 0.1
SAMPLES: Final = 80
"""Samples after a large response, before the pool is left alone."""


@dataclass(slots=True)
class ReadersPool:
    """A pool, its count of large responses, and the samples that remain to be taken."""

    row: PoolRow
    large: int = 0
    samples: int = 0


@dataclass(frozen=True, slots=True)
class IdleWorker:
    """A sample of an idle worker: the requests it had ended, and those that HAProxy counted as in progress."""

    ended: int
    scur: int


@dataclass(slots=True)
class SlowReaders:
    """Responses that clients are still reading, per server, and the last sample (None if the worker was busy)."""

    reading: dict[ServerKey, int] = field(default_factory=dict)
    measured: dict[ServerKey, IdleWorker | None] = field(default_factory=dict)
    known: dict[ServerKey, IdleWorker] = field(default_factory=dict)
    """The responses being read when the worker had ended that many requests."""

    def observe(self, key: ServerKey, load: ServerLoad, ended: int | None) -> None:
        """Add a sample of one server. `ended`: the requests that its worker had ended; None if it was busy.

        If a worker did nothing between two samples because its `maxconn` is reached, its number doubles, so a crowd of
        slow readers in the queue gets through in a few samples.
        """
        now, before = (None if ended is None else IdleWorker(ended, load.scur)), self.measured.get(key)
        self.measured[key] = now
        if now is None or before is None:
            self.reading[key] = min(self.reading.get(key, 0), load.scur)
            return
        known = self.known.get(key, before)
        held = min(now.scur, before.scur, known.scur + max(0, now.ended - known.ended))
        self.known[key] = IdleWorker(before.ended, held)
        starved = now.ended == before.ended and held >= load.maxconn
        self.reading[key] = 2 * held if starved else held


async def watch_readers(engine: Engine, gateway: Gateway, clock: Clock) -> None:
    """Watch every pool, forever."""
    watched: dict[str, ReadersPool] = {}
    readers = SlowReaders()
    while True:
        living = engine.pools.living
        if watched.keys() != living.keys():
            rows = {row.key: row for row in engine.store.pools()}
            watched = {key: watched.get(key, ReadersPool(rows[key])) for key in living if key in rows}
        active = [
            (one, pool)
            for key, one in watched.items()
            if (pool := living.get(key)) and _may_have_slow_readers(one, pool)
        ]
        if active or readers.reading:
            await _observe_servers(active, readers, gateway, living)
        await clock.sleep(ACTIVE_PERIOD_S if active else PERIOD_S)


def _may_have_slow_readers(one: ReadersPool, pool: Pool) -> bool:
    large = pool.large_responses
    if large != one.large:
        one.large, one.samples = large, SAMPLES
    return one.samples > 0


async def _observe_servers(
    active: list[tuple[ReadersPool, Pool]], readers: SlowReaders, gateway: Gateway, living: Mapping[str, Pool]
) -> None:
    workers: dict[ServerKey, tuple[ReadersPool, Pool, WorkerAddress]] = {
        (one.row.gateway_pool, server.key): (one, pool, worker)
        for one, pool in active
        for server, worker in zip(servers_of(pool), pool.workers, strict=False)
    }
    before = {key: pool.at_rest(worker) for key, (_, pool, worker) in workers.items()}
    loads = await gateway.server_loads([one.row.gateway_pool for one, _ in active]) if active else {}
    for key in readers.reading.keys() - loads.keys():
        for each in (readers.reading, readers.measured, readers.known):
            each.pop(key, None)
    for one, _ in active:
        one.samples -= 1
    for key, (one, pool, worker) in workers.items():
        if key in loads and living.get(one.row.key) is pool:  # otherwise its page may be closed
            readers.observe(key, loads[key], before[key] if before[key] == pool.at_rest(worker) else None)
            if readers.reading[key] or readers.measured[key] is None:
                one.samples = SAMPLES
    await gateway.raise_limits(readers.reading, loads)
