"""The scaler on virtual time: it follows crowds, leaves constant load alone, and keeps its limits."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from benchmarks.scaling.plot import figures_of, plot_of
from benchmarks.scaling.scenarios import SCENARIOS, LoadScenario, ramp, steps
from benchmarks.scaling.simulator import SimulatedRun, Workload, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

from hitless.scaling.bounds import Bounds
from hitless.scaling.decide import ScaleInPace

pytestmark = pytest.mark.unit

PACE = ScaleInPace()
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def outcome_of(scenario: LoadScenario, seed: int = 1) -> SimulatedRun:
    return simulate(scenario.workload, scenario.bounds, workers=scenario.workers, pace=PACE, seed=seed)


def sizes(outcome: SimulatedRun, since_s: float = 0, until_s: float = float("inf")) -> list[int]:
    return [sample.workers for sample in outcome.samples if since_s <= sample.at_s < until_s]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.name))
def test_no_request_of_any_scenario_times_out_and_no_limit_is_exceeded(scenario: LoadScenario) -> None:
    outcome = outcome_of(scenario)
    assert outcome.timed_out == 0
    assert outcome.requests > 40
    assert all(scenario.bounds.least <= workers <= scenario.bounds.most for workers in sizes(outcome))
    assert all(sample.reason for sample in outcome.samples)


@pytest.mark.parametrize("seed", range(3))
def test_a_flash_crowd_has_its_workers_within_250_ms(seed: int) -> None:
    scenario = BY_NAME["flash-crowd"]
    outcome = outcome_of(scenario, seed)
    needed = 3000 * 0.005 / 0.7
    assert min(sizes(outcome, 10.25, 30)) >= needed
    assert outcome.wait_s(100, 10) < 0.3
    assert outcome.wait_s(99.9, 11, 30) < 0.05
    assert sizes(outcome)[-1] <= 2


@pytest.mark.parametrize("seed", range(3))
def test_constant_load_never_makes_the_number_of_workers_swing(seed: int) -> None:
    outcome = outcome_of(BY_NAME["constant"], seed)
    settled = sizes(outcome, 1)
    turns = sum(1 for before, after in pairwise(settled) if after != before)
    assert turns <= 8
    assert max(settled) <= 2 * 400 * 0.01 / 0.7 + 1
    assert min(settled) >= 400 * 0.01


def test_regular_load_changes_nothing_once_it_has_enough_workers() -> None:
    workload = Workload(steps((0, 400)), 0.01, 200, poisson=False, steady=True)
    outcome = simulate(workload, Bounds(1, 32, 70), workers=1, pace=PACE)
    assert len(set(sizes(outcome, 70))) == 1
    assert outcome.wait_s(100, 1) == pytest.approx(0, abs=1e-6)


def test_workers_are_removed_one_window_after_the_crowd_and_a_few_at_a_time() -> None:
    outcome = outcome_of(BY_NAME["flash-crowd"])
    assert min(sizes(outcome, 31, 70)) == 32
    falls = [before - after for before, after in pairwise(sizes(outcome, 70)) if after < before]
    assert sum(falls) >= 30
    assert max(falls) <= 8


def test_a_sleeping_function_delays_its_first_request_but_answers_it() -> None:
    outcome = outcome_of(BY_NAME["sleep"])
    assert sizes(outcome, 80, 100) == [0] * len(sizes(outcome, 80, 100))
    assert [at for at, _ in outcome.waits_s if at >= 110]


def test_little_memory_limits_the_number_of_workers() -> None:
    scenario = BY_NAME["flash-crowd"]
    outcome = simulate(scenario.workload, scenario.bounds, workers=1, pace=PACE, room=20)
    assert outcome.peak == 20
    assert any("has room for 20" in sample.reason for sample in outcome.samples)


@settings(max_examples=12, deadline=None)
@given(
    low=st.floats(0, 50),
    high=st.floats(50, 600),
    service_s=st.floats(0.001, 0.3),
    least=st.integers(0, 4),
    most=st.integers(4, 200),
    target=st.integers(40, 90),
    seed=st.integers(0, 5),
)
def test_no_request_fails_with_an_ample_limit_under_any_load(
    low: float, high: float, service_s: float, least: int, most: int, target: int, seed: int
) -> None:
    workload = Workload(ramp(low, high, 2, 6), service_s, 10)
    outcome = simulate(workload, Bounds(least, most, target), workers=least, pace=ScaleInPace(2.0, 0.2), seed=seed)
    assert all(least <= workers <= max(most, 1) for workers in sizes(outcome))
    if most >= 2 * high * service_s / (target / 100) + 4:
        assert outcome.timed_out == 0


@settings(max_examples=12, deadline=None)
@given(
    crowd=st.floats(200, 3000),
    service_s=st.floats(0.002, 0.05),
    target=st.integers(40, 90),
    seed=st.integers(0, 99),
)
def test_any_crowd_within_the_limit_is_cleared_within_two_seconds(
    crowd: float, service_s: float, target: int, seed: int
) -> None:
    workload = Workload(steps((0, 20), (2, crowd)), service_s, 5)
    outcome = simulate(workload, Bounds(1, 400, target), workers=1, pace=PACE, seed=seed)
    assert outcome.timed_out == 0
    assert outcome.wait_s(99, 4) < 0.05


def test_the_plot_has_a_panel_for_load_workers_and_waiting_requests() -> None:
    outcome = outcome_of(BY_NAME["step"])
    svg = plot_of(outcome)
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert [one.get("class") for one in root if one.tag.startswith("pol")] == [
        "area",
        "line busy",
        "line",
        "area waiting",
    ]
    assert "href" not in svg
    assert figures_of(outcome)[:2] == (f"{outcome.requests:,}", "0")
