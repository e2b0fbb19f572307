"""The scaler's decision: adds workers at once, removes them slowly, stays within limits, and gives its reason."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from hitless.errors import MachineError
from hitless.scaling.bounds import FIRST_GUESS_MB, Bounds, bounds_of, budget_mb, room_for, taken_mb, throttle_of
from hitless.scaling.decide import Decision, LoadHistory, PoolLoad, ScaleInPace, decide
from hitless.service.model import Function

pytestmark = pytest.mark.unit

BOUNDS = Bounds(1, 32, 70)
NOTHING = PoolLoad(0.0, 0, 0, None, 0.05)


def load(busy: float, waiting: int = 0, *, service_s: float | None = 0.005, took_s: float = 0.05) -> PoolLoad:
    return PoolLoad(busy, waiting, round(busy * took_s / (service_s or 1)), service_s, took_s)


def looks(
    each: PoolLoad,
    *,
    workers: int,
    seconds: float,
    bounds: Bounds = BOUNDS,
    memory: LoadHistory | None = None,
    now_s: float = 0,
) -> tuple[int, Decision]:
    """Repeats the same load for a while and carries out each decision; the number of workers and the last decision."""
    decision = Decision(workers, "", memory or LoadHistory())
    for tick in range(round(seconds / each.took_s)):
        at = now_s + tick * each.took_s
        decision = decide(bounds, decision.workers, each, decision.history, now_s=at, pace=ScaleInPace())
    return decision.workers, decision


def decided(workers: int, each: PoolLoad, *, bounds: Bounds = BOUNDS, room: int | None = None) -> Decision:
    """The decision if as many requests waited at the previous reading."""
    return decide(bounds, workers, each, LoadHistory(waiting=each.waiting), now_s=0, room=room, pace=ScaleInPace())


def test_workers_are_added_at_once_to_clear_a_queue() -> None:
    decision = decided(1, load(1.0, waiting=140))
    assert decision.workers == 22
    assert decision.reason == "1.0 busy and 140 waiting, target 70 %"


def test_a_flash_crowd_gets_its_workers_at_the_first_reading() -> None:
    crowd = load(1.0, waiting=90)
    assert decide(BOUNDS, 1, crowd, LoadHistory(), now_s=0, pace=ScaleInPace()).workers == 28
    assert decide(BOUNDS, 1, crowd, LoadHistory(waiting=60), now_s=0, pace=ScaleInPace()).workers == 19


def test_each_waiting_request_of_a_slow_function_gets_a_worker() -> None:
    assert decided(4, load(4.0, waiting=10, service_s=1.0)).workers == 20
    assert decided(4, load(4.0, waiting=10, service_s=None)).workers == 20


def test_waiting_requests_of_a_fast_function_add_no_workers() -> None:
    assert decided(2, load(1.9, waiting=60, service_s=0.0001)).workers == 2


def test_the_target_holds_for_the_average_and_a_short_peak_only_needs_enough_workers() -> None:
    assert decided(8, load(7.5)).workers == 8
    assert looks(load(7.5), workers=8, seconds=10)[0] == 11


def test_workers_are_removed_only_after_a_whole_window_and_a_few_at_a_time() -> None:
    workers, busy = looks(load(14.0), workers=20, seconds=10)
    assert workers == 20
    still, quiet = looks(load(0.5), workers=20, seconds=59, memory=busy.history, now_s=10)
    assert (still, quiet.reason) == (20, "at most 20 workers were needed in the last 60 s")
    sizes = [still]
    for second in range(80):
        quiet = decide(BOUNDS, quiet.workers, load(0.5), quiet.history, now_s=69.0 + second, pace=ScaleInPace())
        sizes.append(quiet.workers)
    assert sizes[-1] == 1
    assert max(before - after for before, after in pairwise(sizes)) == 3
    told = [decide(BOUNDS, 20, load(0.5), LoadHistory(needs=((0, 1), (60, 1))), now_s=60, pace=ScaleInPace()).reason]
    assert told == ["at most 1 worker was needed in the last 60 s"]


def test_a_pool_without_history_keeps_its_size_for_a_window() -> None:
    workers, decision = looks(load(0.5), workers=20, seconds=59)
    assert (workers, decision.reason) == (20, "1 worker would be enough, if the load stays as low")


def test_a_small_surplus_of_workers_is_kept_unless_only_the_minimum_is_needed() -> None:
    memory = LoadHistory(needs=((0.0, 9), (60.0, 9)), mean=6.3)
    assert decide(BOUNDS, 10, load(6.3), memory, now_s=60, pace=ScaleInPace()).workers == 10
    assert decide(replace(BOUNDS, least=9), 10, load(6.3), memory, now_s=60, pace=ScaleInPace()).workers == 9


def test_an_idle_function_may_sleep_and_any_request_keeps_one_worker() -> None:
    sleepy = Bounds(0, 8, 70)
    assert looks(NOTHING, workers=1, seconds=62, bounds=sleepy)[0] == 0
    brief = PoolLoad(0.0, 0, 1, 0.0001, 0.05)
    assert decide(sleepy, 0, brief, LoadHistory(), now_s=0, pace=ScaleInPace()).workers == 1
    assert looks(brief, workers=1, seconds=120, bounds=sleepy)[0] == 1


def test_the_minimum_runs_without_load() -> None:
    decision = decided(2, NOTHING, bounds=Bounds(5, 9, 70))
    assert (decision.workers, decision.reason) == (5, "at least 5 workers are kept at all times")


def test_the_reason_names_the_maximum_if_more_are_needed() -> None:
    decision = decided(4, load(4.0, waiting=500, service_s=0.1))
    assert (decision.workers, decision.reason.split(", ")[-1]) == (32, "the maximum")
    again = decided(32, load(32.0, waiting=500, service_s=0.1))
    assert (again.workers, again.reason) == (32, "760 needed, 32 allowed at most")


def test_workers_beyond_the_memory_budget_are_refused_with_the_reason() -> None:
    decision = decided(4, load(4.0, waiting=10, service_s=1.0), room=3)
    assert (decision.workers, decision.refused) == (7, True)
    assert decision.reason == (
        "4.0 busy and 10 waiting, target 70 %: needs 20 workers, but the engine's memory has room for 7"
    )
    assert decided(4, load(4.0, waiting=10, service_s=1.0), room=0).workers == 4
    assert not decided(4, load(4.0, waiting=10, service_s=1.0), room=16).refused


@given(
    least=st.integers(0, 20),
    more=st.integers(0, 40),
    target=st.integers(10, 100),
    start=st.integers(0, 60),
    seen=st.lists(
        st.tuples(st.floats(0, 200), st.integers(0, 5000), st.integers(0, 9), st.none() | st.floats(1e-5, 30)),
        max_size=40,
    ),
    every_s=st.sampled_from([0.05, 1.0, 7.0]),
    room=st.none() | st.integers(0, 30),
)
def test_the_number_of_workers_stays_within_its_limits_and_has_a_reason(
    least: int,
    more: int,
    target: int,
    start: int,
    seen: list[tuple[float, int, int, float | None]],
    every_s: float,
    room: int | None,
) -> None:
    bounds = Bounds(least, max(least + more, 1), target)
    workers, memory = bounds.clamp(start), LoadHistory()
    for index, (busy, waiting, ended, service_s) in enumerate(seen):
        each = PoolLoad(busy, waiting, ended, service_s, every_s)
        decision = decide(bounds, workers, each, memory, now_s=index * every_s, room=room, pace=ScaleInPace(2.0, 0.2))
        assert bounds.least <= decision.workers <= bounds.most
        assert decision.workers <= workers + (bounds.most if room is None else room)
        assert decision.reason
        workers, memory = decision.workers, decision.history
        assert len(memory.needs) <= 5


def function(**changes: object) -> Function:
    return structs.replace(Function("api", "a.b", workers=2), **changes)


@pytest.mark.parametrize(
    ("given_function", "least", "most"),
    [
        (function(), 2, 2),
        (function(max_workers=8), 2, 8),
        (function(workers=0, max_workers=8), 0, 8),
        (function(provisioned_concurrency=5), 5, 5),
        (function(max_workers=8, provisioned_concurrency=5), 5, 8),
        (function(max_workers=8, provisioned_concurrency=20), 20, 20),
        (function(max_workers=8, reserved_concurrency=3), 2, 3),
        (function(max_workers=8, provisioned_concurrency=5, reserved_concurrency=3), 3, 3),
        (function(reserved_concurrency=0), 1, 1),
        (function(max_workers=8, reserved_concurrency=500), 2, 8),
        (function(provisioned_concurrency=90_000), 1000, 1000),
    ],
)
def test_limits_follow_lambdas_concurrency_settings(given_function: Function, least: int, most: int) -> None:
    bounds = bounds_of(given_function)
    assert (bounds.least, bounds.most) == (least, most)
    assert bounds.fixed == (least == most)


def test_with_reserved_concurrency_two_requests_may_wait_per_running_one() -> None:
    assert throttle_of(function()) == 0
    assert throttle_of(function(reserved_concurrency=2)) == 7
    assert throttle_of(function(reserved_concurrency=0)) == 1


def test_the_memory_budget_is_the_setting_or_a_share_of_the_machine() -> None:
    assert budget_mb(500, 8000) == 500
    assert budget_mb(None, 8000) == 6000
    assert budget_mb(None, None) is None


def test_the_free_memory_budget_is_counted_in_workers_of_the_given_size() -> None:
    taken = taken_mb(10, 20.0) + taken_mb(2)
    assert room_for(10.0, 332.0, taken) == (332 - 200 - 2 * FIRST_GUESS_MB) // 10
    assert room_for(10.0, 100.0, taken) == 0
    assert room_for(0.0, 300.0, taken_mb(100, 0.0)) == 50
    assert room_for(10.0, None, taken) is None


def test_the_scale_in_window_comes_from_the_environment_and_invalid_values_are_refused() -> None:
    assert ScaleInPace.of({}) == ScaleInPace()
    assert ScaleInPace.of({"HITLESS_SCALE_IN_AFTER_S": "2"}) == ScaleInPace(2.0, 0.2)
    for text in ("soon", "0", "nan", "1e9"):
        with pytest.raises(MachineError, match="HITLESS_SCALE_IN_AFTER_S"):
            ScaleInPace.of({"HITLESS_SCALE_IN_AFTER_S": text})
