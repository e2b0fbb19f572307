"""Clients that read slowly take no worker's place at the gateway.

HAProxy counts a request as in hand until the client has read the response, though the worker is long done with it: a
few slow readers of large responses would leave a function without a free place. If a worker is at rest, the requests
that HAProxy counts for it are such responses. The worker's `maxconn` is raised by their number.

A measure holds if the worker was at rest before and after HAProxy was asked, and ended no request in between; it takes
two, because a request may be on its way. The number never rises by more than the requests that the worker has ended:
one that hangs while it is at rest is not given more and more. A worker that is always busy keeps what it was given. An
error is harmless: a worker gets one request more for an instant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from hitless.clock import Clock
from hitless.engine.engine import Engine
from hitless.gateway.observe import ServerLoad
from hitless.gateway.view import ServerKey
from hitless.rollout.standing import servers_of
from hitless.store.store import PoolRow
from hitless.workers.pool import Pool, WorkerAddress

ACTIVE_PERIOD_S: Final = 0.025
"""While a pool has slow readers, or may have."""
PERIOD_S: Final = 0.1
LOOKS: Final = 80
"""After a large response, before its pool is left alone."""


class ReadersGateway(Protocol):
    """What this needs of the gateway."""

    async def server_loads(self, pools: Collection[str]) -> Mapping[ServerKey, ServerLoad]: ...
    async def raise_limits(self, reading: Mapping[ServerKey, int], loads: Mapping[ServerKey, ServerLoad]) -> None: ...


@dataclass(slots=True)
class ReadersPool:
    """A pool and how often it is still looked at."""

    row: PoolRow
    large: int = 0
    looks: int = 0


@dataclass(frozen=True, slots=True)
class IdleWorker:
    """A worker at rest: how many requests it had ended, and how many HAProxy counted as in hand."""

    ended: int
    scur: int


@dataclass(slots=True)
class SlowReaders:
    """What is known of each server: responses that clients are reading, and the last measure (None: it was busy)."""

    reading: dict[ServerKey, int] = field(default_factory=dict)
    measured: dict[ServerKey, IdleWorker | None] = field(default_factory=dict)
    known: dict[ServerKey, IdleWorker] = field(default_factory=dict)
    """So many responses were being read when the worker had ended so many requests."""

    def observe(self, key: ServerKey, load: ServerLoad, ended: int | None) -> None:
        """One look at one server. `ended`: the requests that its worker had ended; None if it was busy.

        A worker that did nothing between two looks because all its places are taken gets twice as many: a crowd of
        slow readers that waits in the queue is let through in a few looks.
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


async def watch_readers(engine: Engine, gateway: ReadersGateway, clock: Clock) -> None:
    """For ever."""
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
        one.large, one.looks = large, LOOKS
    return one.looks > 0


async def _observe_servers(
    active: list[tuple[ReadersPool, Pool]], readers: SlowReaders, gateway: ReadersGateway, living: Mapping[str, Pool]
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
        one.looks -= 1
    for key, (one, pool, worker) in workers.items():
        if key in loads and living.get(one.row.key) is pool:  # its page may be closed by now
            readers.observe(key, loads[key], before[key] if before[key] == pool.at_rest(worker) else None)
            if readers.reading[key] or readers.measured[key] is None:
                one.looks = LOOKS
    await gateway.raise_limits(readers.reading, loads)
