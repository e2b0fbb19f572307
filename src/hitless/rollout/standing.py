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


class Workers(Protocol):
    """What this needs of the workers' side."""

    async def scale(self, key: str, size: int, *, ready_timeout_s: float) -> Pool: ...
    def present(self, key: str) -> Pool: ...


class Gateway(Protocol):
    """What this needs of the gateway."""

    @property
    def state(self) -> GatewayState: ...
    async def servers_drained(self, pool: str, keys: Collection[str], *, deadline_s: float) -> bool: ...
    async def loads(self, pools: Collection[str]) -> Mapping[str, BackendLoad]: ...


class Change(Protocol):
    """Applies one edit to the gateway's state, after all others."""

    async def __call__(self, edit: Callable[[GatewayState], GatewayState]) -> None: ...


class Standing:
    """Changes who stands behind the backends of living pools, one change a pool at a time."""

    def __init__(self, workers: Workers, gateway: Gateway, change: Change, living: MutableMapping[str, Pool]) -> None:
        self._workers, self._gateway, self._change, self._living = workers, gateway, change, living
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._shrinking: dict[str, asyncio.Event] = {}
        """Pools of which some workers are about to leave → set when more are needed after all."""

    async def scale(self, row: PoolRow, size: int) -> int:
        """Give the pool that many workers; how many it has now. EngineError where that could not be.

        A pool that is being retired stays as it is. Workers that were about to leave stay if more are needed meanwhile.
        """
        present = self._living.get(row.key)
        if row.key in self._shrinking and present is not None and size >= len(present.workers):
            self._shrinking[row.key].set()
        async with self._locks[row.key]:
            pool = self._living.get(row.key)
            if pool is None:
                return 0
            if size < len(pool.workers) and not await self._let_go(row, pool, size):
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

    async def _let_go(self, row: PoolRow, pool: Pool, size: int) -> bool:
        """Nothing is sent to the workers beyond `size` any more, and nothing is with them."""
        self._shrinking[row.key] = asyncio.Event()
        try:
            fewer = replace(pool, workers=pool.workers[:size])
            return await self._stand(row, servers_of(fewer), unless=self._shrinking[row.key])
        finally:
            del self._shrinking[row.key]

    async def _be(self, row: PoolRow, pool: Pool) -> int:
        if not await self._stand(row, servers_of(pool)):
            return 0
        self._living[row.key] = pool
        return len(pool.workers)

    async def _stand(self, row: PoolRow, wanted: tuple[ServerState, ...], unless: asyncio.Event | None = None) -> bool:
        """Exactly these servers behind the row's backend. False where the pool is not living any more, or where
        `unless` was set while others drained: they then still stand there, draining.
        """
        name, keys = row.gateway_pool, {server.key for server in wanted}

        def joined(state: GatewayState) -> GatewayState:
            if row.key not in self._living:
                return state
            present = state.pool(name).servers
            depth = max((server.maxconn for server in present), default=1)
            leaving = (replace(server, mode=ServerMode.DRAIN) for server in present if server.key not in keys)
            return state.with_servers(name, (*(replace(server, maxconn=depth) for server in wanted), *leaving))

        def alone(state: GatewayState) -> GatewayState:
            if row.key not in self._living:
                return state
            return state.with_servers(name, (server for server in state.pool(name).servers if server.key in keys))

        await self._change(joined)
        leaving = {server.key for server in self._gateway.state.pool(name).servers} - keys
        if leaving and row.key in self._living:
            timeout_s = min(self._living[row.key].spec.timeout_s, API_GATEWAY_LIMIT_MS / 1000)
            drained = self._gateway.servers_drained(name, leaving, deadline_s=timeout_s + 1.0)
            if not await _first(drained, unless):
                return False
            await self._change(alone)
        return row.key in self._living


async def _first(waiting: Coroutine[Any, Any, bool], unless: asyncio.Event | None) -> bool:
    """True once `waiting` has ended, False if the event came before."""
    if unless is None:
        await waiting
        return True
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
