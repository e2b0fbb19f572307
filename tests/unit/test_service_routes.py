"""Routes: the order against a naive walk of API Gateway's resource tree, patterns, conflicts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.service.event_sources import Route
from hitless.service.routes import (
    compile_route,
    find_conflict,
    is_literal,
    normal_path,
    order_routes,
    parameters,
    path_fault,
    segments,
)
from hitless.worker.event import RouteTable
from hitless.worker.spec import RouteSpec

pytestmark = pytest.mark.unit


def path_of(parts: list[str], greedy: bool) -> str:
    named = [f"{{p{depth}}}" if part == "{}" else part for depth, part in enumerate(parts)]
    return "/" + "/".join([*named, "{rest+}"] if greedy else named)


PATH = st.builds(path_of, st.lists(st.sampled_from(["a", "b", "c", "{}"]), max_size=4), st.booleans())
ROUTE = st.builds(Route, st.sampled_from(["GET", "POST", "ANY"]), PATH)
REQUEST = st.tuples(st.sampled_from(["GET", "POST", "PUT"]), st.lists(st.sampled_from(["a", "b", "z"]), max_size=5))


def walk(routes: set[Route], method: str, rest: list[str], above: tuple[str, ...] = ()) -> Route | None:
    """API Gateway's tree: the literal child, then the variable one, then the greedy one, with a way back."""
    here = "/" + "/".join(above)
    if not rest:
        return next((route for name in (method, "ANY") if (route := Route(name, here)) in routes), None)
    children = {
        segments(r.path)[len(above)] for r in routes if segments(r.path)[: len(above)] == above != segments(r.path)
    }
    variable = sorted(child for child in children if child.startswith("{") and not child.endswith("+}"))
    greedy = sorted(child for child in children if child.endswith("+}"))
    for child in [rest[0]] if rest[0] in children else []:
        if found := walk(routes, method, rest[1:], (*above, child)):
            return found
    for child in variable:
        if found := walk(routes, method, rest[1:], (*above, child)):
            return found
    for child in greedy:
        if found := walk(routes, method, [], (*above, child)):
            return found
    return None


def first_match(routes: set[Route], method: str, path: str) -> Route | None:
    for route in order_routes(routes):
        if route.method in (method, "ANY") and re.fullmatch(compile_route(route.path), path):
            return route
    return None


@given(st.sets(ROUTE, max_size=12), REQUEST)
def test_the_first_match_in_order_is_the_route_that_api_gateway_takes(
    routes: set[Route], request_line: tuple[str, list[str]]
) -> None:
    method, parts = request_line
    assert first_match(routes, method, "/" + "/".join(parts)) == walk(routes, method, parts)


@pytest.mark.parametrize(
    ("request_line", "taken"),
    [
        ("GET /jobs/reboot", "GET /jobs/{operation}"),
        ("GET /jobs", "ANY /{proxy+}"),
        ("POST /jobs/reboot", "ANY /{proxy+}"),
        ("GET /users/me", "GET /users/{id}"),
        ("PATCH /users/me", "PATCH /users/me"),
        ("GET /both/x", "GET /both/x"),
        ("PUT /both/x", "ANY /both/x"),
        ("GET /", None),
    ],
)
def test_routes_match_as_measured_on_api_gateway(request_line: str, taken: str | None) -> None:
    lines = [
        "ANY /{proxy+}",
        "GET /jobs/{operation}",
        "GET /users/{id}",
        "PATCH /users/me",
        "ANY /both/x",
        "GET /both/x",
        "GET /both/{y}",
    ]
    routes = {Route(*line.split()) for line in lines}
    method, path = request_line.split()
    found = first_match(routes, method, path)
    assert (str(found) if found else None) == taken


def test_route_precedence_does_not_depend_on_the_order_in_the_file() -> None:
    routes = [
        Route("GET", "/a"),
        Route("ANY", "/a"),
        Route("GET", "/{x}"),
        Route("GET", "/{x}/b"),
        Route("ANY", "/{p+}"),
    ]
    assert order_routes(routes) == order_routes(reversed(routes))


