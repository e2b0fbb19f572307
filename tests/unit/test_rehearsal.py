"""What a rehearsal makes of two releases' answers and figures, and what it sends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hitless.drill.requests import DrillRequest
from hitless.pipeline.rehearsal import judge, plan
from hitless.pipeline.rehearsal.compare import Sample, differences
from hitless.pipeline.rehearsal.judge import Measured
from hitless.service.model import AlarmSettings, Function, Route, SmokeRequest
from hitless.service.strategy import parse, weights
from tests.fakes import release_document

pytestmark = pytest.mark.unit


def answers(*bodies: Any, status: int = 200) -> list[Sample]:
    return [Sample(status, body, True) for body in bodies]


def said(live: list[Sample], candidate: list[Sample]) -> list[tuple[str, bool]]:
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
def test_answers_are_compared_field_by_field(live: Any, candidate: Any, expected: list[tuple[str, bool]]) -> None:
    assert said(answers(live), answers(candidate)) == expected


def test_what_varies_by_itself_is_no_difference() -> None:
    assert said(answers({"a": 1, "b": 1}, {"a": None}), answers({"a": None}, {"a": 3, "b": 2})) == []


def test_a_field_that_comes_and_goes_only_in_the_candidate_is_gone() -> None:
    assert said(answers({"a": 1}, {"a": 1}), answers({"a": 1}, {})) == [("a is gone", True)]


def test_a_status_and_a_body_that_is_no_json_any_more_are_breaks() -> None:
    assert said(answers({}), answers({}, status=201)) == [("the status was 200, is 201", True)]
    assert said(answers({}), [Sample.of(200, b"<html>")]) == [("the body was JSON, is none", True)]
    assert said([Sample.of(200, b"plain")], [Sample.of(200, b"text")]) == []


def measured(**options: Any) -> Measured:
    usual = Measured(0.3, 500, 0, 2.0, 8.0, memory_mb=40.0, growth_mb=1.0, failures={})
    return replace(usual, **options)


@pytest.mark.parametrize(
    ("options", "alarms", "objection"),
    [
        ({}, AlarmSettings(), None),
        ({"growth_mb": 8.0}, AlarmSettings(), None),
        ({"growth_mb": 12.0}, AlarmSettings(), "leaks memory"),
        ({"p99_ms": 30.0}, AlarmSettings(), None),
        ({"p99_ms": 40.0}, AlarmSettings(), "its p99 is 40 ms"),
        ({"p99_ms": 20.0}, AlarmSettings(p99_ms=15), "above the alarm's 15 ms"),
        ({"failures": {"GET /a": 3}}, AlarmSettings(), "GET /a failed 3 times"),
    ],
)
def test_the_load_shows_leaks_locks_and_failures(
    options: dict[str, Any], alarms: AlarmSettings, objection: str | None
) -> None:
    found = judge.of_load(measured(), measured(**options), alarms)
    assert (found == []) if objection is None else (objection in found[0])


def test_what_live_does_as_well_is_no_objection() -> None:
    assert judge.of_load(measured(failures={"GET /a": 1}), measured(failures={"GET /a": 9}), AlarmSettings()) == []
    assert judge.of_load(measured(growth_mb=30.0), measured(growth_mb=31.0), AlarmSettings()) == []


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


def test_the_alarms_get_enough_requests_and_live_is_not_overrun() -> None:
    assert plan.rate_for(parse("Canary10Percent5Seconds"), 20, 50) == pytest.approx(80)
    assert plan.rate_for(parse("Canary50Percent5Seconds"), 20, 50) == 50
    assert plan.bearable_rate(100, [("a", 0.001), ("b", 0.002)], {"a": 2, "b": 2}) == 100
    assert plan.bearable_rate(100, [("a", 0.1), ("a", 0.3)], {"a": 2}) == pytest.approx(4.0)
    assert plan.bearable_rate(100, [], {}) == 100


def shop() -> Any:
    routes = (Route("GET", "/a"), Route("POST", "/b"), Route("GET", "/c/{id}"), Route("ANY", "/d"))
    made = release_document("api", smoke=(SmokeRequest("POST", "/b", body="{}"), SmokeRequest("GET", "/c/7")))
    functions = (Function("api", "h.api", routes=routes),)
    return replace(made, functions=functions, settings=replace(made.settings, idempotent=(Route("POST", "/b"),)))


def test_smoke_requests_and_safe_routes_are_asked_and_only_repeatable_ones_are_load() -> None:
    document = shop()
    asked = plan.requests_of(document, document)
    assert sorted(one.name for one in asked) == ["GET /a", "GET /c/1", "GET /c/7", "GET /d", "POST /b"]
    assert plan.may_repeat(DrillRequest("POST", "/b"), document)
    careful = replace(document, settings=replace(document.settings, idempotent=()))
    assert not plan.may_repeat(DrillRequest("POST", "/b"), careful)
    assert plan.may_repeat(DrillRequest("GET", "/a"), careful)


def test_a_route_is_named_as_the_file_has_it() -> None:
    document = shop()
    assert plan.name_of(DrillRequest("GET", "/c/7?x=1"), document) == "GET /c/{id} (/c/7?x=1)"
    assert plan.name_of(DrillRequest("GET", "/a"), document) == "GET /a"
    assert plan.function_of(DrillRequest("PUT", "/d"), document) == "api"
    fewer = replace(document, functions=(Function("api", "h.api", routes=(Route("GET", "/a"),)),))
    assert plan.routes_gone(document, fewer) == ["ANY /d is gone", "GET /c/{id} is gone", "POST /b is gone"]
    assert plan.routes_gone(fewer, document) == []
