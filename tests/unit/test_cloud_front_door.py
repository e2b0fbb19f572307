"""Requests as clients send them, around the move of the API: what passed before must pass after it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest

from hitless.cloud.release.rollback import rollback
from hitless.cloud.repair.facts import look
from hitless.cloud.repair.troubles import troubles
from hitless.cloud.transform.model import STAGE_ID, of_type
from hitless.release.result import Outcome
from hitless.service.model import SmokeRequest
from tests.unit.cloud_fakes import World, small

pytestmark = pytest.mark.unit

ROUTE = "ApiGatewayMethodVersionGet"
OWN = "https://api.execute-api.eu-central-1.amazonaws.com/prod"
VERSION = SmokeRequest("GET", "/version")


def moved(world: World, url: str) -> str | None:
    """What clients get if the API that release 2 brings is wrong."""
    at = world.served or world.stack.live.resources[STAGE_ID]["Properties"]["DeploymentId"]["Ref"]
    return None if at == first_deployment() else "GET /version responded 403 instead of 200"


@functools.cache
def first_deployment() -> str:
    return str(live().stack.live.resources[STAGE_ID]["Properties"]["DeploymentId"]["Ref"])


@functools.cache
def _live() -> World:
    world = World(smoke=(VERSION, SmokeRequest("POST", "/version")), unrouted=frozenset({"ApiGatewayMethodHealthGet"}))
    assert world.deploy("a").outcome is Outcome.LIVE
    world.unrouted = frozenset()
    return world


def live() -> World:
    return copy.deepcopy(_live())


def test_a_release_whose_api_refuses_what_passed_before_is_turned_back() -> None:
    world = live()
    world.refused = moved
    result = world.deploy("b")
    assert (result.outcome, result.reason) == (
        Outcome.ROLLED_BACK, f"{OWN}: GET /version responded 403 instead of 200",
    )  # fmt: skip
    assert world.serves() == "a"
    assert world.stack.live.output("HitlessRelease") == "1"
    assert world.stack.live.resources[STAGE_ID]["Properties"]["DeploymentId"]["Ref"] == first_deployment()
    assert (world.served, world.records.require(2).outcome) == (None, Outcome.ROLLED_BACK)
    assert not troubles(look(world.cloud()))
    first, *_ = [at for at, name in enumerate(world.moments) if name == "move the stage"]
    assert "update the stack" not in world.moments[first - 3 : first + 3], (
        "clients are served before the stack is updated"
    )
    world.refused = lambda world, url: None
    assert world.deploy("c").outcome is Outcome.LIVE


@pytest.mark.parametrize(
    "refused",
    [
        lambda world, url: "GET /version got no response: no route to host",
        lambda world, url: None,
    ],
    ids=["an API that this machine does not reach", "an API that responds"],
)
def test_a_release_goes_live_at(refused: Callable[[World, str], str | None]) -> None:
    world = live()
    world.refused = refused
    assert world.deploy("b").outcome is Outcome.LIVE


@pytest.mark.parametrize("ringing", [False, True])
def test_a_route_that_moved_with_the_api_is_watched_by_the_alarms_after_it(ringing: bool) -> None:
    world = live()
    method = world.stack.live.resources["ApiGatewayMethodVersionGet"]
    compiled = small().template["Resources"]["ApiGatewayMethodVersionGet"]
    world.also = {
        "ApiGatewayMethodVersionGet": {**compiled, "Properties": {**compiled["Properties"], "ApiKeyRequired": True}}
    }
    assert method["Properties"]["ApiKeyRequired"] is False

    def at(number: int, name: str) -> None:
        if name == "the stack is updated" and world.stack.live.output("HitlessRelease") == "2" and ringing:
            world.ringing = set(of_type(world.stack.live.resources, "AWS::CloudWatch::Alarm"))

    world.at = at
    result = world.deploy("b")
    assert "guard at 100 %: the alarms are watched for 300 s" in world.said
    assert result.outcome is (Outcome.ROLLED_BACK if ringing else Outcome.LIVE)
    assert world.serves() == ("a" if ringing else "b")


def test_one_lost_response_turns_no_release_back() -> None:
    world, asked = live(), []

    def flaky(world: World, url: str) -> str | None:
        asked.append(url)
        return "GET /version got no response: timed out" if len(asked) == 2 else None

    world.refused = flaky
    assert world.deploy("b").outcome is Outcome.LIVE
    assert len(asked) > 3


def test_a_request_that_changes_something_is_not_repeated_at_the_api() -> None:
    world = live()
    world.smoke = (SmokeRequest("POST", "/version"),)
    world.moments.clear()
    world.deploy("b")
    assert not [one for one in world.moments if one.startswith("ask ")]


def test_a_release_that_was_being_turned_back_when_its_machine_died_is_finished() -> None:
    whole = live()
    whole.refused = moved
    whole.moments.clear()
    whole.deploy("b")
    since = whole.moments.index("move the stage")
    for moment in range(since, len(whole.moments) + 1):
        world = live()
        world.refused = moved
        world.moments.clear()

        def at(number: int, name: str, last: int = moment) -> None:
            if number > last:
                raise SystemExit

        world.at = at
        try:
            world.deploy("b")
        except SystemExit:
            pass
        world.at = None
        rollback(world.cloud(), 1)
        assert world.serves() == "a"
        assert world.stack.live.output("HitlessRelease") == "1"
