"""Alarms: no false ones from noise, and early ones for clear faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.rollout.alarms import (
    ALARM_PERIOD_S,
    RECENT_S,
    CandidateWatch,
    Reading,
    ReleaseTraffic,
    TrafficWindow,
    Verdict,
    is_above,
    read_alarms,
)
from hitless.service.model import ALARM_FLOOR_MS, AlarmSettings
from hitless.worker.layout import BUCKETS, bucket_of
from hitless.workers.stats import Histogram
from tests.fakes import FakeClock

pytestmark = pytest.mark.unit

COUNTS = st.integers(0, 100_000)
PERCENT = st.floats(0, 100)


def latencies(ms: Iterable[float]) -> Histogram:
    buckets, total_us = [0] * BUCKETS, 0
    for each in ms:
        buckets[bucket_of(round(each * 1000))] += 1
        total_us += round(each * 1000)
    return Histogram(tuple(buckets), total_us)


def served(requests: int, failed: int = 0, ms: Iterable[float] = (), workers: int = 0) -> ReleaseTraffic:
    return ReleaseTraffic(requests, failed, latencies(ms), workers)


def read(settings: AlarmSettings, candidate: ReleaseTraffic, live: ReleaseTraffic | None = None) -> Reading:
    return read_alarms(settings, TrafficWindow(candidate, live))


# -- what is sure -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "of", "alarm"),
    [
        (1, 20, False),
        (2, 20, True),
        (2, 100, False),
        (3, 100, True),
        (16, 1000, False),
        (17, 1000, True),
        (130, 10_000, True),
    ],
)
def test_an_alarm_at_one_per_cent_needs_statistical_certainty(bad: int, of: int, alarm: bool) -> None:
    assert is_above(bad, of, 1) is alarm


@given(COUNTS, COUNTS, PERCENT)
def test_an_alarm_needs_more_bad_requests_than_allowed(bad: int, of: int, percent: float) -> None:
    bad = min(bad, of)
    if 100 * bad <= percent * of:
        assert not is_above(bad, of, percent)


@given(COUNTS, COUNTS, PERCENT)
def test_one_more_bad_request_never_ends_an_alarm(bad: int, of: int, percent: float) -> None:
    if bad < of and is_above(bad, of, percent):
        assert is_above(bad + 1, of, percent)


@given(COUNTS, COUNTS, PERCENT, st.integers(2, 50))
def test_the_same_share_of_more_requests_never_ends_an_alarm(bad: int, of: int, percent: float, times: int) -> None:
    if bad <= of and is_above(bad, of, percent):
        assert is_above(times * bad, times * of, percent)


@given(st.integers(1, 100_000))
def test_one_failure_is_an_alarm_if_none_is_allowed(of: int) -> None:
    assert is_above(1, of, 0)
    assert not is_above(0, of, 0)


def first_alarm(rate: float, *, seed: int, looks: int, requests_a_look: int) -> int | None:
    """The number of the reading at which a release with that error rate is rolled back; None if never."""
    chance, failed = random.Random(seed), 0
    for look in range(1, looks + 1):
        failed += sum(chance.random() < rate for _ in range(requests_a_look))
        seen = served(look * requests_a_look, failed)
        if read(AlarmSettings(1, 20), seen).verdict is Verdict.ALARM:
            return look
    return None


def test_half_the_allowed_error_rate_hardly_ever_causes_an_alarm() -> None:
    rung = sum(first_alarm(0.005, seed=seed, looks=240, requests_a_look=10) is not None for seed in range(200))
    assert rung <= 30, "a plain threshold of 1 % sends back three quarters of them"


def test_one_failing_route_in_four_causes_an_alarm_within_a_few_readings() -> None:
    looks = [first_alarm(0.25, seed=seed, looks=20, requests_a_look=10) for seed in range(200)]
    assert all(look is not None for look in looks)
    assert sorted(look or 99 for look in looks)[190] <= 4


# -- the alarms -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 19), st.integers(0, 19))
def test_fewer_requests_than_the_minimum_are_never_an_alarm(requests: int, failed: int) -> None:
    reading = read(AlarmSettings(1, 20), served(requests, min(failed, requests)))
    assert reading.verdict is Verdict.NOT_ENOUGH_DATA
    assert reading.sentence == f"error rate: {requests} of 20 requests needed for a verdict"


def test_a_broken_candidate_causes_an_alarm_at_minimum_traffic() -> None:
    reading = read(AlarmSettings(1, 20), served(20, 20))
    assert reading.verdict is Verdict.ALARM
    assert reading.sentence == "20 of 20 requests failed (100 %, alarm above 1 %)"
    assert reading.figures == {
        "requests": 20,
        "failed": 20,
        "error_rate_percent": 100,
        "p99_ms": None,
        "live_p99_ms": None,
    }


SLOW = AlarmSettings(1, 20, p99_ms=50)


def test_a_p99_above_the_limit_causes_an_alarm_that_names_both() -> None:
    reading = read(SLOW, served(20, ms=[80] * 20, workers=2))
    assert reading.verdict is Verdict.ALARM
    assert reading.sentence == "p99 79.9 ms over 20 requests (alarm above 50 ms)"


def test_each_workers_first_request_may_be_slow() -> None:
    assert read(SLOW, served(20, ms=[*[300] * 2, *[3] * 18], workers=2)).verdict is Verdict.OK
    assert read(SLOW, served(20, ms=[*[300] * 4, *[3] * 16], workers=2)).verdict is Verdict.ALARM


def test_one_slow_request_in_a_hundred_causes_no_p99_alarm() -> None:
    assert read(SLOW, served(1000, ms=[*[300] * 10, *[3] * 990])).verdict is Verdict.OK
    assert read(SLOW, served(1000, ms=[*[300] * 30, *[3] * 970])).verdict is Verdict.ALARM


def test_latency_is_judged_only_from_enough_responses() -> None:
    reading = read(SLOW, served(500, ms=[300] * 19))
    assert reading.verdict is Verdict.NOT_ENOUGH_DATA
    assert reading.sentence == "p99: 19 of 20 requests needed for a verdict"


RELATIVE = AlarmSettings(1, 20, p99_relative_percent=200)


@given(st.floats(0.05, 2000), st.floats(0.05, 5000), st.integers(0, 300), st.integers(0, 300))
def test_the_relative_alarm_needs_enough_requests_the_ratio_and_a_minimum_difference(
    live_ms: float, candidate_ms: float, live_count: int, count: int
) -> None:
    live, candidate = served(live_count, ms=[live_ms] * live_count), served(count, ms=[candidate_ms] * count)
    verdict = read(RELATIVE, candidate, live).verdict
    if min(live_count, count) < 20:
        assert verdict is Verdict.NOT_ENOUGH_DATA
    elif candidate_ms > 1.14 * max(2 * live_ms, live_ms + ALARM_FLOOR_MS):  # two buckets' widths
        assert verdict is Verdict.ALARM
    elif candidate_ms < max(2 * live_ms, live_ms + ALARM_FLOOR_MS) / 1.14:
        assert verdict is Verdict.OK


def test_a_ratio_below_the_minimum_difference_causes_no_alarm() -> None:
    live, candidate = served(5000, ms=[0.2] * 5000), served(500, ms=[1.0] * 500)
    assert read(RELATIVE, candidate, live).verdict is Verdict.OK


def test_a_candidate_ten_times_slower_than_live_causes_an_alarm_at_minimum_traffic() -> None:
    live, candidate = served(200, ms=[3] * 200), served(20, ms=[30] * 20, workers=2)
    reading = read(RELATIVE, candidate, live)
    assert reading.verdict is Verdict.ALARM
    assert "200 % of the live release's" in reading.sentence


def test_a_slowdown_of_both_releases_causes_no_alarm() -> None:
    spell = [*[3] * 900, *[400] * 100]
    assert read(RELATIVE, served(1000, ms=spell), served(1000, ms=spell)).verdict is Verdict.OK


def test_an_alarm_outranks_a_verdict_of_not_enough_data() -> None:
    everything = AlarmSettings(1, 20, p99_ms=50, p99_relative_percent=200)
    assert read(everything, served(30, 30)).verdict is Verdict.ALARM
    unknown = read(everything, served(30, 0))
    assert unknown.verdict is Verdict.NOT_ENOUGH_DATA
    assert unknown.sentence.count(";") == 1, "p99 and relative p99, both"


# -- the windows ------------------------------------------------------------------------------------------------------


class Sight:
    """Traffic as set by the test."""

    def __init__(self) -> None:
        self.window = TrafficWindow(served(1000, 500, [900] * 1000))

    async def look(self) -> TrafficWindow:
        return self.window

    def serve(self, requests: int, failed: int = 0, ms: float = 1) -> None:
        before = self.window.candidate
        more = latencies([ms] * requests)
        self.window = TrafficWindow(
            ReleaseTraffic(before.requests + requests, before.failed + failed, before.latency + more)
        )


def test_earlier_traffic_is_ignored_and_late_failures_show_in_the_last_seconds() -> None:
    sight, clock = Sight(), FakeClock()
    watch = CandidateWatch(sight.look, clock)

    async def story() -> None:
        await watch.begin()
        assert (await watch.read(AlarmSettings(10, 20))).verdict is Verdict.NOT_ENOUGH_DATA
        for _ in range(400):
            await clock.sleep(ALARM_PERIOD_S)
            sight.serve(100)
            assert (await watch.read(AlarmSettings(10, 20))).verdict is Verdict.OK
        verdicts: list[Verdict] = []
        while not verdicts or verdicts[-1] is not Verdict.ALARM:
            await clock.sleep(ALARM_PERIOD_S)
            sight.serve(100, 100)
            reading = await watch.read(AlarmSettings(10, 20))
            verdicts.append(reading.verdict)
        assert len(verdicts) * ALARM_PERIOD_S < RECENT_S / 4, "the whole bake would need eleven seconds"
        assert reading.figures["requests"] == pytest.approx(100 * RECENT_S / ALARM_PERIOD_S, rel=0.05)

    asyncio.run(story())


def test_only_the_readings_of_the_last_seconds_are_kept() -> None:
    sight, clock = Sight(), FakeClock()
    watch = CandidateWatch(sight.look, clock)

    async def story() -> None:
        await watch.begin()
        for _ in range(1000):
            await clock.sleep(ALARM_PERIOD_S)
            await watch.read(AlarmSettings())

    asyncio.run(story())
    assert len(watch._seen) <= RECENT_S / ALARM_PERIOD_S + 2
