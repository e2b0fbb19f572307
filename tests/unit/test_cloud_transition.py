"""A transition is planned once: a rollback does what it announces, and no failure leaves half a transition."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest

from hitless.cloud.release.rollback import rollback
from hitless.cloud.transform.desired import desired
from hitless.cloud.transition import plan
from hitless.errors import CloudError, ConflictError
from hitless.release.result import Outcome
from tests.unit.cloud_fakes import World
from tests.unit.transitions import TRANSITIONS, Transition
from tests.unit.walk import Walk

pytestmark = pytest.mark.unit

ROUTE = "ApiGatewayMethodVersionGet"
PROMISES = ("while the strategy bakes", "for as long as the strategy bakes")
"""What only a deploy does: it shifts traffic and bakes."""

WRITES = (
    "update the stack",
    "upload",
    "write ",
    "provision",
    "scale",
    "point ",
    "start ",
    "stop ",
    "let ",
    "set ",
    "drop ",
)


def notes_of(world: World) -> list[str]:
    return [one.removeprefix("note: ") for one in world.said if one.startswith("note: ")]


def test_a_rollback_holds_the_route_that_it_announces() -> None:
    world = World(unrouted=frozenset({ROUTE}))
    world.deploy("a")
    world.unrouted = frozenset()
    world.deploy("b")
    world.said.clear()
    world.stack.log.clear()
    world.moments.clear()
    assert rollback(world.cloud(), 1).outcome is Outcome.LIVE
    (note,) = notes_of(world)
    assert note == (
        "GET /version is removed once the earlier code is live: "
        "until then the live version of MetaAliasLive responds, which takes one more update"
    )
    assert "MetaAliasHeld" in world.stack.log[0]["Resources"]
    calls = [one for one in world.moments if one.startswith(("update the stack", "point "))]
    assert [one.partition(" ")[0] for one in calls[:2]] == ["update", "point"], calls


def test_a_deploy_holds_the_route_that_it_announces() -> None:
    world = World()
    world.deploy("a")
    world.unrouted = frozenset({ROUTE})
    world.stack.log.clear()
    world.deploy("b")
    (note,) = notes_of(world)
    assert note.endswith("until then the live version of MetaAliasLive responds, which takes one more update")
    assert "MetaAliasHeld" in world.stack.log[0]["Resources"]


@pytest.mark.parametrize("transition", [one for one in TRANSITIONS if not one.refused], ids=lambda one: one.name)
def test_a_rollback_fails_no_request_and_announces_no_step_that_only_a_deploy_takes(transition: Transition) -> None:
    walk = Walk()
    walk.ship(transition.before)
    walk.ship(transition.after)
    walk.back()
    assert not [note for note in walk.said for promise in PROMISES if promise in note]


def test_planning_changes_neither_the_live_nor_the_wanted_template() -> None:
    walk, (first, *_) = Walk(), TRANSITIONS
    walk.ship(first.before)
    wanted = desired(first.after.compiled(), first.after.release(2))
    live, before = walk.aws.live, copy.deepcopy((walk.aws.live, wanted))
    assert plan(live, wanted) == plan(live, wanted)
    assert (live, wanted) == before


@functools.cache
def _live() -> World:
    world = World(provisioned=3, max_provisioned=9, unrouted=frozenset({ROUTE}))
    for letter in "ab":
        assert world.deploy(letter).outcome is Outcome.LIVE
        world.unrouted = frozenset()
    world.moments.clear()
    return world


def moments_of(act: Callable[[World], object]) -> list[str]:
    world = copy.deepcopy(_live())
    act(world)
    return world.moments


def failing_at(moment: int) -> World:
    """A world in which AWS refuses one call; those before and after it succeed."""
    world = copy.deepcopy(_live())

    def at(number: int, name: str) -> None:
        if number == moment:
            raise CloudError("AWS refuses it", hint="fix the cause, then repeat")

    world.at = at
    return world


def is_whole(world: World, release: int, letter: str) -> None:
    """Checks that traffic, stack and provisioned concurrency are those of one release, and that no shield is up."""
    assert (world.serves(), world.stack.live.output("HitlessRelease")) == (letter, str(release))
    version = world.aliases["worldclock-prod-meta"].version
    assert world.ready == {("worldclock-prod-meta", version): 3}
    assert (world.variables, world.permitted) == ({}, set())


def test_a_deploy_refused_by_aws_at_any_step_keeps_the_live_release_or_is_finished_by_the_next() -> None:
    calls = moments_of(lambda world: world.deploy("c"))
    writes = [at for at, name in enumerate(calls, 1) if name.startswith(WRITES)]
    assert len(writes) >= 25
    ends = set()
    for moment in writes:
        world, result = failing_at(moment), None
        try:
            result = world.deploy("c")
        except CloudError:
            pass
        world.at = None
        if result is not None:
            ends.add(result.outcome)
            where = f"refused at {calls[moment - 1]}: {result}"
            assert world.serves() == ("c" if result.outcome is Outcome.LIVE else "b"), where
        else:
            assert world.deploy("b").outcome in (Outcome.LIVE, Outcome.UNCHANGED)
        again = world.deploy("c")
        assert again.outcome in (Outcome.LIVE, Outcome.UNCHANGED), f"refused at {calls[moment - 1]}: {again}"
        is_whole(world, again.release, "c")
    assert Outcome.ROLLED_BACK in ends


def test_a_rollback_refused_by_aws_at_any_step_is_finished_by_the_same_command() -> None:
    calls = moments_of(lambda world: rollback(world.cloud(), 1))
    for moment in (at for at, name in enumerate(calls, 1) if name.startswith(WRITES)):
        world = failing_at(moment)
        try:
            rollback(world.cloud(), 1)
        except CloudError:
            assert world.letter("worldclock-prod-meta", world.aliases["worldclock-prod-meta"].version) in "ab"
        world.at = None
        rollback(world.cloud(), 1)
        is_whole(world, 1, "a")


def test_a_rollback_stops_if_the_stack_is_updated_by_somebody_else() -> None:
    world = copy.deepcopy(_live())

    def at(number: int, name: str) -> None:
        if name == "point an alias":
            world.at = None
            world.stack.live.template["Resources"]["ApiAccessLogs"]["Properties"]["RetentionInDays"] = 7

    world.at = at
    with pytest.raises(ConflictError, match="was updated while this command ran"):
        rollback(world.cloud(), 1)
    assert world.serves() == "a", "traffic is where it was asked to be"
    assert rollback(world.cloud(), 1).outcome is Outcome.LIVE
