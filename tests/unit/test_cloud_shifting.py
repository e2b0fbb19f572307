"""Special cases of a shift: functions that a strategy cannot move, and failures after the point of no return."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from hitless.aws.codedeploy import AT_ONCE, CodeDeploy, Move
from hitless.aws.lambdas import Lambdas
from hitless.cloud.release.proving import environments
from hitless.cloud.release.rollback import abort
from hitless.cloud.stage.stage import StillAtWorkError
from hitless.cloud.transform.model import LiveState
from hitless.cloud.transition import plan
from hitless.errors import CloudError, ServiceFileError
from hitless.release.result import Outcome
from hitless.service.model import AlarmSettings
from tests.unit.cloud_fakes import World

pytestmark = pytest.mark.unit

META = "worldclock-prod-meta"


def world_of(**given: Any) -> World:
    world = World(**given)
    assert world.deploy("a").outcome is Outcome.LIVE
    world.parted.add(META)
    world.moments.clear()
    return world


def test_a_function_with_a_new_role_shifts_at_once_after_the_gradual_shifts() -> None:
    world = world_of()
    result = world.deploy("b")
    assert (result.outcome, result.reason) == (Outcome.LIVE, None)
    assert world.serves() == "b"
    assert [(move.function, move.at_once) for move, _ in world.deployments.values()] == [
        ("worldclock-prod-convert", False),
        (META, True),
    ]
    assert [(step.state, step.weight_percent) for step in result.steps] == [
        *(("preparing", 0), ("testing", 0), ("shifting", 0), ("baking", 10), ("shifting", 100)),
        *(("guard", 100), ("draining", 100), ("ended", 100)),
    ]


def test_an_alarm_after_an_at_once_shift_moves_all_functions_back() -> None:
    world = world_of(alarms=AlarmSettings(guard_s=0, also=("disk",)))
    seen: list[str] = []

    def ring(_: int, moment: str) -> None:
        seen.append(moment)
        if seen.count("look at alarms") == 20:
            world.ringing.add("disk")

    world.at = ring
    result = world.deploy("b")
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "alarm disk rings")
    assert world.serves() == "a"


def test_a_shift_that_must_happen_at_once_is_announced_before_anything_changes() -> None:
    world = World()
    world.deploy("a")
    world.deploy("b")
    live, wanted = world.stack.live, copy.deepcopy(world.records.template(2))
    assert wanted is not None
    before = LiveState(live.template, dict.fromkeys(live.aliases, "1"), live.versions)
    assert plan(before, wanted).notes == ()
    wanted["Resources"]["MetaLambdaFunction"]["Properties"]["Role"] = "arn:aws:iam::1:role/other"
    (said,) = plan(before, wanted).notes
    assert said.startswith(f"{META} gets another Role: its traffic moves at once")


class Versions:
    """Lambda's GetFunctionConfiguration, by version."""

    def __init__(self, **versions: dict[str, Any]) -> None:
        self._versions = versions

    def get_function_configuration(self, *, FunctionName: str, Qualifier: str) -> dict[str, Any]:  # noqa: N803
        return self._versions[f"v{Qualifier}"]


@pytest.mark.parametrize(
    ("two", "shares"),
    [
        ({"Role": "r", "Timeout": 9}, True),
        ({"Role": "r", "DeadLetterConfig": {}}, True),
        ({"Role": "s"}, False),
        ({"Role": "r", "DeadLetterConfig": {"TargetArn": "q"}}, False),
    ],
)
def test_versions_can_share_traffic_only_with_the_same_role_and_dead_letter_target(
    two: dict[str, Any], shares: bool
) -> None:
    assert Lambdas(Versions(v1={"Role": "r"}, v2=two)).may_share("f", "1", "2") is shares


def test_an_at_once_move_uses_codedeploys_all_at_once_configuration() -> None:
    told: list[str] = []

    class Client:
        def create_deployment(self, *, deploymentConfigName: str, **_: Any) -> dict[str, str]:  # noqa: N803
            told.append(deploymentConfigName)
            return {"deploymentId": "d-1"}

    codedeploy = CodeDeploy(Client(), "application")
    for at_once in (False, True):
        move = Move("f", "g", "live", "1", "2", at_once=at_once)
        codedeploy.start(move, configuration="c", description="", hooks={})
    assert told == ["c", AT_ONCE]


