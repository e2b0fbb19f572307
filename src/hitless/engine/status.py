"""The `status` document: what runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Protocol

import hitless
from hitless.engine.engine import Engine
from hitless.gateway.observe import BackendLoad
from hitless.release.result import whole
from hitless.rollout.counted import Counted
from hitless.rollout.receipt import Side
from hitless.rollout.rollout import Rollout
from hitless.rollout.states import State
from hitless.scaling.bounds import bounds_of
from hitless.service.model import Function
from hitless.store.previews import PreviewRow
from hitless.store.store import PoolRow
from hitless.workers.pool import Pool
from hitless.workers.stats import WorkerStats


class GatewayLoads(Protocol):
    """The gateway's present load."""

    async def loads(self, pools: Collection[str]) -> Mapping[str, BackendLoad]: ...


class StatusGateway(GatewayLoads, Protocol):
    """The gateway's loads, and the responses that clients are still reading."""

    @property
    def reading(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """A pool at the gateway: requests that failed for clients, requests at a worker, requests waiting for one, and
    responses that clients are still reading.
    """

    failed: int
    in_hand: int
    queued: int
    reading: int


async def read_gateway(engine: Engine, gateway: StatusGateway) -> dict[str, GatewayFigures]:
    """Every pool's figures at the gateway, by the pool's key; pools that HAProxy does not report are missing."""
    rows = engine.store.pools()
    loads = await gateway.loads([row.gateway_pool for row in rows])
    counted = await counted_pools(engine, rows)
    return {
        row.key: GatewayFigures(counted[row.key].failed, load.scur, load.qcur, gateway.reading.get(row.gateway_pool, 0))
        for row in rows
        if (load := loads.get(row.gateway_pool)) and row.key in counted
    }


async def counted_pools(engine: Engine, rows: Iterable[PoolRow]) -> dict[str, Counted]:
    """Each pool's requests as the gateway counted them, by the pool's key."""
    found: dict[str, Counted] = {}
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
    processes: Mapping[str, int | None],
    started_at: str,
    reason_of: Reason,
    at_gateway: Mapping[str, GatewayFigures] = MappingProxyType({}),
) -> dict[str, Any]:
    """The whole engine: its processes, each stage's live release and candidate, each function's workers and counts."""
    return {
        "service": engine.service,
        "engine": {
            "pid": os.getpid(),
            "version": hitless.__version__,
            "started_at": started_at,
            **processes,
        },
        "stages": [_stage(engine, stage, urls.get(stage), reason_of, at_gateway) for stage in engine.stages],
        "previews": [
            {**_stage(engine, row.stage, url, reason_of, at_gateway), "preview": _preview(row)} for row, url in previews
        ],
    }


def _preview(row: PreviewRow) -> dict[str, Any]:
    known = {"branch": row.branch, "from_stage": row.from_stage}
    return {**known, "created_at": row.created_at, "expires_at": row.expires_at, "ending": row.ending}


def _stage(
    engine: Engine, stage: str, url: str | None, reason_of: Reason, at_gateway: Mapping[str, GatewayFigures]
) -> dict[str, Any]:
    live, rollout = engine.store.live(stage), engine.rollout_of(stage)
    row = engine.store.release(stage, live[0]) if live else None
    guard = engine.guard_of(stage)
    return {
        "stage": stage,
        "url": url,
        "strategy": str(row.document["settings"]["strategy"]) if row else None,
        "live": {
            "release": live[0],
            "commit": row.commit,
            "artifacts": {name: a["digest"] for name, a in row.document["artifacts"].items()},
            "since": live[1],
        }
        if live and row
        else None,
        "candidate": _candidate(rollout, live[0] if live else None),
        "guard": {"previous": guard.previous.number, "left_s": round(guard.left_s, 1)} if guard else None,
        "functions": _functions(engine, stage, live[0], reason_of, at_gateway) if live else [],
    }


def _candidate(rollout: Rollout | None, live: int | None) -> dict[str, Any] | None:
    if rollout is None or rollout.candidate.number == live or rollout.state is State.ENDED:
        return None
    return {
        "release": rollout.candidate.number,
        "state": str(rollout.state),
        "weight_percent": whole(rollout.weight_percent),
        **rollout.receipt.of(Side.CANDIDATE).sums(),
    }


def _functions(
    engine: Engine, stage: str, live: int, reason_of: Reason, at_gateway: Mapping[str, GatewayFigures]
) -> list[dict[str, Any]]:
    release = engine.release(stage, live)
    keys = {row.function: row.key for row in engine.store.pools(stage, live)}
    return [
        {
            **_function(engine, function, live, key := keys.get(function.name), at_gateway.get(key or "")),
            "scaling": _scaling(function, engine.pools.living.get(key or ""), reason_of(key or "")),
        }
        for function in release.served
    ]


def _scaling(function: Function, pool: Pool | None, reason: str | None) -> dict[str, Any]:
    bounds = bounds_of(function)
    return {
        "min": bounds.least,
        "max": bounds.most,
        "now": pool.size if pool else 0,
        "target_percent": bounds.target_percent,
        "reason": reason,
    }


def running_workers(workers: Iterable[WorkerStats]) -> list[dict[str, Any]]:
    """The workers that have a process. A worker between two processes has pid 0, and kill(0) would end the caller's
    process group.
    """
    return [{"pid": worker.pid, "busy": worker.busy} for worker in workers if worker.pid > 0]


def _function(
    engine: Engine, function: Function, release: int, key: str | None, seen: GatewayFigures | None
) -> dict[str, Any]:
    pool = engine.pools.living.get(key) if key else None
    if pool is None:
        nothing = {"restarts": 0, "requests": 0, "failed": 0, "gateway": None, "latency_ms": None}
        return {"name": function.name, "release": release, "zygote_pid": None, "workers": [], **nothing}
    stats = pool.stats()
    latency = stats.latency
    p50_us, p99_us = latency.percentile_us(50), latency.percentile_us(99)
    return {
        "name": function.name,
        "release": release,
        "zygote_pid": pool.zygote_pid,
        "workers": running_workers(stats.workers),
        "restarts": stats.restarts,
        "requests": stats.requests,
        "failed": stats.failed,
        "gateway": {**asdict(seen), "failed": max(0, seen.failed - stats.failed)} if seen else None,
        "latency_ms": None
        if p50_us is None or p99_us is None
        else {"p50": round(p50_us / 1000, 3), "p99": round(p99_us / 1000, 3)},
    }
