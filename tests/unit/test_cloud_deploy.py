"""A release that is interrupted at any call, or meets another process at any call, leaves nothing half done."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

from hitless.aws.codedeploy import Deployment
from hitless.cloud.release.rollback import abort, rollback
from hitless.cloud.repair.repair import Repair
from hitless.cloud.repair.troubles import REPAIR
from hitless.cloud.status import status
from hitless.errors import ConflictError
from hitless.release.result import Outcome, Result
from hitless.service.model import Hooks
from tests.unit.cloud_fakes import World

pytestmark = pytest.mark.unit


class Killed(BaseException):
    """SIGKILL: nothing more of the process runs."""


def stop_at(world: World, moment: int, error: BaseException) -> None:
    def at(number: int, name: str) -> None:
        if number == moment:
            raise error

    world.at = at


def live_world(*letters: str) -> World:
    """Releases of these bytes, one after the other; each call returns another copy of the same world."""
    return copy.deepcopy(_shipped(*letters))


@functools.cache
def _shipped(*letters: str) -> World:
    world = World()
    for letter in letters:
        assert world.deploy(letter).outcome is Outcome.LIVE
    world.moments.clear()
    return world


def moments_of(act: Callable[[World], object], *letters: str) -> list[str]:
    world = live_world(*letters)
    act(world)
    return list(world.moments)


def distinct(calls: list[str]) -> Iterator[int]:
    """The moments whose call differs from the one before: reads of one alias after the other are one moment."""
    return (moment for moment, name in enumerate(calls, 1) if moment == 1 or name != calls[moment - 2])


RAISING = ("set stage variables", "let a version be invoked")


def check_healthy(world: World, letter: str, release: int, met_at: str = "") -> None:
    """All traffic is at these bytes, the stack says so, and neither a release nor a shield hangs in the air.

    But a process that was raising its shield while another one took over leaves that to the next command.
    """
    assert world.serves() == letter
    assert world.stack.live.output("HitlessRelease") == str(release)
    assert world.records.unfinished() is None
    record = world.records.require(release)
    assert record.outcome == "live"
    assert world.records.template(release) is not None
    assert all(version for version in record.versions.values())
    assert met_at in RAISING or (world.variables, world.permitted) == ({}, set()), f"the shield stands, met at {met_at}"


@pytest.mark.parametrize(
    ("before", "error"),
    [((), Killed()), (("a",), EndpointConnectionError(endpoint_url="https://aws")), (("a", "b"), Killed())],
    ids=["the first is killed", "the second loses the network", "the third is killed"],
)
def test_a_deploy_interrupted_at_any_call_is_finished_by_the_same_command(
    before: tuple[str, ...], error: BaseException
) -> None:
    calls = moments_of(lambda world: world.deploy("c"), *before)
    assert len(calls) >= 30
    for moment in distinct(calls):
        world = live_world(*before)
        stop_at(world, moment, error)
        with pytest.raises(type(error)):
            world.deploy("c")
        world.at = None
        again = world.deploy("c")
        assert again.outcome in (Outcome.LIVE, Outcome.UNCHANGED), f"cut off at {calls[moment - 1]}"
        check_healthy(world, "c", again.release)
        assert again.release <= len(before) + 2
        assert all(len(history) == len(before) + 1 for history in world.stack.published.values()), "published twice"


META = "worldclock-prod-meta"


@pytest.mark.parametrize("rung", [frozenset(), frozenset({META})], ids=["it succeeds", "one function's alarm rings"])
@pytest.mark.parametrize("then", ["the same deploy", "another deploy", "repair"])
def test_a_shift_that_codedeploy_ends_alone_is_settled_by_the_next_command(then: str, rung: frozenset[str]) -> None:
    """CodeDeploy goes on without the command that started it: the build's time limit, a killed laptop."""
    version, health = frozenset({"ApiGatewayMethodVersionGet"}), frozenset({"ApiGatewayMethodHealthGet"})
    whole = live_world("a")
    whole.unrouted = version
    whole.deploy("b")
    first = whole.moments.index("start a deployment") + 1
    last = len(whole.moments) - whole.moments[::-1].index("look at a deployment")
    for moment in sorted({first, first + 1, (first + last) // 2, last}):
        world = live_world("a")
        world.unrouted = version
        stop_at(world, moment, Killed())
        with pytest.raises(Killed):
            world.deploy("b")
        world.at = None
        assert status(world.cloud(), service="worldclock", stage="prod")["candidate"]["release"] == 2
        world.codedeploy_goes_on(rung=rung)
        troubles = status(world.cloud(), service="worldclock", stage="prod")["troubles"]
        assert [one for one in troubles if one["where"] == "release 2" and one["mends"] == REPAIR]
        if then == "repair":
            Repair(world.cloud(), Path).run("prod")
            check_healthy(world, "a", 1)
        elif then == "the same deploy":
            assert world.deploy("b").outcome is Outcome.LIVE
            check_healthy(world, "b", 2)
        else:
            world.unrouted = version | health
            world.stack.log.clear()
            assert world.deploy("c").outcome is Outcome.LIVE
            check_healthy(world, "c", 3)
            live = {"MetaAliasHeld": "1", "MetaAliasLive": "1"}
            held = [one["Resources"] for one in world.stack.log[:-1] if "MetaAliasHeld" in one["Resources"]]
            assert held
            for resources in held:
                at = {name: resources[name]["Properties"]["FunctionVersion"] for name in live}
                assert at == live, "a route that both later releases removed reached one of them"


def test_only_the_live_version_is_provisioned_after_an_interrupted_deploy() -> None:
    live = World(provisioned=3, max_provisioned=9)
    assert live.deploy("a").outcome is Outcome.LIVE
    live.moments.clear()
    world = copy.deepcopy(live)
    world.deploy("b")
    calls = list(world.moments)
    for moment in distinct(calls):
        world = copy.deepcopy(live)
        stop_at(world, moment, Killed())
        with pytest.raises(Killed):
            world.deploy("b")
        world.at = None
        assert world.deploy("b").outcome in (Outcome.LIVE, Outcome.UNCHANGED)
        meta = ("worldclock-prod-meta", "2")
        assert world.ready == {meta: 3}, f"cut off at {calls[moment - 1]}"
        assert world.scaled == {meta: (3, 9, 70)}, f"cut off at {calls[moment - 1]}"


def test_provisioned_concurrency_matches_the_live_version_after_an_interrupted_rollback() -> None:
    live = World(provisioned=3, max_provisioned=9)
    assert [live.deploy(letter).outcome for letter in "ab"] == [Outcome.LIVE] * 2
    live.moments.clear()
    world = copy.deepcopy(live)
    rollback(world.cloud(), 1)
    calls = list(world.moments)
    for moment in distinct(calls):
        world = copy.deepcopy(live)
        stop_at(world, moment, Killed())
        with pytest.raises(Killed):
            rollback(world.cloud(), 1)
        world.at = None
        rollback(world.cloud(), 1)
        assert world.ready == {("worldclock-prod-meta", "1"): 3}, f"cut off at {calls[moment - 1]}"


def test_another_deploy_can_follow_an_interrupted_one() -> None:
    calls = moments_of(lambda world: world.deploy("b"), "a")
    for moment in distinct(calls):
        world = live_world("a")
        stop_at(world, moment, Killed())
        with pytest.raises(Killed):
            world.deploy("b")
        world.at = None
        other = world.deploy("c")
        assert other.outcome is Outcome.LIVE, f"cut off at {calls[moment - 1]}: {other.reason}"
        check_healthy(world, "c", other.release)


def meet(world: World, moment: int, act: Callable[[World], object]) -> list[object]:
    """At that moment of one process another one acts, from beginning to end."""
    happened: list[object] = []

    def at(number: int, name: str) -> None:
        if number == moment:
            world.at = None
            happened.append(act(world))

    world.at = at
    return happened


def test_the_newer_of_two_concurrent_deploys_wins_and_the_older_ends_as_superseded() -> None:
    calls = moments_of(lambda world: world.deploy("b"), "a")
    ends = set()
    for moment in distinct(calls):
        if calls[moment - 1] == "update the stack":
            continue  # checked a moment before: there a whole other release, which takes minutes, does not fit
        world = live_world("a")
        happened = meet(world, moment, lambda world: world.deploy("c"))
        try:
            older = world.deploy("b")
        except ConflictError:
            older = world.deploy("b")  # as its hint says
        (newer,) = happened
        assert isinstance(newer, Result)
        where = f"met at {calls[moment - 1]}: {older.outcome}, {older.reason}; {newer.outcome}, {newer.reason}"
        ends.add(older.outcome)
        assert newer.outcome is Outcome.LIVE, where
        if older.outcome is Outcome.LIVE and older.release > newer.release:
            check_healthy(
                world, "b", older.release, calls[moment - 1]
            )  # it had looked, but not begun: so it is the newer one
        else:
            assert world.serves() == "c", where
            check_healthy(world, "c", newer.release, calls[moment - 1])
    assert {Outcome.SUPERSEDED, Outcome.LIVE} <= ends


def test_a_deploy_moves_no_traffic_once_a_newer_deploy_has_taken_a_number() -> None:
    world = live_world("a")

    def at(number: int, name: str) -> None:
        if name == "update the stack":
            world.at = None
            newer = replace(world.records.require(2), release=3, commit="commit-c", holder="another")
            world.records.begin(newer, {}, new=True)

    world.at = at
    older = world.deploy("b")
    assert (older.outcome, older.reason) == (Outcome.SUPERSEDED, "release 3 has begun in the meantime")
    assert (world.serves(), world.deployments) == ("a", {})


def test_one_of_two_concurrent_deploys_of_the_same_content_continues() -> None:
    calls = moments_of(lambda world: world.deploy("b"), "a")
    for moment in distinct(calls):
        if calls[moment - 1] == "update the stack":
            continue
        world = live_world("a")
        happened = meet(world, moment, lambda world: world.deploy("b"))
        try:
            first = world.deploy("b")
        except ConflictError:
            first = world.deploy("b")
        (second,) = happened
        assert isinstance(second, Result)
        assert {first.outcome, second.outcome} & {Outcome.LIVE}, f"met at {calls[moment - 1]}: {first}"
        check_healthy(world, "b", second.release, calls[moment - 1])


def test_a_deploy_changes_nothing_after_another_process_has_taken_over_its_release() -> None:
    calls = moments_of(lambda world: world.deploy("b"), "a")
    world = live_world("a")

    def begin_and_die(world: World) -> None:
        stop_at(world, len(world.moments) + calls.index("start a deployment") + 1, Killed())
        with pytest.raises(Killed):
            world.deploy("b")
        world.at = None
        world.moments.clear()

    meet(world, calls.index("look at a deployment") + 1, begin_and_die)
    lost = world.deploy("b")
    assert (lost.outcome, lost.reason) == (Outcome.SUPERSEDED, "another deploy continues it")
    assert not [name for name in world.moments if name.split()[0] in ("write", "point", "update", "start", "stop")]


def test_a_rollback_during_a_deploy_wins_and_the_deploy_changes_nothing_more() -> None:
    calls = moments_of(lambda world: world.deploy("c"), "a", "b")
    for moment in distinct(calls):
        if calls[moment - 1] == "update the stack":
            continue
        world = live_world("a", "b")
        happened = meet(world, moment, lambda world: rollback(world.cloud(), 1))
        met = None
        with contextlib.suppress(ConflictError):
            met = world.deploy("c")
        (back,) = happened
        assert isinstance(back, Result)
        where = f"met at {calls[moment - 1]}: {met}"
        arrived = met is not None and met.outcome is Outcome.LIVE
        before_it = arrived and calls[moment - 1 :].count("update the stack") == 2
        stands = ("c", "3") if before_it else ("a", "1")
        assert (world.serves(), world.stack.live.output("HitlessRelease")) == stands, where
        assert world.records.unfinished() is None, where


def test_a_rollback_interrupted_at_any_call_is_finished_by_the_same_command() -> None:
    calls = moments_of(lambda world: rollback(world.cloud(), 1), "a", "b")
    for moment in distinct(calls):
        world = live_world("a", "b")
        stop_at(world, moment, Killed())
        with pytest.raises(Killed):
            rollback(world.cloud(), 1)
        world.at = None
        assert rollback(world.cloud(), 1).outcome in (Outcome.LIVE, Outcome.UNCHANGED), calls[moment - 1]
        check_healthy(world, "a", 1)


def test_a_failed_deploy_after_an_interrupted_rollback_does_not_restore_the_bad_release() -> None:
    calls = moments_of(lambda world: rollback(world.cloud(), 1), "a", "b")
    world = live_world("a", "b")
    stop_at(world, calls.index("observe the stack", calls.index("point an alias")) + 1, Killed())
    with pytest.raises(Killed):
        rollback(world.cloud(), 1)
    assert world.serves() == "a", "traffic had gone back, the stack had not followed"

    def ring(number: int, name: str) -> None:
        if name == "look at a deployment":
            for identifier, (move, seen) in list(world.deployments.items()):
                if not seen.ended:
                    world.deployments[identifier] = (move, Deployment("Stopped", "an alarm rang"))

    world.at = ring
    assert world.deploy("c").outcome is Outcome.ROLLED_BACK
    assert world.serves() == "a"


def test_an_abort_during_a_deploy_keeps_the_live_release() -> None:
    calls = moments_of(lambda world: world.deploy("b"), "a")
    begun = calls.index("write releases/prod/2.template.json") + 2
    ended = len(calls) - calls[::-1].index("update the stack")
    for moment in range(begun, ended):
        world = live_world("a")
        happened = meet(world, moment, lambda world: abort(world.cloud(), stage="prod"))
        assert world.deploy("b").outcome is Outcome.ABORTED, f"met at {calls[moment - 1]}"
        assert len(happened) == 1
        assert world.serves() == "a", f"met at {calls[moment - 1]}"
        assert world.records.require(2).outcome == "aborted"


def test_codedeploy_invokes_the_hooks_at_each_shift_but_not_at_a_first_release() -> None:
    world = World(hooks=Hooks(pre_traffic="meta"))
    world.deploy("a")
    assert world.asked == [], "a first release has nothing to shift from"
    assert world.deploy("b").outcome is Outcome.LIVE
    assert world.asked == [("worldclock-prod-convert", {"BeforeAllowTraffic": "worldclock-prod-meta"})]
    check_healthy(world, "b", 2)


def test_provisioned_concurrency_is_ready_before_the_shift_and_then_only_on_the_new_version() -> None:
    world = World(provisioned=3)
    assert world.deploy("a").outcome is Outcome.LIVE
    assert world.ready == {("worldclock-prod-meta", "1"): 3}
    world.moments.clear()
    assert world.deploy("b").outcome is Outcome.LIVE
    order = [name for name in world.moments if name in ("await a provisioned version", "start a deployment")]
    assert order[0] == "await a provisioned version"
    assert world.ready == {("worldclock-prod-meta", "2"): 3}
    assert rollback(world.cloud(), 1).outcome is Outcome.LIVE
    assert world.ready == {("worldclock-prod-meta", "1"): 3}
    world.provisioned = 0
    assert world.deploy("c").outcome is Outcome.LIVE
    assert world.ready == {}


def test_a_failed_candidate_loses_its_provisioned_concurrency_but_the_live_version_does_not() -> None:
    world = World(provisioned=3)
    assert world.deploy("a").outcome is Outcome.LIVE
    for wanted in (5, 0):

        def fail(number: int, name: str) -> None:
            if name == "look at a deployment":
                move, _ = world.deployments[f"d-{len(world.deployments) - 1}"]
                world.deployments[f"d-{len(world.deployments) - 1}"] = (move, Deployment("Failed", "an alarm rang"))

        world.provisioned, world.at = wanted, fail
        assert world.deploy("b").outcome is Outcome.ROLLED_BACK
        world.at = None
        assert world.ready == {("worldclock-prod-meta", "1"): 3}
    assert world.deploy("c").outcome is Outcome.LIVE
    assert world.ready == {}