@dataclass
class Fails:
    """Raises at a kind of moment, after this many updates of the stack."""

    moment: str
    error: Exception
    updates: int = 2
    seen: list[str] = field(default_factory=list)

    def __call__(self, _: int, moment: str) -> None:
        self.seen.append(moment)
        if moment == self.moment and self.seen.count("the stack is updated") >= self.updates:
            raise self.error


NO_ROOM = CloudError("the account has no room", hint="ask for more")


def test_a_failure_after_a_release_is_live_moves_no_traffic_back() -> None:
    world = World(provisioned=3, max_provisioned=9)
    assert world.deploy("a").outcome is Outcome.LIVE
    world.max_provisioned = None
    world.at = Fails("provision a version", NO_ROOM)
    assert world.deploy("b").outcome is Outcome.LIVE, "it says so, and goes on"
    assert world.serves() == "b"

    world.at = Fails("provision no more", NO_ROOM)
    with pytest.raises(CloudError, match="no room"):
        world.deploy("c")
    assert (world.serves(), world.stack.live.output("HitlessRelease")) == ("c", "3")
    world.at = None
    assert world.deploy("c").outcome is Outcome.UNCHANGED
    assert world.ready == {(META, "3"): 3}


def test_an_unfinished_stack_update_does_not_move_traffic_back() -> None:
    world = world_of()
    world.parted.clear()
    world.at = Fails("update the stack", StillAtWorkError("it still works", hint="repeat"), updates=1)
    with pytest.raises(StillAtWorkError):
        world.deploy("b")
    assert world.serves() == "b"
    assert world.records.unfinished() is not None
    world.at = None
    assert world.deploy("b").outcome is Outcome.LIVE


def test_an_abort_during_the_last_stack_update_does_not_move_the_aliases() -> None:
    world = world_of()
    world.parted.clear()

    before = copy.deepcopy(world.stack.live)

    def stop(_: int, moment: str) -> None:
        if moment == "the stack is updated" and world.aliases[META].version == "2":
            world.at, world.status, arrived = None, "UPDATE_IN_PROGRESS", world.stack.live
            world.stack.live = before  # the aliases are moved already, the template is not shown yet
            abort(world.cloud(), stage="prod")
            world.status, world.stack.live = "UPDATE_COMPLETE", arrived

    world.at = stop
    assert world.deploy("b").outcome is Outcome.LIVE, "it was past its last look"
    assert (world.serves(), world.stack.live.output("HitlessRelease")) == ("b", "2")


def test_a_shift_succeeds_if_codedeploy_reports_nothing_about_hooks() -> None:
    class Client:
        def get_deployment_target(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": "DeploymentTargetDoesNotExistException"}}, "GetDeploymentTarget")

    assert CodeDeploy(Client(), "application").hooks("d-1", Move("f", "g", "live", "1", "2")) == {}


@pytest.mark.parametrize(("busy", "unreserved", "warmed"), [(0, 1000, 1), (8, 1000, 8), (90, 1000, 50), (8, 10, 1)])
def test_warming_uses_only_concurrency_that_clients_do_not_need(busy: int, unreserved: int, warmed: int) -> None:
    world = world_of(busy=busy, unreserved=unreserved)
    world.parted.clear()
    assert world.deploy("b").outcome is Outcome.LIVE
    assert world.warmed[META, "2"] == warmed


@pytest.mark.parametrize(("busy", "reserved", "warmed"), [(4, 10, 4), (8, 10, 2), (12, 10, 1)])
def test_only_unused_reserved_concurrency_is_warmed(busy: int, reserved: int, warmed: int) -> None:
    function = {"Properties": {"ReservedConcurrentExecutions": reserved}}
    assert environments(World().cloud(), function, busy) == warmed


def test_a_strategy_that_outlasts_the_builds_time_limit_is_refused_before_anything_changes() -> None:
    """ "How long, in minutes, from 5 to 2160 (36 hours), for CodeBuild to wait before it times out any build that has
    not been marked as completed" (CodeBuild API Reference, CreateProject, timeoutInMinutes).
    """
    world = World(time_limit_s=2 * 3600)
    with pytest.raises(ServiceFileError, match=r"Linear10PercentEvery10Minutes may take 150 min .* after 120"):
        world.deploy("a", "Linear10PercentEvery10Minutes")
    assert not world.moments
    assert world.deploy("a", "Canary10Percent5Minutes").outcome is Outcome.LIVE
