"""Watching a shift, and a rollback's template, with fakes of CodeDeploy and Lambda and without real time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pytest
from botocore.exceptions import ClientError

from hitless.aws.codedeploy import CodeDeploy, Deployment, Move, Shift, ShiftFailure
from hitless.aws.lambdas import AliasState, Lambdas
from hitless.cloud.transform.desired import desired
from hitless.cloud.transform.model import PREVIOUS_OUTPUT, RELEASE_OUTPUT, of_type
from hitless.cloud.transform.updates import numbered
from hitless.cloud.transition import without_publishing
from hitless.errors import ConflictError, UsageError
from hitless.homes.aws_stage import clock_factor
from tests.unit.aws_fakes import FakeTime
from tests.unit.release_support import RememberedStack, packaged, release

pytestmark = pytest.mark.unit


@dataclass
class FakeCodeDeploy(CodeDeploy):
    """Each group's deployment goes through the given states, one per look-up, and stays at the last one."""

    states: dict[str, list[Deployment]]
    aliases: FakeAliases
    busy: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    stopped: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    rolling_back: dict[str, int] = field(default_factory=dict)
    """Group → how many looks its roll-back takes, once it was stopped."""

    def start(
        self,
        move: Move,
        *,
        configuration: str,
        description: str,
        hooks: Mapping[str, str],
        ignoring: Collection[str] = (),
    ) -> str:
        self.started.append(move.group)
        if move.group in self.busy:
            raise ConflictError(f"{move.function}: another deployment is under way")
        if move.group in self.denied:
            said = {"Error": {"Code": "DeploymentConfigDoesNotExistException", "Message": "no such strategy"}}
            raise ClientError(said, "CreateDeployment")
        self.aliases.at[move.function] = AliasState(move.current, {move.target: 0.1})
        return move.group

    def look(self, deployment: str) -> Deployment:
        if deployment in self.stopped:
            return Deployment("Stopped")
        states = self.states[deployment]
        return states.pop(0) if len(states) > 1 else states[0]

    def stop(self, deployment: str) -> None:
        self.stopped.append(deployment)

    def hooks(self, deployment: str, move: Move) -> dict[str, str]:
        return {"BeforeAllowTraffic": "Succeeded"}

    def under_way(self, group: str) -> list[str]:
        if group in self.stopped and self.rolling_back.get(group):
            self.rolling_back[group] -= 1
            return [f"roll-back of {group}"]
        return [group] if not self.look(group).ended else []


@dataclass
class FakeAliases(Lambdas):
    at: dict[str, AliasState] = field(default_factory=dict)
    pointed: list[tuple[str, str]] = field(default_factory=list)

    def alias(self, function: str, name: str) -> AliasState | None:
        return self.at.get(function)

    def point(self, function: str, name: str, version: str) -> None:
        self.pointed.append((function, version))
        self.at[function] = AliasState(version)


GOING, WELL = Deployment("InProgress"), Deployment("Succeeded")
RANG = Deployment("Stopped", "alarm B is in ALARM")


def moves(*names: str) -> list[Move]:
    return [Move(name, name, "live", "1", "2") for name in names]


def shift(states: dict[str, list[Deployment]], busy: frozenset[str] = frozenset()) -> tuple[Shift, FakeCodeDeploy]:
    aliases = FakeAliases()
    codedeploy = FakeCodeDeploy(states, aliases, busy)
    return Shift(codedeploy, aliases, alias="live", clock=FakeTime()), codedeploy


def run(one: Shift, *names: str) -> tuple[ShiftFailure | None, list[float]]:
    weights: list[float] = []
    failure = one.run(moves(*names), configuration="c", description="d", on_weight=weights.append)
    return failure, weights


def test_a_shift_succeeds_if_all_its_deployments_do() -> None:
    one, codedeploy = shift({"A": [GOING, WELL], "B": [GOING, GOING, WELL]})
    failure, weights = run(one, "A", "B")
    assert failure is None
    assert weights[0] == 10
    assert codedeploy.stopped == []


@pytest.mark.parametrize(("factor", "watched_s"), [(1.0, 60.0), (6.0, 10.0)])
def test_the_guard_is_shortened_by_the_emulators_clock_factor(factor: float, watched_s: float) -> None:
    clock, aliases = FakeTime(), FakeAliases()
    one = Shift(
        FakeCodeDeploy({}, aliases, frozenset()), aliases, alias="live", clock=clock, poll_s=2.0, clock_factor=factor
    )
    assert one.guard(60, tuple) is None
    assert clock.now == watched_s


