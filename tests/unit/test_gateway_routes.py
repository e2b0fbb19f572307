"""Map entries choose routes as API Gateway does; the model's order is the oracle."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.gateway.routes import idempotent_entries, literal_entries, pattern_entries, release_of_pattern
from hitless.gateway.state import RouteState
from hitless.service.event_sources import Route
from hitless.service.routes import ANY, METHODS, compile_route, find_conflict, order_routes

pytestmark = pytest.mark.unit


def chosen(routes: list[RouteState], method: str, path: str, release: str = "dev.1") -> str | None:
    """The result of the configuration's four look-ups."""
    literals, patterns = literal_entries(routes), pattern_entries(routes)
    for key in (f"{release}|{method}|{path}", f"{release}|ANY|{path}"):
        if key in literals:
            return literals[key]
    for entries in patterns.values():
        for pattern, pool in entries:
            if re.search(pattern, f"{release}|{method}|{path}"):
                return pool
    return None


def routed(*routes: str, release: str = "dev.1") -> list[RouteState]:
    """`GET /zones` → pool `p0`, the next → `p1`, …"""
    pairs = [route.split(" ") for route in routes]
    return [RouteState(release, method, path, f"p{index}") for index, (method, path) in enumerate(pairs)]


def test_a_literal_segment_beats_a_parameter_and_a_parameter_beats_a_greedy_one() -> None:
    routes = routed("GET /{proxy+}", "GET /zones/{area}", "GET /zones/now")
    assert chosen(routes, "GET", "/zones/now") == "p2"
    assert chosen(routes, "GET", "/zones/x") == "p1"
    assert chosen(routes, "GET", "/zones/x/y") == "p0"


def test_the_leftmost_different_segment_decides_which_route_matches() -> None:
    routes = routed("GET /{a}/b/c", "GET /a/{b}/{c}", "GET /a/{proxy+}")
    assert chosen(routes, "GET", "/a/b/c") == "p1"
    assert chosen(routes, "GET", "/x/b/c") == "p0"
    assert chosen(routes, "GET", "/a/b/c/d") == "p2"


def test_a_methods_own_route_beats_any_on_the_same_path() -> None:
    routes = routed("ANY /x", "GET /x", "ANY /y/{a}", "GET /y/{a}")
    assert chosen(routes, "GET", "/x") == "p1"
    assert chosen(routes, "POST", "/x") == "p0"
    assert chosen(routes, "GET", "/y/1") == "p3"
    assert chosen(routes, "PUT", "/y/1") == "p2"


def test_any_on_a_literal_beats_a_method_on_a_parameter() -> None:
    routes = routed("GET /{name}", "ANY /me")
    assert chosen(routes, "GET", "/me") == "p1"


def test_a_resource_without_the_method_falls_back_to_a_less_specific_one() -> None:
    routes = routed("GET /jobs/{id}", "ANY /{proxy+}", "PATCH /users/me", "GET /users/{id}")
    assert chosen(routes, "POST", "/jobs/1") == "p1"
    assert chosen(routes, "GET", "/users/me") == "p3"


def test_an_unknown_method_matches_nothing() -> None:
    routes = routed("GET /zones", "GET /zones/{area}")
    assert chosen(routes, "HEAD", "/zones") is None
    assert chosen(routes, "OPTIONS", "/zones/x") is None


def test_a_trailing_slash_matches_the_same_resource() -> None:
    routes = routed("GET /zones", "GET /zones/{area}", "GET /")
    assert chosen(routes, "GET", "/zones/") == "p0"
    assert chosen(routes, "GET", "/zones/x/") == "p1"
    assert chosen(routes, "GET", "/") == "p2"
    assert chosen(routes, "GET", "/zones//") is None


def test_the_root_is_not_part_of_a_greedy_path() -> None:
    assert chosen(routed("ANY /{proxy+}"), "GET", "/") is None


def test_an_empty_segment_is_not_a_parameter_and_slashes_are_not_folded() -> None:
    routes = routed("GET /zones/{area}", "GET /zones", "GET /all/{proxy+}")
    assert chosen(routes, "GET", "//zones") is None
    assert chosen(routes, "GET", "/zones//x") is None
    assert chosen(routes, "GET", "/all//x") == "p2"


def test_a_path_is_matched_without_decoding_it() -> None:
    routes = routed("GET /hello", "GET /zones/{area}")
    assert chosen(routes, "GET", "/%68ello") is None
    assert chosen(routes, "GET", "/zones/Europe%2FParis") == "p1"
    assert chosen(routes, "GET", "/HELLO") is None


def test_special_characters_in_a_template_are_literal() -> None:
    routes = routed("GET /v1.2/{x}", "GET /a:b/{x}", "GET /a-b_c/{x}")
    assert chosen(routes, "GET", "/v1.2/q") == "p0"
    assert chosen(routes, "GET", "/v1x2/q") is None
    assert chosen(routes, "GET", "/a:b/q") == "p1"
    assert chosen(routes, "GET", "/a-b_c/q") == "p2"


