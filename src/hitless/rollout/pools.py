"""Starts, connects and retires a release's pools: workers, backends of the gateway, and their rows in the state file.

The order of the steps keeps requests from failing; every other order lost requests (docs/decisions/release-order.md).
Start: workers are ready, then servers and routes are added at the gateway. Retire: the gateway reports neither running
nor queued requests at the backend, then the servers are removed, then the workers end, then the routes are removed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hitless import checks
from hitless.artifact.store import ArtifactStore
from hitless.errors import ConflictError
from hitless.gateway.counts import Counts
from hitless.gateway.gateway import Gateway
from hitless.gateway.state import (
    API_GATEWAY_LIMIT_MS,
    EVERY,
    Access,
    GatewayState,
    RouteState,
    StageState,
    server_timeout_ms,
)
from hitless.release.receipt import SavedCounts
from hitless.rollout import servers
from hitless.rollout.counted import Counted, PoolId, pool_counts
from hitless.rollout.lingering import Lingering
from hitless.rollout.release import Release, pool_spec, preflights_of, release_of
from hitless.scaling.bounds import bounds_of, throttle_of
from hitless.service.event_sources import URL_PAYLOAD, Route
from hitless.service.model import CHECKS, SAMPLED_PER_S, AccessLog, Function
from hitless.store.store import PoolRow, Store
from hitless.worker.request import INVOKE
from hitless.workers.fleet import Fleet
from hitless.workers.pool import Pool
from hitless.workers.stats import EMPTY, Histogram

RETIRE_GRACE_S = 2.0
SLOW_CLIENT_S = 30.0
"""Added to the function's time-out, for a body that is still being sent when its release retires."""
READERS_S = 300.0
"""How long clients may still read responses of a retired release. The spooler allows the same time."""
LOGGED_PER_S = {AccessLog.OFF: 0, AccessLog.SAMPLED: SAMPLED_PER_S, AccessLog.ALL: EVERY}
FIRST_DEPTH = 4
"""The greatest depth of a new pool. It gives four fifths of the throughput of depth 16 (measured)."""

STARTS_AT_ONCE = 8
"""Functions of a release that start together. Each has `ready_timeout_s` from its own start: a hundred at once would
share the processors and all be late.
"""


