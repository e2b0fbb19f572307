"""Recorded requests as a rehearsal's load."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from hitless.drill.requests import DrillRequest
from hitless.gateway.accesslog import AccessLine, parse
from hitless.pipeline.rehearsal import plan
from hitless.pipeline.rehearsal.recorded import (
    COMPARED_A_ROUTE,
    REQUESTS_AT_MOST,
    Routes,
    to_compare,
    weighed,
)
from hitless.service.event_sources import Route
from hitless.service.model import Function, SmokeRequest
from tests.fakes import release_document

pytestmark = pytest.mark.unit


def line(path: str, **options: Any) -> AccessLine:
    target, _, query = path.partition("?")
    usual = AccessLine("t", "GET", target, query, 200, 3, 100, 1, False, "id", False)
    return replace(usual, **options)


def shop() -> Any:
    routes = (Route("GET", "/items"), Route("GET", "/items/{id}"), Route("POST", "/items"), Route("ANY", "/any"))
    made = release_document("api", smoke=(SmokeRequest("GET", "/health"),))
    return replace(
        made, functions=(Function("api", "h.a", routes=routes), Function("h", "h.h", routes=(Route("GET", "/health"),)))
    )


def test_successful_safe_requests_are_sent_in_their_recorded_proportions() -> None:
    lines = [*[line("/items/7")] * 6, *[line("/items?page=2")] * 3, line("/any", method="HEAD")]
    lines += [line("/items", method="POST"), line("/items/9", status=404), line("/nowhere")]
    lines += [line("/items?token=***"), line("/items?q=ä")]
    found = weighed(lines, shop())
    assert [(one.request.name, one.request.weight, one.lines, one.route) for one in found] == [
        ("GET /items/7", 6, 6, "GET /items/{id}"),
        ("GET /items?page=2", 3, 3, "GET /items"),
        ("HEAD /any", 1, 1, "ANY /any"),
    ]
    assert not any(one.request.headers or one.request.body for one in found)


def test_recorded_requests_are_limited_in_number_but_every_route_is_kept() -> None:
    lines = [line(f"/items/{number}") for number in range(1000) for _ in range(2)] + [line("/items")]
    found = weighed(lines, shop())
    assert len(found) == REQUESTS_AT_MOST
    assert found[-1].route == "GET /items"
    assert [one.route for one in to_compare(found)] == ["GET /items/{id}"] * COMPARED_A_ROUTE + ["GET /items"]


def test_a_route_without_recorded_requests_gets_a_generated_one() -> None:
    document = shop()
    assert plan.planned_load(document, document, []).source == "generated"
    sent = plan.planned_load(document, document, weighed([line("/items/7")] * 5, document))
    assert (sent.source, sent.lines) == ("access_log", 5)
    names = [one.name for one in sent.requests]
    assert names[0] == "GET /items/7"
    assert sorted(names[1:]) == ["GET /any", "GET /health", "GET /items"]
    assert set(sent.compared) == set(sent.requests)


def test_the_load_has_only_requests_that_live_answers_at_their_routes_average_cost() -> None:
    document = shop()
    recorded = weighed([line(f"/items/{number}") for number in (1, 2, 3, 4, 5)] + [line("/items")] * 9, document)
    sent = plan.planned_load(document, document, recorded)
    gone = next(one for one in sent.compared if one.path == "/items/2")
    kept = [plan.Cost(one, "api", 0.01 if one.path == "/items" else 0.2) for one in sent.compared if one != gone]
    load = plan.as_load(sent, kept, Routes(document))
    costs = {one.request.path: one.took_s for one in load}
    assert costs == {
        "/items": 0.01,
        "/items/1": 0.2,
        "/items/3": 0.2,
        "/items/4": 0.2,
        "/items/5": 0.2,
        "/any": 0.2,
        "/health": 0.2,
    }
    assert next(one for one in load if one.request.path == "/items").request.weight == 9
    assert (sent.source, len(load), sent.lines) == ("access_log", 7, 14)


def test_only_generated_requests_are_weighted_by_cost() -> None:
    document = shop()
    sent = plan.planned_load(document, document, [])
    costs = [plan.Cost(one, "api", 0.3 if one.path == "/items" else 0.01) for one in sent.requests]
    assert {one.request.path: one.request.weight for one in plan.as_load(sent, costs, Routes(document))}[
        "/any"
    ] == plan.MOST_OFTEN
    recorded = plan.planned_load(document, document, weighed([line("/items"), line("/any")], document))
    costs = [plan.Cost(one, "api", 0.3 if one.path == "/items" else 0.01) for one in recorded.compared]
    assert {one.request.weight for one in plan.as_load(recorded, costs, Routes(document))} == {1}


def test_requests_of_a_file_are_sent_except_unsafe_ones() -> None:
    document = shop()
    given = (DrillRequest("GET", "/items", weight=7), DrillRequest("POST", "/items"))
    load = plan.as_load(
        plan.PlannedLoad("file", given, given), [plan.Cost(one, "api", 0.1) for one in given], Routes(document)
    )
    assert [(one.request.name, one.request.weight) for one in load] == [("GET /items", 7)]


def test_a_request_is_mapped_to_its_function_and_route() -> None:
    routes = Routes(shop())
    assert routes.of("GET", "/items/7") == ("api", "GET /items/{id}")
    assert routes.of("PATCH", "/any") == ("api", "ANY /any")
    assert routes.of("GET", "/else") == (None, None)


def test_an_incomplete_log_line_is_ignored() -> None:
    whole = (
        '{"at_ms": 1764034123456, "release": "dev.12", "method": "GET", "status": 200, "duration_ms": 3, "bytes": 120,'
        ' "request": "-", "server": "live", "end": "CD", "path": "/a", "query": "-"}'
    )
    found = parse(whole)
    assert found is not None
    assert (found.at, found.release, found.shielded, found.cut_off) == ("2025-11-25T01:28:43.456Z", 12, True, True)
    assert (found.target, found.to_json()["request"]) == ("/a", None)
    refused = parse(whole.replace('"CD"', '"LR"'))
    assert refused is not None
    assert not refused.cut_off, "the gateway answered by itself"
    for broken in (whole[:-5], "", "null", "[]", whole.replace("200", '"x"'), whole.replace("1764034123456", "1e30")):
        assert parse(broken) is None


def test_smoke_requests_are_sent_with_their_headers_even_if_the_log_has_their_route() -> None:
    smoke = (SmokeRequest("GET", "/items", headers=(("authorization", "Bearer t"),)),)
    document = replace(shop(), settings=replace(shop().settings, smoke=smoke))
    sent = plan.planned_load(document, document, weighed([line("/items")] * 5, document))
    assert (("authorization", "Bearer t"),) in [one.headers for one in sent.compared if one.path == "/items"]


def test_the_coverage_names_each_route_that_was_not_compared_and_why() -> None:
    document = shop()
    compared = [plan.Cost(DrillRequest("GET", path), "api", 0.1) for path in ("/items", "/items/7")]
    every = [str(route) for function in document.functions for route in function.routes]
    said = plan.coverage(document, compared, ["GET /health: live responds with 503"])
    assert said.startswith(f"2 of {len(every)} routes were compared; left out: ")
    assert "GET /health (live responds with 503)" in said
    assert "POST /items (no smoke request for it)" in said
    asked = [one.replace("ANY", "GET").partition(" ") for one in every]
    everything = [plan.Cost(DrillRequest(method, path), "api", 0.1) for method, _, path in asked]
    assert plan.coverage(document, everything, []) == f"{len(every)} of {len(every)} routes were compared"
