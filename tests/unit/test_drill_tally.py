"""Sums, slots, phases and releases."""

from __future__ import annotations

import pytest

from hitless.drill.tally import FAILED, Tally, percentiles_ms, slot_s
from hitless.drill.timeline import Timeline
from hitless.drill.wire import FAILURE_CODE, RECORD, FailureKind, Flag

pytestmark = pytest.mark.unit
S = 1_000_000


def record(
    due_s: float,
    *,
    latency_ms: float = 1.0,
    lag_us: int = 0,
    age_us: int = 0,
    release: int = 1,
    index: int = 0,
    status: int = 200,
    failure: FailureKind | None = None,
    flags: int = Flag.COMPLETE,
) -> bytes:
    code = FAILURE_CODE[failure] if failure else 0
    return RECORD.pack(int(due_s * S), int(latency_ms * 1000), lag_us, age_us, release, index, status, code, flags)


def fresh(timeline: Timeline | None = None) -> Tally:
    return Tally(slot_s=1.0, deadline_s=10, timeline=timeline or Timeline())


def test_every_request_counts_as_answered_or_failed() -> None:
    tally = fresh()
    tally.add(
        record(0.1) + record(0.2, failure=FailureKind.STATUS_5XX, status=503) + record(0.3, failure=FailureKind.TIMEOUT)
    )
    assert (tally.requests, tally.answered, tally.failed) == (3, 1, 2)
    assert tally.statuses == {(0, 200): 2, (0, 503): 1}


def test_a_correcting_record_turns_a_response_into_a_failure() -> None:
    tally = fresh()
    tally.add(record(0.1))
    tally.add(record(0.1, failure=FailureKind.WRONG_LENGTH, flags=Flag.AMENDED))
    assert (tally.requests, tally.answered, tally.failed) == (1, 0, 1)


def test_unsent_requests_count_as_failed() -> None:
    tally = fresh()
    tally.add_unsent(3 * S, 7)
    assert (tally.requests, tally.failed, tally.failures[FailureKind.NOT_SENT].count) == (7, 7, 7)


def test_a_request_that_overlaps_a_rollout_counts_as_sent_during_it() -> None:
    timeline = Timeline()
    tally = fresh(timeline)
    window = timeline.open("release 2", 2 * S)
    window.end_us = 3 * S
    tally.add(record(1.0, latency_ms=500))  # over before
    tally.add(record(1.9, latency_ms=500))  # under way when it began
    tally.add(record(2.5))
    tally.add(record(2.999, latency_ms=500))
    tally.add(record(3.0))
    tally.finish()
    assert tally.steady.get_total_count() == 2
    assert tally.releasing.get_total_count() == 3


def test_a_fault_within_a_rollout_does_not_end_the_rollouts_window() -> None:
    timeline = Timeline()
    rollout = timeline.open("release 2", 0)
    fault = timeline.open("kill-worker", S, fault=True)
    fault.end_us = 2 * S
    assert timeline.find(int(1.5 * S), int(1.6 * S)) is fault
    assert timeline.find(3 * S, 4 * S) is rollout
    rollout.end_us = 5 * S
    assert timeline.find(6 * S, 7 * S) is None


def test_a_kind_of_failure_has_its_first_instant_and_its_rollout() -> None:
    timeline = Timeline()
    tally = fresh(timeline)
    window = timeline.open("release 2 (good)", 2 * S)
    tally.add(record(2.5, failure=FailureKind.CONNECTION_RESET, release=0, flags=Flag.REUSED))
    tally.add(record(2.2, failure=FailureKind.CONNECTION_RESET, release=0, flags=0))
    seen = tally.failures[FailureKind.CONNECTION_RESET]
    assert (seen.count, seen.first_us) == (2, int(2.2 * S))
    assert seen.during is window
    assert (window.failed, window.failed_without_release) == (2, 2)


def test_responses_are_counted_by_release_and_epoch() -> None:
    timeline = Timeline()
    tally = fresh(timeline)
    tally.add(record(0.5, release=1))
    timeline.open("a", 1 * S).end_us = 2 * S
    tally.add(record(1.5, release=2) + record(2.5, release=2))
    timeline.open("b", 3 * S)
    tally.add(record(3.5, release=1) + record(0.7, release=1))
    assert tally.answers == {(1, 0): 2, (2, 1): 2, (1, 2): 1}


def test_a_time_slot_counts_failures_and_responses_without_a_release_separately() -> None:
    tally = fresh()
    tally.add(record(0.1, release=0) + record(0.2, release=0, failure=FailureKind.TIMEOUT) + record(0.3, release=4))
    tally.add_unsent(0, 2)
    assert tally.slots[0].by_release == {0: 1, FAILED: 3, 4: 1}


def test_a_closed_time_slot_keeps_percentiles_but_no_latencies() -> None:
    tally = fresh()
    for place in range(100):
        tally.add(record(0.001 * place, latency_ms=place + 1))
    assert tally.slots[0].p99_ms is None
    tally.add(record(14.0))
    slot = tally.slots[0]
    assert (slot.p50_ms, slot.p99_ms, slot.max_ms) == (51, 100, 100)
    assert len(slot.steady_us) == 0
    tally.add(record(0.5, latency_ms=5))  # from a sender that fell behind
    tally.finish()
    assert len(slot.steady_us) == 0
    assert tally.steady.get_total_count() == 102


def test_a_request_without_a_complete_response_has_no_latency() -> None:
    tally = fresh()
    tally.add(record(0.1, failure=FailureKind.TIMEOUT, flags=0, latency_ms=10_000))
    tally.finish()
    assert percentiles_ms(tally.steady, [("p50", 50)]) == {"p50": None}


def test_latency_percentiles_are_in_milliseconds() -> None:
    tally = fresh()
    tally.add(b"".join(record(0.1, latency_ms=place) for place in range(1, 101)))
    tally.finish()
    assert percentiles_ms(tally.steady, [("p50", 50), ("max", 100)]) == {
        "p50": pytest.approx(50, rel=0.002),
        "max": pytest.approx(100, rel=0.002),
    }


@pytest.mark.parametrize("duration_s", [1, 30, 31, 120, 3_600, 18_000, 86_400])
def test_the_number_of_time_slots_is_bounded(duration_s: float) -> None:
    assert duration_s / slot_s(duration_s) <= 3_600
