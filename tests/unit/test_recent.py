"""The engine's samples of the last hour: what a person sees who opens the dashboard after an incident."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hitless.engine.engine import Engine
from hitless.engine.recent import EVERY_S, KEPT, Recent
from hitless.workers.stats import Histogram, Pulse
from tests.fakes import FakeClock, FakeStats
from tests.unit.test_depth import histogram

pytestmark = pytest.mark.unit


@dataclass
class CountingPool:
    """A pool whose workers ended requests of these counts and latencies in microseconds."""

    ended: list[tuple[int, int]] = field(default_factory=list)
    failed: int = 0

    def pulse(self) -> Pulse:
        return Pulse(0, 0, self.stats().requests, 0, 0)

    def stats(self) -> FakeStats:
        return FakeStats(self.latency, requests=self.latency.count, failed=self.failed)

    @property
    def latency(self) -> Histogram:
        return histogram(*self.ended)


class Watched:
    """An engine with pools of `dev`, and its samples."""

    def __init__(self, **pools: tuple[int, CountingPool]) -> None:
        self.clock = FakeClock()
        self.living = {key: pool for key, (_, pool) in pools.items()}
        self.rows = [SimpleNamespace(key=key, stage="dev", release=release) for key, (release, _) in pools.items()]
        self.turns = {"dev": SimpleNamespace(current=None), "prod": SimpleNamespace(current=None)}
        engine: Any = SimpleNamespace(
            turns=self.turns,
            store=SimpleNamespace(pools=lambda: self.rows),
            pools=SimpleNamespace(living=self.living),
        )
        self.recent = Recent(cast(Engine, engine), self.clock)
        self.recent.sample()

    def after(self, seconds: float) -> None:
        self.clock.elapsed_s += seconds
        self.recent.sample()


def test_a_sample_has_the_requests_since_the_one_before_and_the_latency_of_these_alone() -> None:
    api, slow = CountingPool([(50, 90_000)], failed=7), CountingPool()
    watched = Watched(api=(3, api), slow=(3, slow))
    api.ended.append((99, 1_000))
    api.failed += 2
    slow.ended.append((1, 200_000))
    watched.after(5)
    (one,) = watched.recent.of("dev")
    assert (one.release, one.requests, one.failed) == (3, 100, 2)
    assert one.at_s == watched.clock.now().timestamp()
    assert one.p50_ms == pytest.approx(1, rel=0.07)
    assert one.p99_ms == pytest.approx(1, rel=0.07), "the slow requests before the first sample do not count"
    assert list(watched.recent.of("prod")) == []


def test_a_candidate_has_samples_of_its_own_from_its_first_request_on() -> None:
    watched = Watched(live=(1, live := CountingPool()))
    watched.rows.append(SimpleNamespace(key="next", stage="dev", release=2))
    watched.living["next"] = CountingPool([(3, 8_000)])
    live.ended.append((30, 1_000))
    watched.after(5)
    assert [(one.release, one.requests) for one in watched.recent.of("dev")] == [(1, 30), (2, 3)]


def test_counters_that_a_handler_has_overwritten_stop_no_sample() -> None:
    """The counters are in memory that the pool's own workers write."""
    watched = Watched(api=(1, api := CountingPool()), other=(2, other := CountingPool()))
    for count, counted in ((2**40, 0xFFFF_FFFF), (5, 0)):
        api.ended, other.ended = [(count, 1_000)], [(other.latency.count + 1, 1_000)]
        watched.after(5)
        assert [(one.release, one.requests) for one in watched.recent.of("dev")][-2:] == [(1, counted), (2, 1)]


def test_a_stage_without_requests_adds_no_sample_and_a_busy_one_keeps_an_hour() -> None:
    watched = Watched(api=(1, api := CountingPool()))
    for _ in range(KEPT + 3):
        api.ended = [(api.latency.count + 1, 1_000)]
        watched.after(5)
    watched.after(5)
    found = list(watched.recent.of("dev", 9 * KEPT))
    assert len(found) == KEPT >= 3600 / EVERY_S
    assert found[-1].at_s == watched.clock.now().timestamp() - 5


def test_figures_of_removed_pools_and_stages_are_forgotten() -> None:
    watched = Watched(api=(1, api := CountingPool()))
    api.ended.append((1, 1_000))
    watched.after(5)
    watched.living.clear()
    del watched.turns["dev"]
    watched.after(5)
    assert list(watched.recent.of("dev")) == []
    assert watched.recent._counted == {}


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    watched = Watched(api=(1, api := CountingPool()))
    for _ in range(20):
        api.ended = [(api.latency.count + 6, 1_000)]
        watched.after(2)
    assert watched.recent.per_second("dev") == 3
    assert watched.recent.per_second("prod") == 0
    watched.after(60)
    assert watched.recent.per_second("dev") == 0
