"""Adds, drains and removes a pool's servers at its backend of the gateway.

The zygote's size is the right one: after an interrupted change the gateway gets that many servers.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import replace
from typing import Any

from hitless.errors import EngineError
from hitless.gateway.gateway import Gateway
from hitless.gateway.state import API_GATEWAY_LIMIT_MS, GatewayState, ServerMode, ServerState
from hitless.store.store import PoolRow
from hitless.workers.fleet import Fleet
from hitless.workers.pool import Pool

READY_WITHIN_S = 10.0
"""A fork takes milliseconds, but a pool of fresh processes imports the handler in each of them."""


GatewayChange = Callable[[Callable[[GatewayState], GatewayState]], Awaitable[None]]
"""Applies one edit to the gateway's state after all earlier ones."""


class PoolServers:
    """The servers of living pools. Each pool has one change at a time."""

    def __init__(
        self, workers: Fleet, gateway: Gateway, change: GatewayChange, living: MutableMapping[str, Pool]
    ) -> None:
        self._workers, self._gateway, self._change, self._living = workers, gateway, change, living
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._draining: dict[str, asyncio.Event] = {}
        """Key of a pool whose servers drain → an event that ends the wait: more workers are wanted again."""

    def is_draining(self, key: str) -> bool:
        """Whether the pool's change waits for servers to drain; then `scale` to a larger size does not wait for it."""
        return key in self._draining

    async def scale(self, row: PoolRow, size: int) -> None:
        """Give the pool that many workers. EngineError if workers do not start.

        A pool that is being retired does not change. Draining workers are kept if more are needed before they stop.
        """
        present = self._living.get(row.key)
        if row.key in self._draining and present is not None and size >= len(present.workers):
            self._draining[row.key].set()
        async with self._locks[row.key]:
            pool = self._living.get(row.key)
            if pool is None:
                return
            if size < len(pool.workers):
                wanted = servers_of(replace(pool, workers=pool.workers[:size]))
                await self._add(row, wanted)
                if not await self._remove_drained(row, wanted):
                    return
            try:
                scaled = await self._workers.scale(row.key, size, ready_timeout_s=READY_WITHIN_S)
            except EngineError:
                await self._apply(row, self._workers.present(row.key))
                raise
            await self._apply(row, scaled)

    async def reconcile(self, row: PoolRow) -> None:
        """Bring the gateway to the pool's current workers, after its zygote woke up or was replaced.

        A pool that is being retired does not change: another may have its backend already.
        """
        async with self._locks[row.key]:
            if row.key in self._living:
                await self._apply(row, self._workers.present(row.key))

    async def _apply(self, row: PoolRow, pool: Pool) -> None:
        wanted = servers_of(pool)
        await self._add(row, wanted)
        if row.key in self._living:
            self._living[row.key] = pool
            await self._remove_drained(row, wanted)

    async def _add(self, row: PoolRow, wanted: tuple[ServerState, ...]) -> None:
        """Let these servers receive requests, and drain all others of the backend."""
        name, keys = row.gateway_pool, {server.key for server in wanted}

        def added(state: GatewayState) -> GatewayState:
            if row.key not in self._living:
                return state
            present = state.pool(name).servers
            depth = max((server.maxconn for server in present), default=1)
            leaving = (replace(server, mode=ServerMode.DRAIN) for server in present if server.key not in keys)
            return state.with_servers(name, (*(replace(server, maxconn=depth) for server in wanted), *leaving))

        await self._change(added)

    async def _remove_drained(self, row: PoolRow, wanted: tuple[ServerState, ...]) -> bool:
        """Remove the servers that are not wanted once they have no requests. False if they stay, because more are
        needed by then or the pool is being retired.
        """
        name, keys = row.gateway_pool, {server.key for server in wanted}
        leaving = {server.key for server in self._gateway.state.pool(name).servers} - keys
        if not leaving or row.key not in self._living:
            return row.key in self._living
        timeout_s = min(self._living[row.key].spec.timeout_s, API_GATEWAY_LIMIT_MS / 1000)
        # outside of the gateway's lock: no change of weight may wait for a slow request
        drained = self._gateway.servers_drained(name, leaving, deadline_s=timeout_s + 1.0)
        self._draining[row.key] = asyncio.Event()
        try:
            if not await ends_before(drained, self._draining[row.key]):
                return False
        finally:
            del self._draining[row.key]

        def remaining(state: GatewayState) -> GatewayState:
            if row.key not in self._living:
                return state
            return state.with_servers(name, (server for server in state.pool(name).servers if server.key in keys))

        await self._change(remaining)
        return row.key in self._living


async def ends_before(waiting: Coroutine[Any, Any, object], unless: asyncio.Event) -> bool:
    """True once `waiting` has ended, False if the event was set first."""
    both = asyncio.ensure_future(waiting), asyncio.ensure_future(unless.wait())
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return not unless.is_set()
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


def servers_of(pool: Pool) -> tuple[ServerState, ...]:
    """The pool's workers as servers of a backend; a pool without workers has its door. Names differ by generation."""
    if not pool.workers:
        return (ServerState(name=pool.door.name, socket=str(pool.door.socket), checked=False),)
    return tuple(ServerState(name=worker.name, socket=str(worker.socket)) for worker in pool.workers)
