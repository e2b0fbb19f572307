"""The `status` document: processes, releases, workers and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import msgspec
from msgspec import UNSET, UnsetType

from hitless.engine.engine import Engine
from hitless.gateway.gateway import Gateway
from hitless.release.receipt import SavedCounts, Side
from hitless.release.result import LastReading, SideCounts, whole
from hitless.release.status import (
    CandidateStatus,
    EngineStatus,
    FunctionStatus,
    GatewayFigures,
    GuardStatus,
    LatencyStatus,
    LiveRelease,
    PreviewStatus,
    ScalingStatus,
    StageStatus,
    Status,
    WorkerStatus,
)
from hitless.rollout.record import RolloutState
from hitless.rollout.release import Release
from hitless.rollout.rollout import Rollout
from hitless.scaling.bounds import bounds_of
from hitless.service.model import Function
from hitless.store.previews import PreviewRow
from hitless.store.store import PoolRow
from hitless.workers.pool import Pool
from hitless.workers.stats import Histogram, WorkerStats


async def read_gateway(engine: Engine, gateway: Gateway) -> dict[str, GatewayFigures]:
    """Every pool's figures at the gateway, by the pool's key; pools that HAProxy does not report are missing."""
    rows = engine.store.pools()
    loads = await gateway.loads([row.gateway_pool for row in rows])
    counted = await counted_pools(engine, rows)
    return {
        row.key: GatewayFigures(counted[row.key].failed, load.scur, load.qcur, gateway.reading.get(row.gateway_pool, 0))
        for row in rows
        if (load := loads.get(row.gateway_pool)) and row.key in counted
    }


async def counted_pools(engine: Engine, rows: Iterable[PoolRow]) -> dict[str, SavedCounts]:
    """Each pool's requests as the gateway counted them, by the pool's key."""
    found: dict[str, SavedCounts] = {}
    for stage, release in dict.fromkeys((row.stage, row.release) for row in rows):
        counted = await engine.pools.count(stage, release)
        found |= {pool.key: part for pool, part in counted.pools.items()}
    return found


Reason = Callable[[str], str | None]
"""Why the pool with that key has its size; None for a fixed size."""


def status(
    engine: Engine,
    *,
    urls: Mapping[str, str],
    previews: Iterable[tuple[PreviewRow, str]] = (),
    processes: EngineStatus,
    reason_of: Reason,
    rate_of: Callable[[str], float] | None = None,
    at_gateway: Mapping[str, GatewayFigures] = MappingProxyType({}),
    troubles: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> Status:
    """The whole engine: its processes, each stage's live release and candidate, each function's workers and counts."""

    def shown(stage: str, url: str | None, preview: PreviewStatus | UnsetType = UNSET) -> StageStatus:
        live, turn = engine.store.live(stage), engine.turn_of(stage)
        release = engine.release(stage, live[0]) if live else None
        entry = StageStatus(
            stage=stage,
            url=url,
            candidate=candidate_of(turn.current, live[0] if live else None),
            requests_per_s=rate_of(stage) if rate_of else UNSET,
            guard=GuardStatus(turn.guard.previous.number, round(turn.guard.left_s, 1)) if turn.guard else None,
            preview=preview,
            troubles=[{"where": "certificate", "what": said[0], "mends": said[1]}]
            if (said := troubles.get(stage)) and said[0]
            else UNSET,
        )
        if live is None or release is None:
            return entry
        document = release.document
        return msgspec.structs.replace(
            entry,
            strategy=str(document.settings.strategy),
            live=LiveRelease(release.number, document.commit, document.digests, live[1]),
            functions=_functions(engine, release, reason_of, at_gateway),
        )

    return Status(
        service=engine.service,
        engine=processes,
        stages=tuple(shown(stage, urls.get(stage)) for stage in engine.stages),
        previews=tuple(
            shown(row.stage, url, PreviewStatus(row.branch, row.from_stage, row.created_at, row.expires_at, row.ending))
            for row, url in previews
        ),
    )


def candidate_of(rollout: Rollout | None, live: int | None = None) -> CandidateStatus | None:
    """The rollout's candidate; None if it is live already."""
    if rollout is None or rollout.candidate.number == live or rollout.state is RolloutState.ENDED:
        return None
    counted, beside = (rollout.receipt.counts_of(side).total for side in (Side.CANDIDATE, Side.LIVE))
    pools, stage = rollout.pools, rollout.candidate.stage
    previous, reading = rollout.previous, rollout.reading
    left_s = rollout.baked_at_s - rollout.clock.monotonic() if rollout.baked_at_s is not None else None
    return CandidateStatus(
        rollout.candidate.number,
        str(rollout.state),
        whole(rollout.weight_percent),
        requests=counted.requests,
        failed=counted.failed,
        shielded=counted.shielded,
        left_s=round(max(0.0, left_s), 1) if left_s is not None and rollout.state is RolloutState.BAKING else UNSET,
        latency_ms=_latency(pools.latency(stage, rollout.candidate.number)[0]) or UNSET,
        live=SideCounts(beside.requests, beside.failed) if previous else UNSET,
        live_latency_ms=(previous and _latency(pools.latency(stage, previous.number)[0])) or UNSET,
        alarms=LastReading(str(reading.verdict), reading.sentence) if reading else UNSET,
    )


def _latency(seen: Histogram) -> LatencyStatus | None:
    p50_us, p99_us = seen.percentile_us(50), seen.percentile_us(99)
    return None if p50_us is None or p99_us is None else LatencyStatus(round(p50_us / 1000, 3), round(p99_us / 1000, 3))


def _functions(
    engine: Engine, release: Release, reason_of: Reason, at_gateway: Mapping[str, GatewayFigures]
) -> tuple[FunctionStatus, ...]:
    keys = {row.function: row.key for row in engine.store.pools(release.stage, release.number)}
    found = ((function, keys.get(function.name, "")) for function in release.served)
    return tuple(
        _function(function, release.number, engine.pools.living.get(key), at_gateway.get(key), reason_of(key))
        for function, key in found
    )


def running_workers(workers: Iterable[WorkerStats]) -> tuple[WorkerStatus, ...]:
    """The workers that have a process: between two processes the pid is 0, and kill(0) would hit the caller's group."""
    return tuple(WorkerStatus(worker.pid, worker.busy) for worker in workers if worker.pid > 0)


def _function(
    function: Function, release: int, pool: Pool | None, seen: GatewayFigures | None, reason: str | None
) -> FunctionStatus:
    bounds = bounds_of(function)
    now = pool.size if pool else 0
    scaling = ScalingStatus(bounds.least, bounds.most, now, bounds.target_percent, reason)
    if pool is None:
        return FunctionStatus(function.name, release, restarts=0, requests=0, failed=0, scaling=scaling)
    stats = pool.stats()
    return FunctionStatus(
        name=function.name,
        release=release,
        zygote_pid=pool.zygote_pid,
        workers=running_workers(stats.workers),
        restarts=stats.restarts,
        requests=stats.requests,
        failed=stats.failed,
        gateway=msgspec.structs.replace(seen, failed=max(0, seen.failed - stats.failed)) if seen else None,
        latency_ms=_latency(stats.latency),
        scaling=scaling,
    )