def test_a_pattern_binds_each_parameter_to_one_segment() -> None:
    found = re.fullmatch(compile_route("/zones/{area}/{city}"), "/zones/Europe/Paris")
    assert found is not None
    assert found.groupdict() == {"area": "Europe", "city": "Paris"}
    assert re.fullmatch(compile_route("/zones/{area}"), "/zones/Europe/Paris") is None
    assert re.fullmatch(compile_route("/zones/{area}"), "/zones/") is None
    assert re.fullmatch(compile_route("/v1.0"), "/v1x0") is None


def test_a_greedy_parameter_matches_one_character_or_more() -> None:
    found = re.fullmatch(compile_route("/files/{proxy+}"), "/files/a/b.txt")
    assert found is not None
    assert found["proxy"] == "a/b.txt"
    assert re.fullmatch(compile_route("/files/{proxy+}"), "/files/") is None
    assert re.fullmatch(compile_route("/{proxy+}"), "/") is None


def test_a_parameter_without_an_identifier_has_its_group_in_order() -> None:
    path = "/{zone-id}/{city}"
    found = re.fullmatch(compile_route(path), "/7/Oslo")
    assert found is not None
    assert dict(zip(parameters(path), found.groups(), strict=True)) == {"zone-id": "7", "city": "Oslo"}


def test_the_root_is_a_literal_without_segments() -> None:
    assert segments("/") == ()
    assert compile_route("/") == "/"
    assert is_literal("/")
    assert not is_literal("/{x}")


@pytest.mark.parametrize(
    ("written", "normal"), [("zones", "/zones"), ("/zones/", "/zones"), ("/", "/"), ("", "/"), ("a/b", "/a/b")]
)
def test_paths_are_read_as_serverless_framework_reads_them(written: str, normal: str) -> None:
    assert normal_path(written) == normal


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/a//b", "empty segment"),
        ("//a", "empty segment"),
        ("/{proxy+}/a", "not the last"),
        ("/a/{x}/b/{x}", "twice"),
        ("/a b", "segment 'a b'"),
        ("/a|b", "segment"),
        ("/pre{x}", "whole"),
        ("/{x}{y}", "whole"),
        ("/{}", "segment"),
        ("/{x*}", "segment"),
        ("/ä", "segment"),
    ],
)
def test_paths_that_api_gateway_refuses_are_refused_with_a_reason(path: str, fault: str) -> None:
    assert fault in (path_fault(path) or "")


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a.b/c_d-e:f", "/a+b/~me/x,y/(z)", "/{x}/a", "/a/{x}/{proxy+}", "/{zone-id}"]
)
def test_paths_that_api_gateway_accepts_are_accepted(path: str) -> None:
    assert path_fault(path) is None


def test_a_plus_and_a_parenthesis_are_literal() -> None:
    pattern = compile_route("/a+b/(z)/{id}")
    assert re.fullmatch(pattern, "/a+b/(z)/5")
    assert not re.fullmatch(pattern, "/aab/z/5")


def test_the_same_method_and_path_twice_is_a_conflict() -> None:
    conflict = find_conflict([Route("GET", "/a"), Route("POST", "/a"), Route("GET", "/a")])
    assert conflict is not None
    assert conflict[:2] == (0, 2)
    assert "GET /a" in conflict[2]


def test_sibling_parameters_with_different_names_are_a_conflict() -> None:
    for other in ("/zones/{zone}/x", "/zones/{proxy+}", "/zones/{id+}"):
        conflict = find_conflict([Route("GET", "/zones/{id}"), Route("GET", other)])
        assert conflict is not None
        assert "variable parts under /zones" in conflict[2]


def test_the_same_parameter_name_elsewhere_is_not_a_conflict() -> None:
    routes = ["/zones/{id}", "/zones/{id}/{city}", "/zones/a/{name}", "/{proxy+}"]
    assert find_conflict([Route("GET", path) for path in routes]) is None
    assert find_conflict([Route("GET", "/a"), Route("ANY", "/a")]) is None


def test_a_path_parameter_may_have_a_name_that_is_not_a_python_identifier() -> None:
    path = "/{zone-id}/{city}"
    route = RouteSpec("GET", path, compile_route(path))
    table = RouteTable([route])
    assert table.match("GET", "/a%2Fb/Oslo") == (route, {"zone-id": "a%2Fb", "city": "Oslo"})
