"""Figures for Prometheus: a histogram's buckets."""

from __future__ import annotations

import pytest

from hitless.engine.metrics import buckets_of
from hitless.worker.layout import BUCKETS, bucket_of
from hitless.workers.stats import Histogram

pytestmark = pytest.mark.unit


def test_a_latency_is_counted_in_every_higher_bucket_of_a_prometheus_histogram() -> None:
    latencies_us = (3, 255, 256, 511, 512, 1_000_000, 40_000_000)
    counts = [0] * BUCKETS
    for latency_us in latencies_us:
        counts[bucket_of(latency_us)] += 1
    found = dict(buckets_of(Histogram(tuple(counts), sum(latencies_us))))
    assert [float(bound) for bound in found] == sorted(float(bound) for bound in found)
    for bound, number in found.items():
        assert number == sum(latency_us < float(bound) * 1e6 for latency_us in latencies_us), bound
    assert found["+Inf"] == len(latencies_us)
