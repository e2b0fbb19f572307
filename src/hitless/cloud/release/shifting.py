"""Moves the traffic of one release: CodeDeploy's deployments, the alarms beside them, and the guard after them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hitless.aws.codedeploy import Move, ShiftFailure
from hitless.aws.traffic import Traffic
from hitless.clock import timestamp
from hitless.cloud.records.records import Record, ReleaseSteps
from hitless.cloud.release.executor import (
    Superseded,
    Tenure,
)
from hitless.cloud.release.front_door import WATCHED_S, FrontDoor
from hitless.cloud.stage.stage import (
    Cloud,
    Observed,
    lower_shield,
)
from hitless.cloud.transform.desired import functions_of
from hitless.cloud.transform.functions import is_shielded
from hitless.cloud.transform.guard import watched_s
from hitless.cloud.transform.model import ALIAS, FunctionIds, Template
from hitless.cloud.transition import Transition
from hitless.errors import CandidateFailedError
from hitless.release.receipt import HookEnd
from hitless.release.result import Outcome
from hitless.service.model import AlarmSettings
from hitless.service.strategy import AllAtOnce, Strategy


@dataclass(frozen=True, slots=True)
class ReleaseRun:
    """One release under way."""

    record: Record
    transition: Transition
    before: Observed
    targets: Mapping[FunctionIds, str]
    home: Mapping[str, str]
    """Lambda's name → the live release's version, to which traffic goes back."""
    hooks: Mapping[str, str]
    """CodeDeploy's lifecycle event → the hook's name in Lambda. Hooks get no traffic."""
    previous: int | None
    alarms: AlarmSettings

    @property
    def wanted(self) -> Template:
        return self.transition.wanted


class Shifting:
    """Moves one release's traffic while watching the alarms. `asked`: the results of its hooks.

    An alias splits traffic only between versions with the same role and dead-letter target. A function whose role or
    target changes moves at once, after all functions that move by the strategy. It is watched as long as a bake takes.

    CodeDeploy looks alarms up by name, which finds only metric alarms (DescribeAlarms, `AlarmTypes`). So this process
    watches composite alarms, and all alarms after AllAtOnce. An alarm that rings before the shift says nothing about
    the release, and is not watched.
    """

    def __init__(self, cloud: Cloud, steps: ReleaseSteps, tenure: Tenure) -> None:
        self._cloud, self._steps, self._tenure = cloud, steps, tenure
        self.asked: list[HookEnd] = []
        self._moved: Sequence[Move] = ()
        self._watch: AlarmWatch | None = None

    def watch_api(self, run: ReleaseRun, strategy: Strategy, door: FrontDoor) -> ShiftFailure | None:
        """Watch the API once it has moved: requests as clients send them, and the alarms if routes moved with it."""
        if run.previous is None or door.served is None:
            return None
        failure = self._cloud.shift.guard(WATCHED_S, door.failing, said="{}") if door.must_pass else None
        if failure is None and run.transition.moves_routes and self._watch is not None:
            failure = self._guard(run, self._moved, self._watch, watched_s(run.alarms, strategy))
        return failure

    def run(self, run: ReleaseRun, strategy: Strategy) -> None:
        """Start one CodeDeploy deployment for each changed function. If no client is served yet, point the aliases
        instead.

        Raises CandidateFailedError if one fails, Superseded if it was stopped by hand.
        """
        moves = self._moves(run)
        self._tenure.check(run.record, run.home)
        if not moves:
            self._cloud.shift.point({functions_of(run.wanted)[ids]: target for ids, target in run.targets.items()})
            return
        self._steps.add("shifting", 0, f"{len(moves)} function{'s' if len(moves) > 1 else ''} by {strategy}")
        shared, at_once = [one for one in moves if not one.at_once], [one for one in moves if one.at_once]
        self._shield(run, shared, strategy)
        watch = AlarmWatch.begin(self._cloud, run.alarms.also)
        self._moved, self._watch = moves, watch
        failure = self._by_codedeploy(run, shared, watch)
        if failure is None and at_once:
            self._say_at_once(at_once, strategy)
            failure = self._by_codedeploy(run, at_once, watch)
        self._tenure.check(run.record, run.home)  # a process that took over has settled the aliases
        lower_shield(self._cloud, run.before)
        if failure is None and (guarded := moves if isinstance(strategy, AllAtOnce) else at_once):
            failure = self._guard(run, guarded, watch, watched_s(run.alarms, strategy))
        if failure is None:
            return
        if failure.by_hand:
            self._cloud.shift.point(run.home)
            raise Superseded(Outcome.ABORTED, f"the shift was stopped by hand ({failure.reason})", last=True)
        raise CandidateFailedError(failure.reason)

    def _moves(self, run: ReleaseRun) -> list[Move]:
        if not run.home:
            return []
        found = []
        for ids, target in run.targets.items():
            function, state = run.before.functions.get(ids), run.before.aliases.get(ids)
            if function is None or state is None or state.version == target or function in run.hooks.values():
                continue
            at_once = not self._cloud.lambdas.may_share(function, state.version, target)
            found.append(Move(function, ids.base, ALIAS, state.version, target, at_once=at_once))
        return found

    def _by_codedeploy(self, run: ReleaseRun, moves: Sequence[Move], watch: AlarmWatch) -> ShiftFailure | None:
        if not moves:
            return None
        return self._cloud.shift.run(
            moves,
            configuration=_configuration(run.wanted, moves),
            description=f"release {run.record.release}",
            hooks=run.hooks,
            ignoring=watch.not_for_codedeploy,
            ringing=watch.beside_codedeploy,
            on_hook=lambda hook, status: self.asked.append(HookEnd(timestamp(self._cloud.clock.now()), hook, status)),
            on_weight=self._weighed,
        )

    def _weighed(self, weight: float) -> None:
        if weight or self._steps.weights()[-1][1] == 0:  # functions that move at once begin when all others have moved
            self._steps.add("baking" if 0 < weight < 100 else "shifting", weight)

    def _say_at_once(self, moves: Sequence[Move], strategy: Strategy) -> None:
        if not isinstance(strategy, AllAtOnce):
            names = ", ".join(one.function for one in moves)
            self._cloud.say(f"{names}: at once, because Lambda splits traffic only between versions with the same role")

    def _guard(self, run: ReleaseRun, moves: Sequence[Move], watch: AlarmWatch, seconds: int) -> ShiftFailure | None:
        """A move at once has no bake: watch the alarms once it has all traffic, before the API is updated."""
        if not seconds:
            return None
        self._steps.add("guard", 100, f"the alarms are watched for {seconds} s")
        held = self._cloud.stack.held()
        candidates = [held[name] for name in alarms_of(run.wanted, moves)]

        def ringing() -> list[str]:
            self._tenure.check(run.record, run.home)
            return watch.after(candidates)

        return self._cloud.shift.guard(seconds, ringing)

    def _shield(self, run: ReleaseRun, moves: Sequence[Move], strategy: Strategy) -> None:
        """Raise the shield if there is a bake, for the functions whose release wants one."""
        if run.before.stage is None or isinstance(strategy, AllAtOnce):
            return
        shielded = {ids.base: ids for ids in run.targets if is_shielded(run.wanted["Resources"][ids.function])}
        self._cloud.shield.up(run.before.stage, {shielded[one.group]: one for one in moves if one.group in shielded})


def _configuration(wanted: Template, moves: Sequence[Move]) -> str:
    """The name of CodeDeploy's configuration that the groups of a wanted template have."""
    group = wanted["Resources"][f"{moves[0].group}DeploymentGroup"]["Properties"]["DeploymentConfigName"]
    if isinstance(group, str):
        return group
    return str(wanted["Resources"][group["Ref"]]["Properties"]["DeploymentConfigName"])


