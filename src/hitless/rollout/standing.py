"""Who stands behind a backend: workers join it at once, and leave it only when nothing is with them.

A leaving server drains while others serve. It is waited for outside of the gateway's lock, so that no rollout's change
of weight ever waits for somebody's slow request; only then is its worker told to end. The zygote's size is the truth:
whatever was cut off half-way, the gateway is brought to it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Protocol

from hitless.errors import EngineError
from hitless.gateway.observe import BackendLoad
from hitless.gateway.state import API_GATEWAY_LIMIT_MS, GatewayState, ServerMode, ServerState
from hitless.store.store import PoolRow
from hitless.workers.pool import Pool

READY_WITHIN_S = 10.0
"""Forks take milliseconds; a pool of fresh processes imports its handler in each."""


class ServersFleet(Protocol):
    """What this needs of the workers' side."""

    async def scale(self, key: str, size: int, *, ready_timeout_s: float) -> Pool: ...
    def present(self, key: str) -> Pool: ...


class ServersGateway(Protocol):
    """What this needs of the gateway."""

    @property
    def state(self) -> GatewayState: ...
    async def servers_drained(self, pool: str, keys: Collection[str], *, deadline_s: float) -> bool: ...
    async def loads(self, pools: Collection[str]) -> Mapping[str, BackendLoad]: ...


class GatewayChange(Protocol):
    """Applies one edit to the gateway's state, after all others."""

    async def __call__(self, edit: Callable[[GatewayState], GatewayState]) -> None: ...


class PoolServers:
    """Changes who stands behind the backends of living pools, one change a pool at a time."""

    def __init__(
        self, workers: ServersFleet, gateway: ServersGateway, change: GatewayChange, living: MutableMapping[str, Pool]
    ) -> None:
        self._workers, self._gateway, self._change, self._living = workers, gateway, change, living
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._parting: dict[str, asyncio.Event] = {}
        """Pools of which some servers drain → set when that need not be waited for."""

    def is_parting(self, key: str) -> bool:
        """Whether the pool's change under way only waits for servers that drain: `scale` to more need not wait."""
        return key in self._parting

    async def scale(self, row: PoolRow, size: int) -> int:
        """Give the pool that many workers; how many it has now. EngineError where that could not be.

        A pool that is being retired stays as it is. Workers that were about to leave stay if more are needed meanwhile.
        """
        present = self._living.get(row.key)
        if row.key in self._parting and present is not None and size >= len(present.workers):
            self._parting[row.key].set()
        async with self._locks[row.key]:
            pool = self._living.get(row.key)
            if pool is None:
                return 0
            if size < len(pool.workers):
                wanted = servers_of(replace(pool, workers=pool.workers[:size]))
                await self._join(row, wanted)
                if not await self._part(row, wanted):
                    return len(pool.workers)
            try:
                scaled = await self._workers.scale(row.key, size, ready_timeout_s=READY_WITHIN_S)
            except EngineError:
                await self._be(row, self._workers.present(row.key))
                raise
            return await self._be(row, scaled)

    async def agree(self, row: PoolRow) -> int:
        """Bring the gateway to what the pool is now: its zygote was woken, or a new one has new workers.

        How many workers it has; nothing is done where it is being retired, for its backend may be another's already.
        """
        async with self._locks[row.key]:
            return await self._be(row, self._workers.present(row.key)) if row.key in self._living else 0

    async def _be(self, row: PoolRow, pool: Pool) -> int:
        wanted = servers_of(pool)
        await self._join(row, wanted)
        if row.key not in self._living:
            return 0
        self._living[row.key] = pool
        await self._part(row, wanted)
        return len(pool.workers)

    async def _join(self, row: PoolRow, wanted: tuple[ServerState, ...]) -> None:
        """These servers take requests, and what else stands behind the backend takes no more."""
        name, keys = row.gateway_pool, {server.key for server in wanted}

        def joined(state: GatewayState) -> GatewayState:
            if row.key not in self._living:
                return state
            present = state.pool(name).servers
            depth = max((server.maxconn for server in present), default=1)
            leaving = (replace(server, mode=ServerMode.DRAIN) for server in present if server.key not in keys)
            return state.with_servers(name, (*(replace(server, maxconn=depth) for server in wanted), *leaving))

        await self._change(joined)

    async def _part(self, row: PoolRow, wanted: tuple[ServerState, ...]) -> bool:
        """Whoever is not wanted leaves, once nothing is with it. False, and they stay, where more became wanted
        meanwhile, or the pool is being retired.
        """
        name, keys = row.gateway_pool, {server.key for server in wanted}
        leaving = {server.key for server in self._gateway.state.pool(name).servers} - keys
        if not leaving or row.key not in self._living:
            return row.key in self._living
        timeout_s = min(self._living[row.key].spec.timeout_s, API_GATEWAY_LIMIT_MS / 1000)
        drained = self._gateway.servers_drained(name, leaving, deadline_s=timeout_s + 1.0)
        self._parting[row.key] = asyncio.Event()
        try:
            if not await first(drained, self._parting[row.key]):
                return False
        finally:
            del self._parting[row.key]

        def alone(state: GatewayState) -> GatewayState:
            if row.key not in self._living:
                return state
            return state.with_servers(name, (server for server in state.pool(name).servers if server.key in keys))

        await self._change(alone)
        return row.key in self._living


async def first(waiting: Coroutine[Any, Any, bool], unless: asyncio.Event) -> bool:
    """True once `waiting` has ended, False if the event came before."""
    both = asyncio.ensure_future(waiting), asyncio.ensure_future(unless.wait())
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return not unless.is_set()
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


def servers_of(pool: Pool) -> tuple[ServerState, ...]:
    """The pool's workers as servers of a backend; generations are told apart by name. Without workers, its door."""
    if not pool.workers:
        return (ServerState(name=pool.door.name, socket=str(pool.door.socket), checked=False),)
    return tuple(ServerState(name=worker.name, socket=str(worker.socket)) for worker in pool.workers)
