"""The engine's figures in Prometheus' text format: the same figures as in receipts and `status`.

Counters belong to the pools that are running: when a release is removed, its series end, and a new release starts at 0.
For the past, read the receipts. https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

import hitless
from hitless.engine.engine import Engine
from hitless.engine.status import counted_pools
from hitless.gateway.counts import CLASSES, Counts
from hitless.gateway.gateway import Gateway
from hitless.gateway.observe import BackendLoad
from hitless.release.receipt import SavedCounts
from hitless.rollout.counted import NOTHING
from hitless.store.store import PoolRow
from hitless.workers.pool import Pool
from hitless.workers.stats import Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
POOL: Final = ("stage", "release", "function")
BOUNDS_US: Final = tuple(1 << power for power in range(8, 26))
"""0.26 ms to 34 s, doubling. The workers' own finer buckets end at these bounds, so the counts are exact."""


async def exposition(engine: Engine, gateway: Gateway, others: Iterable[Metric]) -> bytes:
    """All figures as text, with `others`. While HAProxy is down, its figures are missing."""
    families = [*others, *_engine_metrics(engine), *_listener_metrics(await gateway.stage_counts())]
    rows = engine.store.pools()
    loads = await gateway.loads([row.gateway_pool for row in rows])
    families += _gateway_metrics(rows, await counted_pools(engine, rows), loads)
    families += _worker_metrics((row, pool) for row in rows if (pool := engine.pools.living.get(row.key)))
    return generate_latest(_FixedCollector(families))


class _FixedCollector:
    """A Prometheus collector of metrics that are already collected."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _engine_metrics(engine: Engine) -> Iterator[Metric]:
    info = GaugeMetricFamily("hitless_info", "Version and service of the engine.", labels=("version", "service"))
    info.add_metric((hitless.__version__, engine.service), 1)
    live = GaugeMetricFamily("hitless_live_release", "Number of the release that serves the stage.", labels=("stage",))
    weight = GaugeMetricFamily(
        "hitless_candidate_weight_percent", "Share of requests asked for the candidate.", labels=("stage", "release")
    )
    for stage in engine.turns:
        if known := engine.store.live(stage):
            live.add_metric((stage,), known[0])
        entry = engine.pools.gateway_stage(stage)
        if entry.candidate is not None:
            weight.add_metric((stage, str(entry.candidate)), entry.weight / 100)
    yield from (info, live, weight)


def _listener_metrics(stages: Mapping[str, Counts]) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "hitless_stage_answers",
        "Responses of a stage by status class, including those without a pool (403, 413, 503).",
        labels=("stage", "class"),
    )
    restarts = CounterMetricFamily("hitless_gateway_restarts", "Restarts of HAProxy.")
    for stage, counts in stages.items():
        for name in CLASSES:
            answers.add_metric((stage, name), counts.get(name, 0))
    restarts.add_metric((), max((counts["restarts"] for counts in stages.values()), default=0))
    yield from (answers, restarts)


def _gateway_metrics(
    rows: Iterable[PoolRow], counted: Mapping[str, SavedCounts], loads: Mapping[str, BackendLoad]
) -> Iterator[Metric]:
    requests = CounterMetricFamily("hitless_requests", "Requests, counted at the gateway.", labels=POOL)
    answers = CounterMetricFamily(
        "hitless_answers", "Responses by status class, counted at the gateway.", labels=(*POOL, "class")
    )
    failed = CounterMetricFamily("hitless_failed", "Requests that a client saw fail.", labels=POOL)
    shielded = CounterMetricFamily(
        "hitless_shielded", "Requests that the pool failed and the live release answered.", labels=POOL
    )
    queued = GaugeMetricFamily("hitless_queued", "Requests that wait at the gateway for a worker.", labels=POOL)
    present = GaugeMetricFamily("hitless_in_flight", "Requests that a worker is processing.", labels=POOL)
    for row in rows:
        labels, one = _labels(row), counted.get(row.key, NOTHING)
        requests.add_metric(labels, one.requests)
        failed.add_metric(labels, one.failed)
        shielded.add_metric(labels, one.shielded)
        for name, number in one.by_class.items():
            answers.add_metric((*labels, name), number)
        if load := loads.get(row.gateway_pool):
            queued.add_metric(labels, load.qcur)
            present.add_metric(labels, load.scur)
    yield from (requests, answers, failed, shielded, queued, present)


def _worker_metrics(pools: Iterable[tuple[PoolRow, Pool]]) -> Iterator[Metric]:
    workers = GaugeMetricFamily("hitless_workers", "Worker processes.", labels=POOL)
    busy = GaugeMetricFamily("hitless_workers_busy", "Workers that are processing a request.", labels=POOL)
    restarts = CounterMetricFamily("hitless_worker_restarts", "Workers that ended and were replaced.", labels=POOL)
    timeouts = CounterMetricFamily(
        "hitless_timeouts", "Requests that were ended by the function's timeout.", labels=POOL
    )
    errors = CounterMetricFamily(
        "hitless_handler_errors", "502 responses because the handler raised or its result was malformed.", labels=POOL
    )
    durations = HistogramMetricFamily(
        "hitless_request_duration_seconds", "Time that workers spent in requests.", labels=POOL
    )
    for row, pool in pools:
        labels, stats = _labels(row), pool.stats()
        workers.add_metric(labels, len(stats.workers))
        busy.add_metric(labels, sum(worker.busy for worker in stats.workers))
        restarts.add_metric(labels, stats.restarts)
        timeouts.add_metric(labels, stats.timeouts)
        errors.add_metric(labels, stats.errors)
        durations.add_metric(labels, buckets_of(stats.latency), stats.latency.sum_us / 1e6)
    yield from (workers, busy, restarts, timeouts, errors, durations)


def buckets_of(latency: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts up to each bound, in seconds."""
    cumulative = [(f"{bound / 1e6}", float(latency.count_below(bound))) for bound in BOUNDS_US]
    return [*cumulative, ("+Inf", float(latency.count))]


def _labels(row: PoolRow) -> tuple[str, str, str]:
    return row.stage, str(row.release), row.function
