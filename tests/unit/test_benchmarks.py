"""The pure parts of the benchmarks: output of tools, parts of a deploy, medians, ratios and goals."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.deploys import instant, timing_of
from benchmarks.figures import Bound, Figure, Goal, Section, Spread, missed
from benchmarks.footprint import FEW, MANY, cpu_percent, further_mib
from benchmarks.growth import bend, section, sizes
from benchmarks.load import parse_h2load, parse_wrk
from benchmarks.machine import BenchmarkError
from benchmarks.processes import Process, cpu_ticks, descendants, pss_mib
from benchmarks.pushes import timing_of as pushed
from benchmarks.releasing import section as latencies
from benchmarks.site import Ran
from benchmarks.sized import AXES

pytestmark = pytest.mark.unit

WRK = """Running 3s test @ http://127.0.0.1:34803/hello
  2 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.81ms    1.10ms   9.90ms   72.78%
    Req/Sec     5.75k     1.12k    9.27k    86.67%
  Latency Distribution
     50%    2.68ms
     75%    3.32ms
     90%    4.16ms
     99%    6.61ms
  34331 requests in 3.00s, 7.56MB read
Requests/sec:  11426.26
Transfer/sec:      2.52MB
"""

H2LOAD = """starting benchmark...
finished in 4.00s, 22357.33 req/s, 4.93MB/s
requests: 67072 total, 67072 started, 67072 done, 67072 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 67072 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 14.78MB (15493632) total, 12.49MB (13095789) headers (space savings 0.00%), 3.82MB (4008915) data
"""


def ran(states: dict[str, str], *, outcome: str = "live") -> Ran:
    """A deploy that began at second 0 of the epoch; state → time of its step."""
    steps = [{"at": f"1970-01-01T00:00:{at}Z", "state": state} for state, at in states.items()]
    document: Any = {"outcome": outcome, "reason": "why", "steps": steps}
    return Ran(document, 0.0, 1.0, ((0.3, "built 1 artifact in 0.05 s"), (0.4, "preparing")))


STEPS = {"preparing": "00.400", "testing": "00.550", "shifting": "00.600"}


def test_the_rate_and_p99_are_read_from_wrks_output() -> None:
    load = parse_wrk(WRK)
    assert (load.requests_per_s, load.requests, load.p99_ms) == (11426.26, 34331, 6.61)


@pytest.mark.parametrize(("shown", "p99_ms"), [("812.00us", 0.812), ("1.20s", 1200.0), ("2.00m", 120_000.0)])
def test_wrks_times_are_read_in_every_unit(shown: str, p99_ms: float) -> None:
    assert parse_wrk(WRK.replace("99%    6.61ms", f"99%  {shown}")).p99_ms == pytest.approx(p99_ms)


@pytest.mark.parametrize(
    "trouble", ["  Socket errors: connect 0, read 3, write 0, timeout 0\n", "  Non-2xx or 3xx responses: 7\n"]
)
def test_a_run_of_wrk_with_a_failed_request_is_an_error(trouble: str) -> None:
    with pytest.raises(BenchmarkError, match=r"read 3|responses: 7"):
        parse_wrk(WRK.replace("Requests/sec", f"{trouble}Requests/sec"))


def test_the_rate_is_read_from_h2loads_output() -> None:
    assert parse_h2load(H2LOAD).requests_per_s == 22357.33


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("0 failed", "2 failed"),
        ("0 timeout", "1 timeout"),
        ("67072 2xx, 0 3xx, 0 4xx, 0 5xx", "67000 2xx, 0 3xx, 0 4xx, 72 5xx"),
        ("67072 succeeded", "0 succeeded"),
    ],
)
def test_a_run_of_h2load_with_a_failed_request_is_an_error(right: str, wrong: str) -> None:
    assert right in H2LOAD
    with pytest.raises(BenchmarkError):
        parse_h2load(H2LOAD.replace(right, wrong))


def test_the_timed_parts_of_a_deploy_add_up_to_its_duration() -> None:
    timing = timing_of(ran(STEPS))
    assert timing.pop("to_100_percent") == pytest.approx(0.6)
    assert timing.pop("to_end") == pytest.approx(1.0)
    assert sum(timing.values()) == pytest.approx(1.0)
    assert timing["start"] == pytest.approx(0.25)
    assert timing["pools"] == pytest.approx(0.15)


def test_timing_a_deploy_that_did_not_go_live_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="rolled_back: why"):
        timing_of(ran(STEPS, outcome="rolled_back"))


def test_timing_a_deploy_with_a_missing_step_is_an_error_that_names_it() -> None:
    with pytest.raises(BenchmarkError, match="no testing"):
        timing_of(ran({state: at for state, at in STEPS.items() if state != "testing"}))


PUSHED: dict[str, Any] = {
    "run": 7,
    "state": "succeeded",
    "reason": None,
    "log": "== test\n[Container] echo …\ntests began 1764032402.00\n3 passed\ntests ended 1764032406.00\n",
    "steps": [
        {"name": "source", "started_at": "2025-11-25T01:00:01.000Z", "duration_s": 0.02, "detail": {}},
        {"name": "test", "started_at": "2025-11-25T01:00:01.000Z", "duration_s": 5.0, "detail": {}},
        {"name": "build", "started_at": "2025-11-25T01:00:06.000Z", "duration_s": 0.5, "detail": {}},
        {
            "name": "deploy",
            "started_at": "2025-11-25T01:00:07.000Z",
            "duration_s": 1.5,
            "detail": {"steps": [{"state": "shifting", "at": "2025-11-25T01:00:08.000Z"}]},
        },
    ],
}


def test_a_pushs_timing_ends_when_traffic_moves_and_shows_the_tests_separately() -> None:
    began_at = instant({"at": "2025-11-25T01:00:00.000Z"})
    timing = pushed(PUSHED, began_at, began_at + 9)
    whole = {"beyond_tests": 4.0, "to_live": 8.0, "tests": 4.0, "push_to_end": 9.0}
    assert timing == pytest.approx({**whole, "taken": 1.0, "around": 1.0, "build": 0.5, "shifted": 1.0})


@pytest.mark.parametrize("wrong", [{"state": "failed"}, {"log": "tests began 1.0\n"}, {"steps": PUSHED["steps"][:3]}])
def test_timing_a_push_that_did_not_go_live_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(BenchmarkError, match="run 7"):
        pushed({**PUSHED, **wrong}, 0.0, 9.0)


def test_a_ratio_is_computed_round_by_round() -> None:
    ratio = Spread.of_ratios([10, 30, 8], [10, 15, 10])
    assert ratio.rounds == (1.0, 2.0, 0.8)
    assert (ratio.median, ratio.least, ratio.greatest) == (1.0, 0.8, 2.0)
    assert ratio.text(1) == "1.0 (0.8–2.0)"
    assert Spread.of([1234.5]).text(0) == "1,234"


def test_a_ratio_needs_equally_many_rounds_and_no_zero() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Spread.of_ratios([1, 2], [1])
    with pytest.raises(ValueError, match="ratio of 0"):
        Spread.of_ratios([1], [0])
    with pytest.raises(ValueError, match="needs a round"):
        Spread.of([])


def test_the_median_decides_whether_a_goal_is_met() -> None:
    fast = Figure("a", "fast", "×", Spread.of([0.4, 0.6, 0.9]), goal=Goal(Bound.AT_LEAST, 0.5))
    slow = Figure("b", "slow", "s", Spread.of([0.5, 1.2, 1.3]), goal=Goal(Bound.AT_MOST, 1))
    plain = Figure("c", "plain", "s", Spread.of([3]))
    section = Section("title", "how", (fast, slow, plain))
    assert missed([section]) == [slow]
    text = section.text()
    assert "goal ≥ 0.5: met" in text
    assert "goal ≤ 1: MISSED" in text
    document = section.to_json()
    assert (document["a"]["met"], document["b"]["met"], "met" in document["c"]) == (True, False, False)
    assert document["a"]["rounds"] == [0.4, 0.6, 0.9]


def test_all_descendants_of_a_process_and_no_others_are_found() -> None:
    assert set(descendants([10], {10: 1, 11: 10, 12: 11, 20: 1, 21: 20})) == {10, 11, 12}


def test_memory_and_cpu_time_are_parsed_from_proc_files() -> None:
    assert pss_mib("55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss: 9000 kB\nPss:  2048 kB\nPss_Anon: 1 kB\n") == 2.0
    assert cpu_ticks("7 (a) b (c) S 1 7 7 0 -1 0 0 0 0 0 30 12 5 3 20 0") == 50


def test_a_further_workers_memory_is_the_average_growth_per_worker() -> None:
    few = [Process(1, "zygote", 10.0, 0)]
    many = [Process(1, "zygote", 4.0, 0), Process(2, "worker", 6.0 + 3.0 * (MANY - FEW), 0)]
    assert further_mib(many, few) == pytest.approx(3.0)


def test_idle_cpu_is_the_processor_time_between_two_readings() -> None:
    before, after = [Process(1, "a", 1, 5.0)], [Process(1, "a", 1, 5.1), Process(2, "b", 1, 0.2)]
    assert cpu_percent(before, after, 10.0) == pytest.approx({1: 1.0, 2: 2.0})


@pytest.mark.parametrize(("last", "above"), [(110.0, 1.0), (220.0, 2.0), (55.0, 0.5)])
def test_growth_is_compared_with_the_line_through_the_smaller_sizes(last: float, above: float) -> None:
    assert bend([0, 50, 100], [10.0, 60.0, last]) == pytest.approx(above)


def test_a_cost_that_does_not_grow_is_not_compared_with_less_than_it_was() -> None:
    assert bend([1, 50, 100], [2.0, 1.0, 2.1]) == pytest.approx(1.05)


def test_growth_names_the_cost_of_a_hundred_more_and_misses_its_goal_if_it_is_worse_than_linear() -> None:
    found = section("routes", {1: {"deploy_s": 1.0}, 101: {"deploy_s": 2.0}, 201: {"deploy_s": 9.0}})
    slope = next(figure for figure in found.figures if figure.key == "deploy_s_slope")
    assert slope.spread.median == pytest.approx(4.0)
    assert [figure.key for figure in missed([found])] == ["deploy_s_bend"]


@pytest.mark.parametrize("most", [1, 4, 60, 10_000])
def test_growth_has_at_least_three_sizes(most: int) -> None:
    assert len(sizes(most)) == 4
    assert sizes(most)[-1] >= most


def test_growth_by_services_has_whole_services_and_ends_at_twenty() -> None:
    axis = next(one for one in AXES if one.key == "stages")
    assert sizes(axis.most, axis.step) == [3, 21, 42, 60]
    assert sizes(axis.most // 2, axis.step) == [3, 12, 21, 30]


def test_a_request_that_is_open_while_a_release_ships_counts_as_sent_meanwhile() -> None:
    between = [(100.0 + n / 100, 200, 1.0) for n in range(90)]
    meanwhile = [(100.99, 200, 20.0), (101.1, 200, 6.0), (101.2, 503, 6.0)]
    outside = [(90.0, 200, 900.0)]
    figures = {
        figure.key: figure.spread.median
        for figure in latencies([*between, *meanwhile, *outside], [(101.0, 101.5)], 10).figures
    }
    assert figures["steady_p99_ms"] == 1.0
    assert figures["releasing_p99_ms"] == 6.0
    assert figures["ratio"] == 6.0
    assert figures["failed"] == 1
    assert figures["release_s"] == 0.5


def test_latencies_need_requests_in_both_states() -> None:
    with pytest.raises(BenchmarkError, match="no request"):
        latencies([(101.1, 200, 6.0)], [(101.0, 101.5)], 10)