class ReleasePools:
    """The pools of an engine's releases. Rollouts of several stages may use it at once."""

    def __init__(
        self,
        workers: Fleet,
        gateway: Gateway,
        artifacts: ArtifactStore,
        store: Store,
        logs: Path,
    ) -> None:
        self._workers, self._gateway, self._artifacts = workers, gateway, artifacts
        self._store, self._logs = store, logs
        self.traced: int | None = None
        """`Access.traced` of stages whose settings have `trace_requests`."""
        self._changing = asyncio.Lock()
        self.living: dict[str, Pool] = {}
        self.lingering = Lingering()
        self.allowed: Callable[[str, str, int, Mapping[str, int], str | None], int] = lambda *given: given[2]
        """(stage, function, wanted, starting, key) → how many of the wanted workers the pool may have, a new one or
        that of the key, beside those of other new pools.
        """
        self.servers = servers.PoolServers(workers, gateway, self.change_gateway, self.living)

    async def change_gateway(
        self, edit: Callable[[GatewayState], GatewayState], *, drain_s: float | None = None
    ) -> None:
        """Apply one edit to the gateway's state. A lock keeps edits of several rollouts from overwriting each other."""
        async with self._changing:
            await self._gateway.apply(edit(self._gateway.state), drain_s=drain_s)

    async def start(
        self,
        release: Release,
        functions: Sequence[Function],
        *,
        ready_timeout_s: float,
        backends: Mapping[str, str] | None = None,
    ) -> None:
        """Start a pool for each function; all are ready on return. `backends`: function → a backend that it has to use.

        Raises CandidateFailedError, or ConflictError if the gateway has too few free backends. Some pools may have
        started by then; the caller retires them.
        """
        backends = backends or {}
        needed = len(functions) - len(backends)
        if len(self._free_pools(backends)) < needed:
            await self.lingering.remove_now()
        counts, free = await self._counted_pools(needed, backends)
        # No await from here on: rollouts of other stages take pools, too.
        if len(free) < needed:
            raise ConflictError(
                f"the gateway has {len(free)} free pools, release {release.number} needs {len(functions)}",
                hint="wait until older releases have drained, or start the engine with more pools",
            )
        starts, starting, turns = [], dict[str, int](), asyncio.Semaphore(STARTS_AT_ONCE)
        for function in functions:
            key = f"{release.stage[:12]}-r{release.number}-{function.name[:20]}-{self._store.next_serial()}"
            gateway_pool = backends.get(function.name) or free.pop(0)
            counted = counts.get(gateway_pool, {})
            self._store.add_pool(
                PoolRow(key, release.stage, release.number, function.name, gateway_pool, json.dumps(counted))
            )
            size = self._wanted_size(release.stage, function)
            size = starting[function.name] = self.allowed(release.stage, function.name, size, starting, None)
            starts.append(self._start_one(release, function, key, size, ready_timeout_s, turns))
        await _run_all(starts)

    async def _counted_pools(self, needed: int, backends: Mapping[str, str]) -> tuple[Mapping[str, Counts], list[str]]:
        """That many free pools with their counts and those of the backends; fewer if there are not as many."""
        while True:
            chosen = self._free_pools(backends)[:needed]
            counts = await self._gateway.counts({*chosen, *backends.values()})
            free = [name for name in self._free_pools(backends) if name in chosen]
            if len(free) == len(chosen):  # otherwise a rollout of another stage took one meanwhile
                return counts, free

    def _free_pools(self, backends: Mapping[str, str]) -> list[str]:
        taken = {row.gateway_pool for row in self._store.pools()} | set(backends.values())
        return [name for name in self._gateway.state.free_pools() if name not in taken]

    async def _start_one(
        self,
        release: Release,
        function: Function,
        key: str,
        size: int,
        ready_timeout_s: float,
        turns: asyncio.Semaphore,
    ) -> None:
        task_root = Path(checks.__file__).parent
        if function is not CHECKS:
            digest = release.document.artifacts[function.name].digest
            task_root = await asyncio.to_thread(self._artifacts.unpack, digest)
        log_dir = self._logs / release.stage / f"r{release.number}" / function.name
        spec = pool_spec(release, function, key=key, task_root=str(task_root), log_dir=str(log_dir))
        async with turns:
            self.living[key] = await self._workers.start_pool(spec, size=size, ready_timeout_s=ready_timeout_s)

    def live_row(self, stage: str, function: str) -> PoolRow | None:
        """The living pool of the stage's live release for the function."""
        live = self.gateway_stage(stage).live
        rows = self._store.pools(stage, live) if live is not None else ()
        return next((row for row in rows if row.function == function and row.key in self.living), None)

    def _wanted_size(self, stage: str, function: Function) -> int:
        """The live pool's number of workers, within the function's limits. At least 1: a deploy tests it."""
        row = self.live_row(stage, function.name)
        return max(1, bounds_of(function).clamp(self.living[row.key].size if row else 0))

    async def connect(self, release: Release) -> None:
        """Add the release's servers and routes at the gateway. It gets requests once the stage's entry names it."""
        await self.grow_to_live_size(release)
        await self._connect(release)

    async def grow_to_live_size(self, release: Release) -> None:
        """Make each pool at least as large as the live pool that it replaces. EngineError if workers do not start."""
        for row in self._store.pools(release.stage, release.number):
            now, function = len(self.living[row.key].workers), release.function(row.function)
            wanted = self._wanted_size(release.stage, function)
            if wanted > now and (size := self.allowed(release.stage, function.name, wanted, {}, row.key)) > now:
                await self.servers.scale(row, size)

    async def _connect(self, release: Release) -> None:
        rows = self._store.pools(release.stage, release.number)
        routes = release_routes(release, rows)
        depths = {row.function: self._first_depth(row) for row in rows}

        def edit(state: GatewayState) -> GatewayState:
            for row in rows:
                function, depth = release.function(row.function), depths[row.function]
                pool, response_s = row.gateway_pool, self.living[row.key].spec.response_s
                limit_ms = partial(server_timeout_ms, response_s, http_api=function.only_http_api)
                state = state.with_limits(pool, throttle=throttle_of(function), attempt_ms=limit_ms(1))
                deep = tuple(replace(one, maxconn=depth) for one in servers.servers_of(self.living[row.key]))
                state = state.with_servers(pool, deep, timeout_ms=limit_ms(depth))
            return state.with_routes(release.key, routes)

        await self.change_gateway(edit)

    def _first_depth(self, row: PoolRow) -> int:
        """The live pool's depth, up to `FIRST_DEPTH`. A new pool gets the same load at once; if its handler has become
        slow, only a few requests wait behind each other until the depth is adapted.
        """
        live = self.live_row(row.stage, row.function)
        return min(self.depth_of(live), FIRST_DEPTH) if live is not None and live.key != row.key else 1

    async def restore(self, release: Release, *, ready_timeout_s: float) -> list[str]:
        """Start the missing pools of a live release and connect all. Returns the functions that were started."""
        backends: dict[str, str] = {}
        for row in self._store.pools(release.stage, release.number):
            if row.key not in self.living:
                backends[row.function] = row.gateway_pool  # the release's routes may already point to this backend
                await self._workers.stop_pool(row.key, grace_s=RETIRE_GRACE_S)
                self._store.remove_pool(row.key)
        have = {row.function for row in self._store.pools(release.stage, release.number)}
        missing = [function for function in release.served if function.name not in have]
        await self.start(release, missing, ready_timeout_s=ready_timeout_s, backends=backends)
        await self._connect(release)
        return [function.name for function in missing]

    def depth_of(self, row: PoolRow) -> int:
        """How many requests at a time the gateway gives each worker of the pool."""
        return max((server.maxconn for server in self._gateway.state.pool(row.gateway_pool).servers), default=1)

    async def set_depth(self, row: PoolRow, depth: int) -> None:
        """Give each worker of the pool that many requests at a time."""
        pool = self.living.get(row.key)
        if pool is None:
            return
        timeout_ms = server_timeout_ms(pool.spec.response_s, depth, http_api=pool.spec.only_http_api)
        await self.change_gateway(lambda state: state.with_maxconn(row.gateway_pool, depth, timeout_ms=timeout_ms))

    def gateway_stage(self, stage: str) -> StageState:
        """The stage's entry at the gateway; an empty one if the stage has been removed."""
        try:
            return self._gateway.state.stage(stage)
        except KeyError:
            return StageState(stage)

    async def route_all_to(self, stage: str, release: int | None) -> None:
        """Send all traffic of the stage to one release. Its settings decide what the access log has."""
        access = None
        if release is not None and (row := self._store.release(stage, release)) is not None:
            settings = release_of(row).document.settings
            per_s = LOGGED_PER_S[settings.access_log]
            traced = self.traced if settings.trace_requests else None
            access = Access(per_s, settings.access_log_query, traced) if per_s else None
        await self.change_gateway(lambda state: state.with_stage(stage, live=release).with_access(stage, access))

    async def shift(self, candidate: Release, live: int | None, weight_percent: float) -> None:
        """Send that share of the stage's traffic to the candidate. Its settings decide on the shield and stickiness."""
        settings = candidate.document.settings
        await self.change_gateway(
            lambda state: state.with_stage(
                candidate.stage,
                live=live,
                candidate=candidate.number,
                weight=round(weight_percent * 100),
                shield=settings.shield,
                announced=settings.release_header,
                sticky=settings.sticky,
            )
        )

    async def count(self, stage: str, release: int) -> Counted:
        """The requests of the release's current pools, counted by the gateway."""
        return (await self.count_all(stage, release))[0]

    async def count_all(self, stage: str, *releases: int) -> tuple[Counted, ...]:
        """Like `count`, for several releases, from one reading of the gateway."""
        asked = {route.pool for route in self._gateway.state.routes if route.method == INVOKE}
        asked -= {route.pool for route in self._gateway.state.routes if route.method != INVOKE}  # no client's requests
        every = (self._store.pools(stage, release) for release in releases)
        rows = [[row for row in some if row.gateway_pool not in asked] for some in every]
        counts = await self._gateway.counts({row.gateway_pool for some in rows for row in some}) if any(rows) else {}
        return tuple(
            Counted.of({PoolId(row.function, row.key): _count_since(row, counts) for row in some}) for some in rows
        )

    def latency(self, stage: str, release: int) -> tuple[Histogram, int]:
        """The latency histogram of the release's workers, and how many workers there are."""
        living = [self.living[row.key] for row in self._store.pools(stage, release) if row.key in self.living]
        return sum((pool.stats().latency for pool in living), EMPTY), sum(len(pool.workers) for pool in living)

    def runs(self, release: Release) -> bool:
        """Whether each function with routes has a living pool."""
        rows = self._store.pools(release.stage, release.number)
        return {row.function for row in rows if row.key in self.living} == {f.name for f in release.served}

    async def retire(self, release: Release, *, drain: bool) -> Counted:
        """Remove a release that gets no new requests. With `drain`, the requests that it still has end first.

        Returns the requests that the gateway counted. Idempotent. If clients are still reading responses after the
        drain, the release is removed later, in the background.
        """
        rows = self._store.pools(release.stage, release.number)
        if release.key in self.lingering:
            return await self.count(release.stage, release.number)
        if drain:
            await asyncio.gather(*(self._drain(release, row) for row in rows))
            if any(self._gateway.reading.get(row.gateway_pool) for row in rows):
                self.lingering.begin(release.key, self._all_read(rows), lambda: self._remove(release, rows, drain=True))
                return await self.count(release.stage, release.number)
        return await self._remove(release, rows, drain)

    async def _all_read(self, rows: Sequence[PoolRow]) -> bool:
        waits = (self._gateway.drained(row.gateway_pool, deadline_s=READERS_S, readers=True) for row in rows)
        return all(await asyncio.gather(*waits))

    async def _remove(self, release: Release, rows: Sequence[PoolRow], drain: bool) -> Counted:
        await asyncio.gather(*(self._disconnect(row) for row in rows))
        counted = await self.count(release.stage, release.number)
        await asyncio.gather(*(self._stop(release, row, drain) for row in rows))
        await self.change_gateway(lambda state: state.without_routes(release.key))
        return counted

    async def _drain(self, release: Release, row: PoolRow) -> None:
        timeout_s = min(release.function(row.function).timeout_s, API_GATEWAY_LIMIT_MS / 1000)
        await self._gateway.drained(row.gateway_pool, deadline_s=timeout_s + 1.0 + SLOW_CLIENT_S, readers=False)

    async def _disconnect(self, row: PoolRow) -> None:
        self.living.pop(row.key, None)  # first, so that a zygote that is being replaced no longer adds servers
        await self.change_gateway(lambda state: state.without_servers(row.gateway_pool), drain_s=0.0)

    async def _stop(self, release: Release, row: PoolRow, drain: bool) -> None:
        timeout_s = min(release.function(row.function).timeout_s, API_GATEWAY_LIMIT_MS / 1000)
        await self._workers.stop_pool(row.key, grace_s=timeout_s + RETIRE_GRACE_S if drain else RETIRE_GRACE_S)
        self._store.remove_pool(row.key)


