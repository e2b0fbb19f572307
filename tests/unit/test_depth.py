"""How many requests a worker is handed at a time: deep only where every request is quick."""

from __future__ import annotations

import pytest

from hitless.engine.depth import DEEP, SHALLOW, decide_depth
from hitless.worker.layout import BUCKETS, bucket_of
from hitless.workers.stats import Histogram

pytestmark = pytest.mark.unit


def histogram(*of: tuple[int, int]) -> Histogram:
    """(count, microseconds each) …"""
    buckets = [0] * BUCKETS
    for count, each_us in of:
        buckets[bucket_of(each_us)] += count
    return Histogram(tuple(buckets), sum(count * each_us for count, each_us in of))


@pytest.mark.parametrize(
    ("last_second", "depth"),
    [
        (histogram(), SHALLOW),
        (histogram((50, 20)), SHALLOW),
        (histogram((5_000, 60)), DEEP),
        (histogram((900, 450)), DEEP),
        (histogram((900, 600)), SHALLOW),
        (histogram((5_000, 60), (10, 300_000)), SHALLOW),
        (histogram((50_000, 60), (1, 300_000)), DEEP),
    ],
)
def test_depth_follows_what_the_last_second_took(last_second: Histogram, depth: int) -> None:
    assert decide_depth(last_second) == depth
