"""Random definitions of which each can follow any other: no release of them is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.unit.definitions import Definition, Function, Route
from tests.unit.transitions import (
    BOUNDARY,
    DENY,
    OTHER_BOUNDARY,
    OWN_ROLE,
    QUERY,
    READ,
    UNROUTED,
    VPC,
    attached,
    group,
    kms_key,
    own_role,
    response,
    table,
)

_SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"MemorySize": 2048},
    {"ReservedConcurrentExecutions": 5},
    {"ReservedConcurrentExecutions": 50, "Timeout": 20},
    {"VpcConfig": VPC, "Architectures": ["arm64"]},
    {"VpcConfig": {**VPC, "SecurityGroupIds": [{"Ref": "Group"}]}},
    {"Environment": {"Variables": {"TABLE": {"Ref": "Items"}}}},
    {"KmsKeyArn": {"Fn::GetAtt": ["Key", "Arn"]}},
    OWN_ROLE,
)
_KEYS = (("first", "1" * 20), ("second", "2" * 20), ("first", "3" * 20))
_STRATEGIES = ("AllAtOnce", "Canary10Percent5Minutes", "Canary5Percent2Minutes", "Linear20PercentEvery2Minutes")
_API: tuple[dict[str, Any], ...] = (
    {},
    {"MinimumCompressionSize": 1024},
    {"BinaryMediaTypes": ["image/png"]},
    {"BinaryMediaTypes": ["*/*"]},
    {"EndpointConfiguration": {"Types": ["REGIONAL"]}},
)
_DOMAINS = ("", "a.example.com", "b.example.com")


def _some(items: tuple[Any, ...], *, least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(items), unique_by=str, min_size=least).map(tuple)


@st.composite
def _routes(draw: st.DrawFn, keys: list[str]) -> dict[str, tuple[Route, ...]]:
    """Each route once, with any of the functions; the path parameter has one name at a time."""
    variable = draw(st.sampled_from(["{id}", "{item}", "{id+}"]))
    paths = [("GET", "items"), ("POST", "items"), ("GET", f"items/{variable}"), ("GET", "other"), ("GET", "a-b")]
    if not variable.endswith("+}"):
        paths.append(("GET", f"items/{variable}/parts"))
    found: dict[str, list[Route]] = {key: [] for key in keys}
    for method, path in draw(st.lists(st.sampled_from(paths), unique=True)):
        route = Route(
            method,
            path,
            authorizer=draw(st.sampled_from([None, "check"])),
            private=draw(st.booleans()),
            schema=draw(st.sampled_from([None, "object", "array"])),
        )
        found[draw(st.sampled_from(keys))].append(route)
    return {key: tuple(routes) for key, routes in found.items()}


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    keys = [key for key in ("alpha", "beta", "gamma-one") if key == "alpha" or draw(st.booleans())]
    routes = draw(_routes(keys))
    functions = {
        key: Function(
            routes[key],
            draw(st.sampled_from("abc")),
            properties=draw(st.sampled_from(_SETTINGS)),
            schedule=draw(st.sampled_from([None, "rate(1 hour)", "rate(1 day)"])),
        )
        for key in keys
    }
    functions["check"] = Function(letter=draw(st.sampled_from("ab")))
    has_routes = any(routes.values())
    made = Definition(
        functions,
        policies=draw(_some((READ, QUERY, DENY))),
        managed=draw(_some(("arn:aws:iam::aws:policy/A", "arn:aws:iam::aws:policy/B"))),
        keys=draw(_some(_KEYS)) if has_routes else (),
        quota=draw(st.sampled_from([10, 100])),
        resources=draw(_resources(has_routes)),
        strategy=draw(st.sampled_from(_STRATEGIES)),
        domain=draw(st.sampled_from(_DOMAINS)) if has_routes else "",
        pre_traffic=draw(st.sampled_from([None, "check"])),
        boundary=draw(st.sampled_from(["", BOUNDARY, OTHER_BOUNDARY])),
    )
    if has_routes:
        made = replace(made, api=draw(st.sampled_from(_API)))
    return made


@st.composite
def _resources(draw: st.DrawFn, has_routes: bool) -> dict[str, Any]:
    made = {
        "Items": table(*draw(_some(("time", "place", "person")))),
        "Group": group(*draw(_some((443, 5432, 6379)))),
        "Key": kms_key(enabled=draw(st.booleans())),
        "OwnRole": own_role(*draw(_some((READ, QUERY, DENY), least=1))),
    }
    if draw(st.booleans()):
        made["Items"]["Properties"]["StreamSpecification"] = {"StreamViewType": "NEW_IMAGE"}
    if draw(st.booleans()):
        made["More"] = attached(*draw(_some((READ, QUERY, DENY), least=1)))
    if has_routes and draw(st.booleans()):
        made[draw(st.sampled_from(["NotFound", "Missing"]))] = response(UNROUTED, draw(st.sampled_from(["404", "410"])))
    return made
