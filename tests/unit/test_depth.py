"""A worker's depth: 16 only while every request is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hitless.engine.depth import DEEP, SHALLOW, DepthSample, decide_depth, next_depth
from hitless.worker.layout import BUCKETS, bucket_of
from hitless.workers.stats import Histogram, PoolStats, Pulse
from hitless.workers.usage import ProcessorWaits, read_waits

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
def test_depth_follows_the_last_seconds_latency(last_second: Histogram, depth: int) -> None:
    assert decide_depth(last_second) == depth


def test_a_slow_p999_caused_by_processor_waits_counts_as_quick() -> None:
    busy_machine = histogram((5_000, 60), (10, 9_000))
    assert decide_depth(busy_machine) == SHALLOW
    assert decide_depth(busy_machine, wait_us=700) == DEEP
    assert decide_depth(histogram((5_000, 60), (10, 90_000)), wait_us=700) == SHALLOW


@dataclass
class FakePool:
    """A pool with these counts; `asked` counts how often its histograms were read."""

    done: Histogram
    busy: int = 0
    asked: int = 0

    def pulse(self) -> Pulse:
        return Pulse(0, 0, self.done.count, self.done.sum_us, self.busy)

    def stats(self) -> PoolStats:
        self.asked += 1
        return PoolStats((), self.done.count, {}, 0, 0, 0, 0, self.done)


def fake_pool(done: Histogram, busy: int = 0) -> Any:
    return FakePool(done, busy)


def test_an_idle_pool_keeps_its_depth_and_its_sample() -> None:
    pool = fake_pool(histogram())
    assert next_depth(pool, DepthSample(), 4) == (DepthSample(), 4)
    pool.done = histogram((300, 50))
    seen, _ = next_depth(pool, DepthSample(), 4)
    assert next_depth(pool, seen, DEEP) == (seen, DEEP)


def test_the_first_busy_second_of_a_new_pool_decides_its_depth() -> None:
    assert next_depth(fake_pool(histogram((300, 50))), DepthSample(), 1)[1] == DEEP
    assert next_depth(fake_pool(histogram((300, 5_000))), DepthSample(), 4)[1] == SHALLOW


def test_few_requests_or_a_long_one_give_depth_1_without_reading_histograms() -> None:
    few, stuck = fake_pool(histogram((20, 50))), fake_pool(histogram(), busy=1)
    assert (next_depth(few, DepthSample(), DEEP)[1], next_depth(stuck, DepthSample(), DEEP)[1]) == (SHALLOW, SHALLOW)
    assert (few.asked, stuck.asked) == (0, 0)


def test_only_the_last_second_decides_and_a_missing_sample_changes_nothing() -> None:
    pool = fake_pool(histogram((300, 90_000)))
    seen, depth = next_depth(pool, DepthSample(), 1)
    pool.done = histogram((300, 90_000), (1_000, 50))
    assert (depth, next_depth(pool, seen, depth)[1]) == (SHALLOW, DEEP)
    unread = DepthSample(300, None)
    seen, depth = next_depth(pool, unread, SHALLOW)
    assert (depth, seen.latency) == (SHALLOW, pool.done)


def test_processor_waits_are_summed_over_living_processes(tmp_path: Path) -> None:
    for pid, text in ((7, "900 4000000 10\n"), (8, "900 2000000 20\n"), (9, "unreadable\n")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "schedstat").write_text(text)
    waits = read_waits([7, 8, 9, 10], tmp_path)
    assert waits == ProcessorWaits(6_000_000, 30)
    assert waits.mean_us(ProcessorWaits(3_000_000, 20)) == 300.0
    assert waits.mean_us(waits) == 0.0
    assert ProcessorWaits(1, 1).mean_us(waits) == 0.0  # other processes than before