@dataclass(frozen=True, slots=True)
class AlarmWatch:
    """The user's own alarms during one shift."""

    traffic: Traffic
    metric: tuple[str, ...]
    composite: tuple[str, ...]
    not_for_codedeploy: tuple[str, ...]
    """The alarms that CodeDeploy must not watch: composite ones, and those that rang before the shift."""

    @classmethod
    def begin(cls, cloud: Cloud, names: Collection[str]) -> AlarmWatch:
        """Read the alarms, and report those that already ring. Raises UsageError if one is missing."""
        found = cloud.traffic.alarms(names)
        for one in found:
            if one.rings:
                cloud.say(f"{one.name} rings already, so it says nothing about this release: it is not watched")
        composite = tuple(one.name for one in found if not one.rings and one.composite)
        ringing = tuple(one.name for one in found if one.rings)
        metric = tuple(one.name for one in found if not one.rings and not one.composite)
        return cls(cloud.traffic, metric, composite, (*ringing, *composite))

    def beside_codedeploy(self) -> list[str]:
        """The alarms that ring now and that CodeDeploy does not watch during the shift."""
        return self.traffic.ringing(self.composite)

    def after(self, candidates: Collection[str]) -> list[str]:
        """The alarms that ring now, of all that are watched after the shift. `candidates` are the new versions' own."""
        return self.traffic.ringing([*candidates, *self.metric, *self.composite])


def alarms_of(wanted: Template, moves: Iterable[Move]) -> list[str]:
    """The logical ids of the alarms of the versions that these moves lead to."""
    groups = (wanted["Resources"][FunctionIds(move.group).group]["Properties"] for move in moves)
    named = [one["Name"] for group in groups for one in group["AlarmConfiguration"]["Alarms"]]
    return [name["Ref"] for name in named if isinstance(name, dict)]
