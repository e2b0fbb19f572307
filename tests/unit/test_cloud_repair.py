"""Repair of a stage: after a death at any call, beside another process, and interrupted itself."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from hitless.aws.api_stages import ApiStage
from hitless.aws.lambdas import LATEST, AliasState
from hitless.cloud.release.rollback import rollback
from hitless.cloud.repair.facts import look
from hitless.cloud.repair.repair import Repair, Repaired
from hitless.cloud.repair.troubles import troubles
from hitless.cloud.status import status
from hitless.errors import CloudError, ConflictError, ServiceFileError, UsageError
from hitless.release.result import Outcome, Result
from tests.unit.cloud_fakes import World
from tests.unit.cloud_services import FakeLambdas
from tests.unit.test_cloud_deploy import Killed, check_healthy, distinct, live_world, meet, moments_of, stop_at

pytestmark = pytest.mark.unit


def fix(world: World, *skip: str, here: Callable[[str], Path] = lambda sha256: Path(sha256)) -> Repaired:
    """One process repairs the stage."""
    return repair(world, here, skip).run("prod")


def repair(world: World, here: Callable[[str], Path], skip: tuple[str, ...] = ()) -> Repair:
    return Repair(replace(world.cloud(), lambdas=LambdasCopy(world)), here, skip=skip)


class LambdasCopy(FakeLambdas):
    """The bytes of each version that Lambda has kept."""

    def download(self, function: str, sha256: str, to: Path, *, version: str = LATEST) -> None:
        self._world.moment("fetch a version's code")
        if self._world.letter(function, version) * 64 != sha256:
            raise CloudError("other bytes")


def reported_faults(world: World) -> list[str]:
    """The faults that status reports."""
    return [one.what for one in troubles(look(world.cloud()))]


def check_no_faults(world: World) -> None:
    assert reported_faults(world) == []
    again = fix(world)
    assert (again.fixed, again.left, again.steps) == ((), (), ())


def kill_in(world: World, act: Callable[[World], object], moment: int) -> None:
    stop_at(world, moment, Killed())
    with pytest.raises(Killed):
        act(world)
    world.at = None


def test_repair_of_a_healthy_stage_finds_nothing_and_changes_nothing() -> None:
    world = live_world("a", "b")
    check_no_faults(world)
    changing = ("write", "point", "update", "start", "stop", "move", "map", "upload", "provision", "drop", "set")
    assert not [name for name in world.moments if name.split()[0] in changing]


@pytest.mark.parametrize("before", [(), ("a", "b")], ids=["the first", "the third"])
def test_repair_undoes_a_deploy_that_died_at_any_call_and_the_next_one_ships(before: tuple[str, ...]) -> None:
    calls = moments_of(lambda world: world.deploy("c"), *before)
    for moment in distinct(calls):
        world = live_world(*before)
        kill_in(world, lambda world: world.deploy("c"), moment)
        done = fix(world)
        where = f"cut off at {calls[moment - 1]}: {done.steps}"
        assert done.left == (), where
        assert reported_faults(world) == [], where
        if before and world.stack.live.output("HitlessRelease") == str(len(before)):
            check_healthy(world, before[-1], len(before))
        assert world.records.unfinished() is None, where
        again = world.deploy("c")
        assert again.outcome in (Outcome.LIVE, Outcome.UNCHANGED), where
        check_healthy(world, "c", again.release)


def test_a_repair_that_died_at_any_call_is_finished_by_the_next() -> None:
    deploy = moments_of(lambda world: world.deploy("c"), "a", "b")
    begun = [deploy.index(name) + 1 for name in ("look at a deployment", "the stack is updated")]
    for at in begun:

        def broken(world: World, at: int = at) -> None:
            kill_in(world, lambda world: world.deploy("c"), at)
            world.ready["worldclock-prod-meta", "3"] = 2
            world.moments.clear()

        left = live_world("a", "b")
        broken(left)
        fix(world := copy.deepcopy(left))
        calls = list(world.moments)
        for moment in distinct(calls):
            world = copy.deepcopy(left)
            kill_in(world, fix, moment)
            assert fix(world).left == (), calls[moment - 1]
            check_no_faults(world)
            check_healthy(world, "b", 2)


def test_a_repair_takes_over_a_running_deploy_which_ends_as_superseded() -> None:
    calls = moments_of(lambda world: world.deploy("b"), "a")
    ends = set()
    for moment in distinct(calls):
        if calls[moment - 1] == "update the stack":
            continue  # checked a moment before, as where two deploys meet
        world = live_world("a")
        happened = meet(world, moment, fix)
        deployed: Result | None = None
        with contextlib.suppress(ConflictError):
            deployed = world.deploy("b")
        (done,) = happened
        assert isinstance(done, Repaired)
        where = f"met at {calls[moment - 1]}: {deployed}"
        if deployed is None:  # told to repeat
            continue
        ends.add(deployed.outcome)
        assert deployed.outcome in (Outcome.LIVE, Outcome.SUPERSEDED), where
        letter, release = ("b", 2) if deployed.outcome is Outcome.LIVE else ("a", 1)
        check_healthy(world, letter, release, calls[moment - 1])
    assert {Outcome.LIVE, Outcome.SUPERSEDED} <= ends


def test_a_deploy_changes_nothing_after_a_repair_took_over_even_if_the_repair_died() -> None:
    calls = moments_of(lambda world: world.deploy("b"), "a")
    world = live_world("a")

    def take_over_and_die(world: World) -> None:
        world.moments.clear()
        stop_at(world, fixing.index("write releases/prod/2.json") + 2, Killed())
        with pytest.raises(Killed):
            fix(world)
        world.at = None
        assert world.records.require(2).outcome is None
        world.moments.clear()

    dead = live_world("a")
    kill_in(dead, lambda world: world.deploy("b"), calls.index("look at a deployment") + 1)
    dead.moments.clear()
    fix(dead)
    fixing = list(dead.moments)
    meet(world, calls.index("look at a deployment") + 1, take_over_and_die)
    assert world.deploy("b").outcome is Outcome.SUPERSEDED
    assert not [name for name in world.moments if name.split()[0] in ("write", "point", "update", "start", "stop")]
    assert fix(world).left == ()
    check_healthy(world, "a", 1)


def test_a_repair_changes_nothing_after_a_deploy_has_begun() -> None:
    def drifted() -> World:
        world = live_world("a", "b")
        for name in ("worldclock-prod-meta", "worldclock-prod-convert"):
            world.aliases[name] = AliasState("1")
        return world

    world = drifted()
    fix(world)
    calls = list(world.moments)
    stopped = 0
    for moment in distinct(calls):
        ahead = [name for name in calls[moment - 1 :] if name in ("list", "point an alias")]
        if ahead[:1] == ["point an alias"]:
            continue  # checked a moment before: there a whole deploy, which takes minutes, does not fit
        world = drifted()
        meet(world, moment, lambda world: world.deploy("c"))
        try:
            fix(world)
        except ConflictError:
            stopped += 1
        where = f"met at {calls[moment - 1]}"
        assert world.serves() == "c", where
        check_healthy(world, "c", 3, where)
    assert stopped > 2


def test_repair_does_not_end_a_release_until_its_traffic_was_moved_back() -> None:
    world = live_world("a")
    calls = moments_of(lambda world: world.deploy("b"), "a")
    ended = len(calls) - calls[::-1].index("update the stack")
    kill_in(world, lambda world: world.deploy("b"), ended)
    assert len(reported_faults(world)) == 3, "both aliases, and the release"

    def deny(number: int, name: str) -> None:
        if name == "point an alias":
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "UpdateAlias")

    world.at = deny
    done = fix(world)
    assert len(done.left) == 3
    assert "AWS denies UpdateAlias: no" in done.left[0].fix
    assert world.records.unfinished() is not None
    world.at = None
    assert fix(world).left == ()
    check_healthy(world, "a", 1)


def test_repair_finishes_a_dead_rollback_and_resets_an_alias_that_was_moved_by_hand() -> None:
    calls = moments_of(lambda world: rollback(world.cloud(), 1), "a", "b")
    finished = 0
    for moment in distinct(calls):
        world = live_world("a", "b")
        kill_in(world, lambda world: rollback(world.cloud(), 1), moment)
        begun = world.records.require(2).left_for == 1
        assert fix(world).left == ()
        check_healthy(world, *(("a", 1) if begun else ("b", 2)))
        check_no_faults(world)
        finished += begun
    assert finished > 5

    world = live_world("a", "b")
    for name in ("worldclock-prod-meta", "worldclock-prod-convert"):
        world.aliases[name] = AliasState("1")
    assert len(reported_faults(world)) == 2
    assert fix(world).left == ()
    check_healthy(world, "b", 2)


def test_a_dead_rollback_is_not_mistaken_for_an_earlier_rollback_in_the_other_direction() -> None:
    live = live_world("a", "b")
    rollback(live.cloud(), 1)
    rollback(live.cloud(), 2)
    live.moments.clear()
    rollback((world := copy.deepcopy(live)).cloud(), 1)
    calls = list(world.moments)
    for moment in distinct(calls):
        world = copy.deepcopy(live)
        kill_in(world, lambda world: rollback(world.cloud(), 1), moment)
        begun = world.records.require(2).left_for == 1
        repeated = copy.deepcopy(world)
        assert fix(world).left == ()
        check_healthy(world, *(("a", 1) if begun else ("b", 2)), met_at=calls[moment - 1])
        rollback(repeated.cloud(), 1)
        check_healthy(repeated, "a", 1)
        assert reported_faults(repeated) == [], calls[moment - 1]


def test_two_finished_rollbacks_in_opposite_directions_are_not_taken_for_unfinished() -> None:
    world = live_world("a", "b")
    rollback(world.cloud(), 1)
    rollback(world.cloud(), 2)
    check_no_faults(world)
    check_healthy(world, "b", 2)


def test_each_kind_of_drift_is_reported_and_undone() -> None:
    drifts: dict[str, Callable[[World], None]] = {
        "has weights": lambda w: w.aliases.update({"worldclock-prod-meta": AliasState("2", {"1": 0.1})}),
        "sends its traffic to version 1 100 %": lambda w: w.aliases.update({"worldclock-prod-meta": AliasState("1")}),
        "it serves Deployment other": lambda w: setattr(w, "served", "other"),
        "a shield is up": lambda w: w.variables.update({"hitlessShieldMeta": "1:2"}),
        "4 environments of version 2": lambda w: w.ready.update({("worldclock-prod-meta", "2"): 4}),
        "is not in the bucket": lambda w: w.lost.add("b" * 64),
    }
    for what, drift in drifts.items():
        world = live_world("a", "b")
        drift(world)
        assert [what in one for one in reported_faults(world)] == [True] * len(reported_faults(world)) != []
        planned = repair(world, lambda sha256: Path(__file__)).plan("prod")
        assert planned.steps, what
        assert what in reported_faults(world)[0], "a dry run changed something"
        done = fix(world, here=lambda sha256: Path(__file__))
        assert (done.left, done.steps) == ((), planned.steps)
        assert what in done.fixed[0].what
        check_no_faults(world)
        check_healthy(world, "b", 2)


def test_lost_provisioned_concurrency_is_restored() -> None:
    world = World(provisioned=3)
    world.deploy("a")
    world.ready.clear()
    assert reported_faults(world) == ["0 environments of version 1 are provisioned instead of 3"]
    assert fix(world).left == ()
    assert world.ready == {("worldclock-prod-meta", "1"): 3}


def test_provisioned_concurrency_is_a_fault_only_outside_its_scaling_limits() -> None:
    world = World(provisioned=3, max_provisioned=20)
    world.deploy("a")
    world.ready["worldclock-prod-meta", "1"] = 12
    assert reported_faults(world) == []
    world.ready["worldclock-prod-meta", "1"] = 25
    assert reported_faults(world) == ["25 environments of version 1 are provisioned instead of 20"]


def test_a_stuck_stack_rollback_is_continued_and_skips_a_resource_only_on_request() -> None:
    world = live_world("a", "b")
    world.status, world.blocked = "UPDATE_ROLLBACK_FAILED", {"Table": "it is in use"}
    assert reported_faults(world) == [
        "UPDATE_ROLLBACK_FAILED: the roll-back of an update got stuck at Table: it is in use"
    ]
    done = fix(world)
    assert [one.fix for one in done.left] == [
        "Table: it is in use; fix the cause, and repeat, or skip it with "
        "`hitless aws repair --skip-resource LOGICAL_ID`"
    ]
    with pytest.raises(UsageError, match="Other") as refused:
        fix(world, "Other")
    assert refused.value.hint == "stuck at: Table"
    assert fix(world, "Table").left == ()
    check_no_faults(world)


def test_a_missing_artifact_is_copied_back_from_lambda_if_lambda_still_has_it(tmp_path: Path) -> None:
    world = live_world("a", "b")
    world.lost |= {"a" * 64, "b" * 64}
    assert len(reported_faults(world)) == 4, "both functions of both releases"
    assert fix(world, here=lambda sha256: tmp_path / sha256).left == ()
    check_no_faults(world)

    world.lost |= {"a" * 64}
    world.stack.published["MetaLambdaFunction"][0] = world.stack.published["ConvertLambdaFunction"][0] = "artifacts/z"
    done = fix(world, here=lambda sha256: tmp_path / sha256)
    assert len(done.left) == 2
    assert "other bytes" in done.left[0].fix


def test_an_orphaned_or_endless_shift_is_stopped() -> None:
    world = live_world("a")
    calls = moments_of(lambda world: world.deploy("b"), "a")
    kill_in(world, lambda world: world.deploy("b"), calls.index("look at a deployment") + 1)
    assert reported_faults(world) == [], "it may still be carried on"
    assert fix(world).left == ()
    check_healthy(world, "a", 1)
    record = json.loads(world.documents["releases/prod/2.json"])
    assert (record["outcome"], "rolled it back" in record["reason"]) == ("rolled_back", True)


def test_an_unsafe_rollback_is_refused_before_anything_changes() -> None:
    world = live_world("a", "b")
    key = "releases/prod/1.template.json"
    template = json.loads(world.documents[key])
    template["Resources"]["MetaLambdaFunction"]["Properties"]["FunctionName"] = "other"
    world.documents[key] = json.dumps(template)
    world.moments.clear()
    with pytest.raises(ServiceFileError, match="FunctionName") as refused:
        rollback(world.cloud(), 1)
    assert refused.value.exit_code == 2
    assert refused.value.hint
    assert not [name for name in world.moments if name.split()[0] in ("write", "point", "update")]
    check_healthy(world, "b", 2)


def test_status_lists_faults_in_addition_to_its_other_fields() -> None:
    world = live_world("a", "b")
    world.aliases["worldclock-prod-meta"] = AliasState("1")
    shown = status(world.cloud(), service="worldclock", stage="prod")
    assert (shown["release"], shown["versions"]["meta"]) == (2, "1")
    assert shown["troubles"] == [
        {
            "what": "the alias live sends its traffic to version 1 100 %: release 2 has version 2",
            "where": "function worldclock-prod-meta",
            "mends": "`hitless aws repair`",
        }
    ]


def test_a_removed_permission_is_reported_with_the_command_that_restores_it() -> None:
    world = live_world("a", "b")
    world.closed.add("worldclock-prod-meta")
    (left,) = fix(world).left
    assert "may not invoke the alias live" in left.what
    assert left.fix.startswith("`aws lambda add-permission --function-name worldclock-prod-meta --qualifier live ")


def test_a_wrong_domain_mapping_is_corrected() -> None:
    world = live_world("a", "b")
    resources = world.stack.live.template["Resources"]
    mapping = {
        "DomainName": "api.example.org",
        "RestApiId": {"Ref": "ApiGatewayRestApi"},
        "Stage": {"Ref": "ApiGatewayStage"},
    }
    resources["ApiDomainMapping1"] = {"Type": "AWS::ApiGateway::BasePathMapping", "Properties": mapping}
    for elsewhere, said in ((None, "leads nowhere"), (ApiStage("other", "prod"), "leads to stage prod of API other")):
        world.mapping = elsewhere
        assert reported_faults(world) == [f"api.example.org {said}"]
        assert fix(world).left == ()
        check_no_faults(world)
