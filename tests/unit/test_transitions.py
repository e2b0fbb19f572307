"""Every named transition ships without a failed request or is refused with a fix; and random sequences of releases."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hitless.cloud.transform.desired import desired
from hitless.cloud.transform.model import of_type
from hitless.cloud.transition import plan
from hitless.errors import ServiceFileError
from tests.unit.definitions import Definition, Function, Route
from tests.unit.drawn_definitions import definitions
from tests.unit.transitions import (
    BASE,
    BOUNDARY,
    DENY,
    ITEM,
    ITEMS,
    OTHER,
    QUERY,
    READ,
    TRANSITIONS,
    Transition,
    alpha,
    of,
    routed,
    table,
)
from tests.unit.walk import Walk

pytestmark = pytest.mark.unit


def test_there_are_sixty_transitions_with_different_names() -> None:
    assert len({one.name for one in TRANSITIONS}) == len(TRANSITIONS) >= 60


def other_bytes(definition: Definition) -> Definition:
    """The same service with one byte changed in each function."""
    return replace(definition, functions={key: replace(one, letter="f") for key, one in definition.functions.items()})


@pytest.mark.parametrize("transition", TRANSITIONS, ids=[one.name for one in TRANSITIONS])
def test_a_transition_fails_no_request_or_is_refused_with_a_hint(transition: Transition) -> None:
    walk = Walk()
    walk.ship(transition.before)
    if transition.refused:
        standing = walk.aws.template
        with pytest.raises(ServiceFileError) as caught:
            walk.ship(transition.after)
        assert transition.refused in caught.value.message
        assert caught.value.hint
        assert walk.aws.template is standing
        return
    walk.ship(transition.after, shifts=False)
    walk.ship(other_bytes(transition.before))
    walk.ship(transition.after)
    assert walk.updates == transition.updates
    assert [note for note in walk.said if transition.noted in note] or not transition.noted, walk.said
    walk.ship(other_bytes(transition.after))
    walk.ship(transition.after)
    walk.is_settled()


@pytest.mark.parametrize(
    "releases",
    [
        (("time", "place"), (), ()),
        ((), ("time", "place", "kind"), ()),
        (("time",), ("place",), ("kind",), ("other",)),
        (("time", "place"), ("kind", "other"), ("time",), ("time",)),
    ],
    ids=["two are taken out", "three are added", "one is replaced again and again", "both are replaced"],
)
def test_a_table_gets_at_most_one_index_change_per_stack_update(releases: tuple[tuple[str, ...], ...]) -> None:
    """DynamoDB refuses two in one update ("AWS::DynamoDB::Table" in CloudFormation's template reference)."""
    walk, sent, noted = Walk(), 0, 0
    for indexes in releases:
        shipped = replace(BASE, resources={"Items": table(*indexes)})
        walk.ship(shipped)
        more = len(walk.aws.log) - sent - walk.updates
        sent = len(walk.aws.log)
        note = f"so {more} more update{'s are' if more > 1 else ' is'} made"
        assert bool([one for one in walk.said if note in one]) == (more > 0), walk.said
        noted += more
    assert noted
    walk.ship(replace(BASE, resources={"Items": table()}), shifts=False)
    walk.ship(other_bytes(shipped))
    walk.ship(shipped)
    walk.is_settled()


def test_an_api_key_that_would_move_to_another_usage_plan_is_refused() -> None:
    walk, definition = Walk(), replace(TRANSITIONS[0].before, keys=(("first", None),))
    walk.ship(definition)
    wanted = desired(definition.compiled(), definition.release(2))
    resources = wanted["Resources"]
    usage_plan = resources["ApiGatewayOtherPlan"] = copy.deepcopy(resources["ApiGatewayUsagePlan"])
    usage_plan["Properties"]["UsagePlanName"] = "other"
    (name,) = of_type(resources, "AWS::ApiGateway::UsagePlanKey")
    moved = resources.pop(name)
    moved["Properties"]["UsagePlanId"] = {"Ref": "ApiGatewayOtherPlan"}
    resources["ApiGatewayUsagePlanKeyMoved"] = moved
    with pytest.raises(ServiceFileError, match="API key first would move to another usage plan"):
        plan(walk.aws.live, wanted).check()


def test_more_resources_than_a_stack_holds_are_refused_before_anything_changes() -> None:
    walk, plain = Walk(), TRANSITIONS[0].before
    many = {f"Table{at}": table() for at in range(300)}
    walk.ship(replace(plain, resources=many))
    standing = walk.aws.template
    with pytest.raises(ServiceFileError, match="resources while both releases exist"):
        walk.ship(replace(plain, resources={f"Other{name}": one for name, one in many.items()}))
    assert walk.aws.template is standing


def test_a_route_is_held_while_a_removed_api_resource_is_kept_for_one_more_release() -> None:
    walk = Walk()
    walk.ship(routed(replace(ITEMS, authorizer="check"), ITEM))
    walk.ship(BASE)
    assert of_type(walk.aws.resources, "AWS::ApiGateway::Authorizer")
    walk.ship(other_bytes(routed(ITEMS)))
    assert walk.updates == 3


def test_a_route_is_held_after_a_release_that_failed_and_had_changed_the_api() -> None:
    """The most ordinary retry: the canary of the first try fails, and the second try has a fix."""
    walk, after = Walk(), routed(ITEMS, Route("POST", "items"))
    walk.ship(BASE)
    walk.ship(other_bytes(after), shifts=False)
    walk.ship(after_fix := of(alpha=Function(after.functions["alpha"].routes, letter="e")))
    assert any(
        "GET /items/{id} is removed" in said and "the live version of AlphaAliasLive" in said for said in walk.said
    )
    walk.ship(after_fix)
    walk.is_settled()


def test_a_failed_release_with_another_path_parameter_gives_its_place_back_to_a_held_route() -> None:
    walk = Walk()
    walk.ship(BASE)
    walk.ship(other_bytes(routed(Route("GET", "items/{item}"))), shifts=False)
    walk.ship(other_bytes(routed(ITEMS)))
    assert walk.updates == 4
    walk.ship(other_bytes(routed(ITEMS)))
    walk.is_settled()


def test_a_release_after_a_failed_one_is_refused_if_the_live_api_is_not_known() -> None:
    walk = Walk()
    walk.ship(BASE)
    walk.ship(routed(ITEMS, ITEM, Route("POST", "items")), shifts=False)
    after = other_bytes(routed(ITEMS))
    with pytest.raises(ServiceFileError, match="the live release's template is missing"):
        plan(walk.aws.live, desired(after.compiled(), after.release(3))).check()


def test_a_rollback_holds_the_routes_that_the_earlier_code_does_not_know() -> None:
    walk = Walk()
    walk.ship(other_bytes(BASE))
    walk.ship(routed(ITEMS, ITEM, Route("POST", "items")))
    walk.back()
    assert walk.updates == 3
    assert [said for said in walk.said if "POST /items is removed" in said and "the live version of Alpha" in said]


def test_after_a_release_without_an_api_no_route_of_a_failed_one_is_held() -> None:
    walk = Walk()
    walk.ship(BASE)
    walk.ship(other_bytes(of(alpha=Function(), beta=Function())))
    walk.ship(routed(ITEMS, Route("POST", "items")), shifts=False)
    walk.back()
    walk.ship(BASE)
    walk.is_settled()


def test_a_rollback_to_versions_that_miss_nothing_moves_traffic_before_any_update() -> None:
    walk = Walk()
    walk.ship(replace(other_bytes(BASE), policies=(READ,)))
    walk.ship(replace(BASE, policies=(QUERY,)))
    wanted, versions = walk.history[0]
    assert not plan(walk.aws.live, wanted, recorded=walk.live, back_to=versions).before_traffic
    walk.back()


@pytest.mark.parametrize(
    "after",
    [replace(BASE, policies=(READ, DENY)), replace(BASE, boundary=BOUNDARY), alpha(ReservedConcurrentExecutions=5)],
    ids=["is denied more", "is bounded", "has less room"],
)
def test_a_rollback_gives_earlier_versions_what_they_need_before_traffic_moves(after: Definition) -> None:
    walk = Walk()
    walk.ship(replace(other_bytes(BASE), policies=(READ,)))
    walk.ship(after)
    wanted, versions = walk.history[0]
    assert plan(walk.aws.live, wanted, recorded=walk.live, back_to=versions).before_traffic
    walk.back()


def test_routes_are_held_while_the_whole_api_is_removed_after_a_release_that_failed() -> None:
    def alone(*routes: Route, letter: str) -> Definition:
        return of(alpha=Function(routes, letter=letter), beta=None)

    walk = Walk()
    walk.ship(alone(ITEM, letter="a"))
    walk.ship(alone(ITEMS, ITEM, letter="f"), shifts=False)
    walk.ship(alone(letter="e"))
    assert any("GET /items/{id} is removed with the API" in said and "the live version" in said for said in walk.said)
    walk.ship(alone(Route("GET", "items/{item}"), letter="f"))
    walk.ship(alone(Route("GET", "items/{item}"), letter="a"))
    walk.is_settled()


def test_a_failed_release_that_ships_again_finds_its_routes_still_held() -> None:
    walk, after = Walk(), of(alpha=Function((ITEM,)), beta=Function((OTHER, ITEMS)))
    walk.ship(BASE)
    walk.ship(other_bytes(after), shifts=False)
    held = {name for name in walk.aws.resources if name.endswith("AliasHeld")}
    walk.ship(other_bytes(after))
    assert held == {"AlphaAliasHeld"}
    assert walk.updates == 2
    walk.ship(after)
    assert not held & walk.aws.resources.keys()


def _walk(history: list[tuple[Definition, str]]) -> None:
    walk = Walk()
    for definition, how in history:
        if how == "is rolled back" and len(walk.history) > 1:
            walk.back()
        else:
            walk.ship(definition, shifts=how != "fails" or not walk.live)
    last, _ = history[-1]
    walk.ship(last)
    walk.ship(last)
    walk.is_settled()


HISTORIES = st.lists(
    st.tuples(definitions(), st.sampled_from(["goes live", "fails", "is rolled back"])), min_size=2, max_size=4
)
ANY_TIME = (HealthCheck.too_slow, HealthCheck.data_too_large)
AS_FOUND = (Phase.explicit, Phase.reuse, Phase.generate)
"""A definition has many parts: to make a failing history smaller takes minutes."""


@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=ANY_TIME, phases=AS_FOUND)
@given(HISTORIES)
def test_random_sequences_of_releases_fail_no_request(history: list[tuple[Definition, str]]) -> None:
    _walk(history)


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)  # eight minutes on a quiet machine
@settings(max_examples=1000, deadline=None, suppress_health_check=ANY_TIME, phases=AS_FOUND)
@given(HISTORIES)
def test_a_thousand_random_sequences_of_releases_fail_no_request(history: list[tuple[Definition, str]]) -> None:
    _walk(history)