def test_a_release_matches_only_its_own_routes() -> None:
    routes = [*routed("GET /x/{a}"), *routed("GET /y/{a}", release="dev.12")]
    assert chosen(routes, "GET", "/x/1", release="dev.12") is None
    assert chosen(routes, "GET", "/y/1", release="dev.1") is None
    assert chosen(routes, "GET", "/y/1", release="devx12") is None


def test_routes_of_one_pool_and_rank_share_one_factored_expression() -> None:
    routes = [RouteState("dev.1", "GET", f"/zones/{{area}}/{name}", "p0") for name in ("now", "then")]
    routes.append(RouteState("dev.1", "POST", "/zones/{area}/now", "p0"))
    assert pattern_entries(routes) == {
        "dev.1": (("^dev[.]1[|](?:GET[|]/zones/[^/]+(?:/now|/then)|POST[|]/zones/[^/]+/now)/?$", "p0"),)
    }


def test_a_thousand_routes_stay_below_the_line_limit() -> None:
    routes = [RouteState("dev.1", "GET", f"/some-rather-long-collection-{n}/{{id}}", "p0") for n in range(1000)]
    entries = pattern_entries(routes)["dev.1"]
    assert max(len(key) for key, _ in entries) < 16_000
    assert chosen(routes, "GET", "/some-rather-long-collection-999/1") == "p0"


def test_no_map_key_has_a_blank_or_a_special_character() -> None:
    routes = routed("GET /a.b-c_d:e/{x}", "ANY /{proxy+}", "DELETE /plain.json")
    keys = [*literal_entries(routes), *(key for entries in pattern_entries(routes).values() for key, _ in entries)]
    assert not any(set(key) & set(" \t\\;#\"'") for key in keys)


def test_the_release_of_an_expression_can_be_read_from_it() -> None:
    for release in ("dev.1", "prod-eu_2.345"):
        ((pattern, _),) = pattern_entries([RouteState(release, "GET", "/{x}", "p0")])[release]
        assert release_of_pattern(pattern) == release
    assert release_of_pattern("^something else") == ""


SEGMENTS = st.sampled_from(["a", "b", "a.b", "{x}"])
TEMPLATES = st.builds(
    lambda parts, greedy: (
        "/"
        + "/".join([*(part.replace("x", f"x{n}") for n, part in enumerate(parts)), *(["{rest+}"] if greedy else [])])
    ),
    st.lists(SEGMENTS, max_size=3),
    st.booleans(),
)
PATHS = st.builds(
    lambda parts, slash: "/" + "/".join(parts) + ("/" if slash and parts else ""),
    st.lists(st.sampled_from(["a", "b", "a.b", "axb", "c", "%61", "a|b"]), max_size=4),
    st.booleans(),
)


@given(
    st.lists(st.builds(Route, st.sampled_from([ANY, "GET", "POST"]), TEMPLATES), max_size=8, unique=True),
    st.sampled_from(METHODS),
    PATHS,
)
def test_the_maps_choose_the_same_route_as_the_model(routes: list[Route], method: str, path: str) -> None:
    accepted: list[Route] = []
    for route in routes:
        if find_conflict([*accepted, route]) is None:
            accepted.append(route)
    states = [RouteState("dev.1", route.method, route.path, f"p{index}") for index, route in enumerate(accepted)]
    plain = path.rstrip("/") or "/"
    expected = next(
        (
            f"p{accepted.index(route)}"
            for route in order_routes(accepted)
            if route.method in (ANY, method) and re.fullmatch(compile_route(route.path), plain)
        ),
        None,
    )
    assert chosen(states, method, path) == expected


def test_an_idempotent_route_is_found_among_all_possible_routes() -> None:
    routes = [
        RouteState("dev.2", "PUT", "/items/{id}", "p00", idempotent=True),
        RouteState("dev.2", "PUT", "/items/special", "p00"),
        RouteState("dev.2", "GET", "/items/{id}", "p00"),
        RouteState("dev.2", "ANY", "/{proxy+}", "p01"),
        RouteState("dev.1", "PUT", "/items/{id}", "p02"),
    ]
    entries = idempotent_entries(routes)
    assert set(entries) == {"dev.2"}, "a release without such a route pays for no look"
    first = {
        request: next(value for pattern, value in entries["dev.2"] if re.match(pattern, f"dev.2|{request}"))
        for request in ("PUT|/items/7", "PUT|/items/special", "PUT|/items/special/", "POST|/items/7", "PUT|/other")
    }
    assert first == {
        "PUT|/items/7": "1",
        "PUT|/items/special": "0",
        "PUT|/items/special/": "0",
        "POST|/items/7": "0",
        "PUT|/other": "0",
    }