@pytest.mark.parametrize("said", ["fast", "0.5", "0", "nan", "1001"])
def test_an_invalid_clock_factor_is_refused(said: str) -> None:
    assert clock_factor({}) == 1
    with pytest.raises(UsageError, match="HITLESS_AWS_CLOCK_FACTOR"):
        clock_factor({"HITLESS_AWS_CLOCK_FACTOR": said})


def test_a_failed_deployment_stops_all_others_that_still_run() -> None:
    one, codedeploy = shift({"A": [GOING], "B": [GOING, RANG], "C": [WELL]})
    failure, _ = run(one, "A", "B", "C")
    assert failure == ShiftFailure("B: alarm B is in ALARM")
    assert codedeploy.stopped == ["A"], "C has ended already: its alias is put back by its version"


def test_a_refused_deployment_stops_those_already_started() -> None:
    one, codedeploy = shift({"A": [GOING], "B": [GOING]})
    codedeploy.denied = frozenset({"B"})
    failure, _ = run(one, "A", "B")
    assert failure == ShiftFailure("CreateDeployment: no such strategy")
    assert codedeploy.stopped == ["A"]


def test_a_deployment_whose_role_is_too_new_is_started_again() -> None:
    """CodeDeploy API Reference, ErrorInformation: IAM_ROLE_PERMISSIONS, IAM_ROLE_MISSING."""
    unknown = Deployment("Failed", "The service role cannot be accessed.", role_refused=True)
    one, codedeploy = shift({"A": [GOING, WELL], "B": [unknown, GOING, WELL]})
    assert run(one, "A", "B")[0] is None
    assert codedeploy.started == ["A", "B", "B"]
    one, codedeploy = shift({"A": [GOING], "B": [unknown]})
    failure, _ = run(one, "A", "B")
    assert failure == ShiftFailure("B: The service role cannot be accessed.")
    assert len(codedeploy.started) < 30, "within a bound"


def test_a_busy_deployment_group_stops_the_deployments_already_started() -> None:
    one, codedeploy = shift({"A": [GOING], "B": [GOING]}, busy=frozenset({"B"}))
    failure, _ = run(one, "A", "B")
    assert failure is not None
    assert "another deployment" in failure.reason
    assert codedeploy.stopped == ["A"]


def test_a_stop_waits_until_codedeploy_has_moved_the_alias_back() -> None:
    one, codedeploy = shift({"A": [GOING], "B": [WELL]})
    codedeploy.rolling_back = {"A": 3}
    assert one.stop_groups(["A", "B"]) == ["A"]
    assert codedeploy.stopped == ["A"]
    assert codedeploy.rolling_back == {"A": 0}, "a deployment of CodeDeploy's own was still under way"


def test_an_alias_with_leftover_weights_is_set_to_the_version_with_most_traffic() -> None:
    one, codedeploy = shift({})
    codedeploy.aliases.at = {"A": AliasState("1", {"2": 0.1}), "B": AliasState("2")}
    one.settle(["A", "B"])
    assert codedeploy.aliases.pointed == [("A", "1")]


def test_only_aliases_that_differ_from_the_wanted_version_are_updated() -> None:
    one, codedeploy = shift({})
    codedeploy.aliases.at = {"A": AliasState("1"), "B": AliasState("2"), "C": AliasState("1", {"2": 0.5})}
    one.point({"A": "1", "B": "1", "C": "1", "gone": "1"})
    assert codedeploy.aliases.pointed == [("B", "1"), ("C", "1")]


def test_a_rollback_does_not_publish_a_version_that_left_the_stack() -> None:
    stack = RememberedStack()
    compiled = packaged().template
    for number, letter in enumerate("abcd", 1):
        stack.ship(compiled, release(number, dict.fromkeys(("zones",), letter)))
    first = desired(compiled, release(1))
    made = without_publishing(first, stack.live, {"ZonesAliasLive": "1", "MetaAliasLive": "1"})
    kept = of_type(made["Resources"], "AWS::Lambda::Version")
    assert not [name for name in kept if name.startswith("Zones")]
    assert [name for name in kept if name.startswith("Meta")], "that one never changed, and is still the stack's"
    assert '"ExecutedVersion"' not in str(made)
    alarms = [one for name, one in made["Resources"].items() if name.startswith("ZonesAlarm")]
    dimensions = alarms[0]["Properties"]["Metrics"][1]["MetricStat"]["Metric"]["Dimensions"]
    assert {"Name": "ExecutedVersion", "Value": "1"} in dimensions


def test_a_rollbacks_template_has_its_release_number_and_the_previous_one() -> None:
    made = numbered(desired(packaged().template, release(3)), 3, 7)
    assert made["Outputs"][RELEASE_OUTPUT]["Value"] == "3"
    assert made["Outputs"][PREVIOUS_OUTPUT]["Value"] == "7"
