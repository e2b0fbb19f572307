"""A rehearsal's comparisons, verdicts and load."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from hitless.drill.requests import DrillRequest
from hitless.pipeline.rehearsal import judge, plan
from hitless.pipeline.rehearsal.compare import SampledResponse, differences
from hitless.pipeline.rehearsal.judge import Crowd, Measured, Percentiles
from hitless.pipeline.rehearsal.recorded import Routes
from hitless.pipeline.rehearsal.rehearse import CANDIDATE_STAGE, Rehearsal
from hitless.pipeline.rehearsal.report import ChangedRoute, RehearsalReport, RolloutReport, render
from hitless.release.document import ReleaseDocument
from hitless.release.result import SideCounts
from hitless.service.event_sources import Route
from hitless.service.model import AlarmSettings, Function, RehearsalSettings, SmokeRequest
from hitless.service.strategy import parse, weights
from tests.fakes import release_document

pytestmark = pytest.mark.unit


def answers(*bodies: Any, status: int = 200) -> list[SampledResponse]:
    return [SampledResponse(status, body, True) for body in bodies]


def said(live: list[SampledResponse], candidate: list[SampledResponse]) -> list[tuple[str, bool]]:
    return [(str(one), one.breaks) for one in differences(live, candidate)]


@pytest.mark.parametrize(
    ("live", "candidate", "expected"),
    [
        ({"a": 1}, {"a": 2.5}, []),
        ({"a": 1}, {}, [("a is gone", True)]),
        ({"a": 1}, {"a": "1"}, [("a was a number, is a string", True)]),
        ({"a": True}, {"a": 1}, [("a was a boolean, is a number", True)]),
        ({"a": 1}, {"a": 1, "b": {"c": 1}}, [("b is new", False)]),
        ({"a": {"b": {"c": 1}}}, {"a": {}}, [("a.b is gone", True)]),
        ({"l": [{"id": 1, "x": 1}]}, {"l": [{"id": 1}]}, [("l[].x is gone", True)]),
        ({"l": [{"id": 1}]}, {"l": []}, []),
        ({"a": None}, {"a": "x"}, [("a was null, is a string", False)]),
        ({"a": "x"}, {"a": None}, [("a was a string, is null", True)]),
        ([1, 2], {"items": []}, [("the body was a list, is an object", True), ("items is new", False)]),
    ],
)
def test_responses_are_compared_field_by_field(live: Any, candidate: Any, expected: list[tuple[str, bool]]) -> None:
    assert said(answers(live), answers(candidate)) == expected


def test_variation_within_a_release_is_not_a_difference() -> None:
    assert said(answers({"a": 1, "b": 1}, {"a": None}), answers({"a": None}, {"a": 3, "b": 2})) == []


def test_a_field_that_became_optional_counts_as_removed() -> None:
    assert said(answers({"a": 1}, {"a": 1}), answers({"a": 1}, {})) == [("a is gone", True)]


def test_a_changed_status_and_a_body_that_is_no_longer_json_are_breaking_changes() -> None:
    assert said(answers({}), answers({}, status=201)) == [("the status was 200, is 201", True)]
    assert said(answers({}), [SampledResponse.of(200, b"<html>")]) == [("the body was JSON, is not", True)]
    assert said([SampledResponse.of(200, b"plain")], [SampledResponse.of(200, b"text")]) == []


def measured(**options: Any) -> Measured:
    latency_ms = Percentiles(2.0, options.pop("p99_ms", 8.0))
    usual: dict[str, Any] = {
        "startup_s": 0.3,
        "requests": 500,
        "failed": 0,
        "memory_mb": 40.0,
        "growth_mb": 1.0,
        "failures": {},
    }
    return Measured(latency_ms=latency_ms, **(usual | options))


@pytest.mark.parametrize(
    ("options", "alarms", "objection"),
    [
        ({}, AlarmSettings(), None),
        ({"growth_mb": 1.3}, AlarmSettings(), None),
        ({"growth_mb": 1.5}, AlarmSettings(), "leaks memory"),
        ({"p99_ms": 30.0}, AlarmSettings(), None),
        ({"p99_ms": 40.0}, AlarmSettings(), "its p99 is 40 ms"),
        ({"p99_ms": 20.0}, AlarmSettings(p99_ms=15), "above the alarm's 15 ms"),
        ({"failures": {"GET /a": 3}}, AlarmSettings(), "GET /a failed 9 times"),
    ],
)
def test_load_reveals_leaks_slowdowns_and_failures(
    options: dict[str, Any], alarms: AlarmSettings, objection: str | None
) -> None:
    rounds = [(measured(), measured(**options))] * judge.ROUNDS
    found = judge.of_load(rounds, alarms)
    assert (found == []) if objection is None else (objection in found[0])


def test_faults_that_the_live_release_shares_are_not_problems() -> None:
    for options in ({"failures": {"GET /a": 9}}, {"growth_mb": 30.0}):
        assert judge.of_load([(measured(**options), measured(**options))], AlarmSettings()) == []


def test_a_problem_must_appear_in_every_round() -> None:
    well, leaks, slow = measured(), measured(growth_mb=6.0), measured(p99_ms=80.0)
    for bad in (leaks, slow):
        assert judge.in_doubt([(well, bad)], AlarmSettings())
        assert judge.in_doubt([(well, bad)] * 2, AlarmSettings())
        assert not judge.in_doubt([(well, bad)] * 3, AlarmSettings())
        assert judge.of_load([(well, bad)] * 3, AlarmSettings()) != []
        for rounds in ([(well, bad), (well, well)], [(well, bad), (well, bad), (well, well)]):
            assert not judge.in_doubt(rounds, AlarmSettings())
            assert judge.of_load(rounds, AlarmSettings()) == []


def test_slowness_in_only_some_rounds_is_not_reported_beside_a_leak() -> None:
    leaks, both = measured(growth_mb=6.0), measured(growth_mb=6.0, p99_ms=80.0)
    (said,) = judge.of_load([(measured(), both), (measured(), leaks), (measured(), both)], AlarmSettings())
    assert "leaks memory" in said


def test_a_cache_that_fills_is_not_a_leak() -> None:
    gained = (9.0, 5.0, 2.0)
    rounds = [(measured(), measured(growth_mb=each)) for each in gained]
    assert judge.of_load(rounds, AlarmSettings()) == []


@pytest.mark.parametrize(
    ("live", "candidate", "doubt"),
    [
        ({}, {}, None),
        ({"failed": 50}, {"failed": 500}, None),
        ({"failed": 500}, {"failed": 50}, None),
        ({"failed": 51}, {"failed": 400}, "400 of 500 requests failed on the candidate, and 51 of 500 on live's copy"),
        ({}, {"requests": 19}, "19 of 19 requests were sent to the candidate"),
        ({"unsent": 60, "failed": 60}, {}, "440 of 500 requests were sent to live's copy"),
    ],
)
def test_too_little_load_or_loss_by_both_releases_leaves_a_rehearsal_undecided(
    live: dict[str, Any], candidate: dict[str, Any], doubt: str | None
) -> None:
    found = judge.too_little(measured(**live), measured(**candidate))
    assert (found == "") if doubt is None else (doubt in found)


def test_a_candidate_that_fails_far_more_requests_than_live_may_not_ship() -> None:
    live = measured(failed=2, failures={"GET /a": 1, "GET /b": 1})
    lost = measured(failed=300, failures={"GET /a": 150, "GET /b": 150})
    assert judge.of_load([(live, lost)], AlarmSettings()) == ["300 of 500 requests failed under load, live's 2 of 500"]
    assert judge.of_load([(lost, lost)], AlarmSettings()) == []


@pytest.mark.parametrize(
    ("outcome", "live", "objects", "doubts"),
    [
        ("live", {"requests": 9, "failed": 9}, False, False),
        ("rolled_back", {"requests": 200, "failed": 1}, True, False),
        ("rolled_back", None, True, False),
        ("rolled_back", {"requests": 200, "failed": 90}, False, True),
    ],
)
def test_an_alarm_that_live_would_also_trigger_leaves_a_rehearsal_undecided(
    outcome: str, live: dict[str, int] | None, objects: bool, doubts: bool
) -> None:
    found = judge.of_rollout(outcome, "the alarm", SideCounts(**live) if live else None, AlarmSettings())
    assert tuple(map(bool, found)) == (objects, doubts)


def test_too_few_responses_of_live_leave_a_rehearsal_undecided() -> None:
    assert judge.unheard(10, 4) == judge.unheard(0, 0) == ""
    doubt = judge.unheard(10, 5)
    assert "did not answer 5 of 10" in doubt
    assert judge.sentence(None, None, [], [doubt]).startswith("undecided: ")
    assert judge.sentence(None, None, ["a is gone"], [doubt]) == "it may not ship: a is gone"
    assert judge.sentence(None, None, [], []) == "it may ship; it was not tested under load"
    assert [SampledResponse(status).was_heard for status in (0, 503, 504, 500, 200)] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_a_round_with_slow_requests_lasts_longer() -> None:
    assert plan.long_enough_s(4.0, 100.0, 20) == 4.0
    assert plan.long_enough_s(4.0, 2.0, 20) == 15.0
    assert plan.long_enough_s(4.0, 0.1, 20) == plan.LONGEST_S
    assert plan.long_enough_s(90.0, 0.1, 20) == 90.0


def test_measurements_of_several_rounds_are_combined() -> None:
    first = measured(requests=100, failed=1, failures={"GET /a": 1}, p99_ms=9.0, growth_mb=1.0, memory_mb=40.0)
    later = measured(
        requests=50, failed=2, failures={"GET /a": 1, "GET /b": 1}, p99_ms=7.0, growth_mb=2.0, memory_mb=42.0
    )
    whole = first.followed_by(later)
    assert (whole.requests, whole.failed, whole.growth_mb, whole.memory_mb) == (150, 3, 3.0, 42.0)
    assert first.followed_by(msgspec.structs.replace(later, unsent=2)).unsent == 2
    assert (whole.failures, whole.latency_ms.p99) == ({"GET /a": 2, "GET /b": 1}, 7.0)


@pytest.mark.parametrize(
    ("live", "candidate", "waits"),
    [
        ((5.0, 16.0), (5.0, 17.0), False),
        ((5.0, 16.0), (5.0, 31.0), True),
        ((1.0, 3.0), (1.0, 5.5), False),  # within what a machine does by itself
        ((1.0, 2.0), (6.0, 19.0), False),  # slower, but not by each other
        ((1.0, 2.0), (6.0, 36.0), True),
        ((2.0, 30.0), (4.0, 62.0), False),  # on live they wait as well
    ],
)
def test_a_lock_is_distinguished_from_a_slower_handler(
    live: tuple[float, float], candidate: tuple[float, float], waits: bool
) -> None:
    once = (Crowd(*live), Crowd(*candidate))
    assert bool(judge.of_crowd("GET /a", 6, 2, [once, once])) == waits
    assert judge.of_crowd("GET /a", 6, 2, [once, (Crowd(5, 16), Crowd(5, 16))]) == [], "one try does not show it"
    assert judge.of_crowd("GET /a", 6, 2, []) == []


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("AllAtOnce", "Canary50Percent6Seconds"),
        ("Canary10Percent5Minutes", "Canary10Percent6Seconds"),
        ("Canary10Percent2Seconds", "Canary10Percent2Seconds"),
        ("Linear10PercentEvery1Minute", "Linear10PercentEvery1Second"),
        ("Linear50PercentEvery1Minute", "Linear50PercentEvery6Seconds"),
    ],
)
def test_a_strategy_keeps_its_weights_at_higher_speed(strategy: str, expected: str) -> None:
    faster = plan.faster(parse(strategy), 6)
    assert str(faster) == expected
    if strategy != "AllAtOnce":
        assert [weight for weight, _ in weights(faster)] == [weight for weight, _ in weights(parse(strategy))]


def test_the_load_is_enough_for_the_alarms_and_not_too_much_for_live() -> None:
    assert plan.rate_for(parse("Canary10Percent5Seconds"), 20, 50) == pytest.approx(80)
    assert plan.rate_for(parse("Canary50Percent5Seconds"), 20, 50) == 50
    assert plan.bearable_rate(100, [cost("a", 0.001), cost("b", 0.002)], {"a": 2, "b": 2}) == 100
    assert plan.bearable_rate(100, [cost("a", 0.1), cost("a", 0.3)], {"a": 2}) == pytest.approx(4.0)
    assert plan.bearable_rate(100, [cost("a", 0.1, 3), cost("a", 0.5)], {"a": 2}) == pytest.approx(4.0)
    assert plan.bearable_rate(100, [], {}) == 100


def cost(function: str, took_s: float, weight: int = 1) -> plan.Cost:
    return plan.Cost(DrillRequest("GET", "/", weight=weight), function, took_s)


def test_generated_requests_are_weighted_so_that_slow_ones_do_not_displace_quick_ones() -> None:
    weighed = plan.balanced([cost("a", 0.3), cost("a", 0.001), cost("b", 0.03)])
    assert [one.request.weight for one in weighed] == [1, plan.MOST_OFTEN, 10]
    assert plan.balanced([]) == []


def shop() -> Any:
    routes = (Route("GET", "/a"), Route("POST", "/b"), Route("GET", "/c/{id}"), Route("ANY", "/d"))
    made = release_document("api", smoke=(SmokeRequest("POST", "/b", body="{}"), SmokeRequest("GET", "/c/7")))
    functions = (Function("api", "h.api", routes=routes),)
    return replace(made, functions=functions, settings=replace(made.settings, idempotent=(Route("POST", "/b"),)))


def test_smoke_requests_and_safe_routes_are_compared_and_repeatable_ones_are_load() -> None:
    document = shop()
    asked = plan.generated_requests(document, document)
    assert sorted(one.name for one in asked) == ["GET /a", "GET /c/1", "GET /c/7", "GET /d", "POST /b"]
    assert Routes(document).may_repeat(DrillRequest("POST", "/b"))
    careful = replace(document, settings=replace(document.settings, idempotent=()))
    assert not Routes(careful).may_repeat(DrillRequest("POST", "/b"))
    assert Routes(careful).may_repeat(DrillRequest("GET", "/a"))


def test_a_request_is_named_by_its_route_in_serverless_yml() -> None:
    document = shop()
    assert Routes(document).name_of(DrillRequest("GET", "/c/7?x=1")) == "GET /c/{id} (/c/7?x=1)"
    assert Routes(document).name_of(DrillRequest("GET", "/a")) == "GET /a"
    assert Routes(document).function_of(DrillRequest("PUT", "/d")) == "api"
    fewer = replace(document, functions=(Function("api", "h.api", routes=(Route("GET", "/a"),)),))
    assert plan.removed_routes(document, fewer) == ["ANY /d is gone", "GET /c/{id} is gone", "POST /b is gone"]
    assert plan.removed_routes(fewer, document) == []


def test_the_report_is_a_page_or_markdown_with_escaped_text() -> None:
    side = measured(requests=400, failed=0)
    report = RehearsalReport(
        stage="dev",
        may_ship=False,
        objections=("GET /a: <b> | 500",),
        sentence="it may not ship: GET /a: <b> | 500",
        answers=(ChangedRoute("GET /a", ("status 200 → 500",)),),
        coverage="1 of 1 routes was compared",
        live=side,
        candidate=side,
        rollout=RolloutReport("AllAtOnce", "rolled_back", None, 20, 3, None, None),
    )
    markdown, page = render(report, ".md"), render(report)
    assert markdown.startswith("## ❌ dev: it may not ship: GET /a: \\<b\\> \\| 500\n")
    assert re.search(r"^\| candidate \| .* s \| 400 \| 0 \|", markdown, re.MULTILINE)
    assert "GET /a: &lt;b&gt; | 500" in page
    assert "<b> |" not in page
    assert "status 200 → 500" in page
    assert "may_ship" not in page


def test_the_report_of_a_rehearsal_that_was_not_due_is_its_sentence() -> None:
    report = RehearsalReport(stage="dev", may_ship=True, sentence="not rehearsed: nothing has changed")
    assert render(report, ".md").strip() == "## ✅ dev: not rehearsed: nothing has changed"


class StartedEngine:
    """A sandbox in which each release comes up."""

    def deploy(self, stage: str, document: ReleaseDocument, strategy: str) -> dict[str, Any]:
        return {"outcome": "live", "duration_s": 0.1}

    def status(self) -> dict[str, Any]:
        return {"stages": [{"stage": stage, "url": "http://127.0.0.1:1"} for stage in ("dev", CANDIDATE_STAGE)]}


@pytest.mark.parametrize(("routes", "may_ship"), [((Route("POST", "/a"),), False), ((), True)])
def test_a_rehearsal_without_load_is_undecided_unless_the_release_has_no_route(
    routes: tuple[Route, ...], may_ship: bool
) -> None:
    live = replace(release_document(), functions=(Function("api", "handlers.api", routes=routes),))
    planned = plan.PlannedLoad("generated", (), ())
    engine: Any = StartedEngine()
    held = Rehearsal(engine, live, live, RehearsalSettings(), lambda _: None, planned)
    report = asyncio.run(held.run())
    assert report.may_ship is may_ship
    assert ((report.undecided, report.notes)[may_ship]) == (judge.NO_LOAD,)