def _count_since(row: PoolRow, counts: Mapping[str, Counts]) -> SavedCounts:
    """The requests at the pool's backend since the pool got it."""
    return pool_counts(counts.get(row.gateway_pool, {}), json.loads(row.counts_before))


def release_routes(release: Release, rows: Sequence[PoolRow]) -> tuple[RouteState, ...]:
    """Every route of the release with its backend."""
    backend = {row.function: row.gateway_pool for row in rows}
    idempotent = frozenset(release.document.settings.idempotent)
    found: dict[Route, RouteState] = {}
    served = [function for function in release.served if function.name in backend]
    for function in served:
        api = function.http_api
        http_api = frozenset(api.routes if api is not None and api.payload != URL_PAYLOAD else ())
        for route in function.routes:
            found[route] = _route_state(release, route, backend[function.name], route in idempotent, route in http_api)
        if function.authorizer:
            invoked = Route(INVOKE, f"/{function.name}")
            found[invoked] = _route_state(release, invoked, backend[function.name], False, False)
    for function in served:
        for route, payload, _ in preflights_of(function):
            found.setdefault(
                route, _route_state(release, route, backend[function.name], False, payload not in ("", URL_PAYLOAD))
            )
    return tuple(found.values())


def _route_state(release: Release, route: Route, pool: str, idempotent: bool, http_api: bool) -> RouteState:
    return RouteState(release.key, route.method, route.path, pool, idempotent=idempotent, http_api=http_api)


async def _run_all(jobs: Sequence[object]) -> None:
    """Run all jobs. At the first failure, cancel the others and await them, so that nothing starts after the return."""
    tasks = [asyncio.ensure_future(job) for job in jobs]  # type: ignore[call-overload]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
