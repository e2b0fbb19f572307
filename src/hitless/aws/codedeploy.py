"""CodeDeploy's deployments of Lambda aliases, and shifts of several aliases together.

A deployment moves one alias from one literal version to another by its group's configuration. It watches the group's
alarms, and moves the alias back if it fails or is stopped. A group has one active deployment at a time. A shift starts
one deployment for each function and watches all of them: if one fails, all go back. After a stop or a failure each
alias is read, and is moved if it is not at its version.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from hitless.aws.follow import Time
from hitless.aws.lambdas import AliasState, Lambdas
from hitless.aws.session import Ignoring, error_code, explain
from hitless.errors import CloudError, ConflictError

AT_ONCE = "CodeDeployDefault.LambdaAllAtOnce"
ENDED_WELL = "Succeeded"
ENDED = frozenset({ENDED_WELL, "Failed", "Stopped"})
HOOKS = ("BeforeAllowTraffic", "AfterAllowTraffic")
UNDER_WAY = ["Created", "Queued", "InProgress"]
"""The statuses of a deployment of a Lambda alias before its end."""

_STOPPED_BY_HAND = frozenset({"MANUAL_STOP", "DEPLOYMENT_STOPPED"})
_ROLE_REFUSED, ROLE_KNOWN_WITHIN_S = frozenset({"IAM_ROLE_MISSING", "IAM_ROLE_PERMISSIONS"}), 30.0
"""A deployment that fails by its group's role is started again for so long: a change of IAM spreads within seconds."""


@dataclass(frozen=True, slots=True)
class Move:
    """One alias's move. `function` is Lambda's name, `group` the deployment group's. `at_once`: all traffic at once,
    whatever the configuration says.
    """

    function: str
    group: str
    alias: str
    current: str
    target: str
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Deployment:
    """How a deployment stands; `reason` in CodeDeploy's words, empty while all is well."""

    status: str
    reason: str = ""
    by_hand: bool = False
    began: datetime | None = None
    """Wall time in UTC."""
    role_refused: bool = False

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class CodeDeploy:
    """Deployments of one application. botocore's errors leave as they are: callers are inside `aws_errors`."""

    def __init__(self, client: Any, application: str) -> None:
        self._codedeploy = client
        self.application = application

    def start(
        self,
        move: Move,
        *,
        configuration: str,
        description: str,
        hooks: Mapping[str, str],
        ignoring: Collection[str] = (),
    ) -> str:
        """Begin the move and return the deployment's id. Raises ConflictError if the group has an active deployment.

        Alarms that `ignoring` names are not watched: one that is in ALARM already would stop the deployment at once.
        """
        watched = {"overrideAlarmConfiguration": self._alarms(move.group, ignoring)} if ignoring else {}
        content = {
            "version": 0.0,
            "Resources": [
                {
                    "live": {
                        "Type": "AWS::Lambda::Function",
                        "Properties": {
                            "Name": move.function,
                            "Alias": move.alias,
                            "CurrentVersion": move.current,
                            "TargetVersion": move.target,
                        },
                    }
                }
            ],
            **({"Hooks": [{event: function} for event, function in hooks.items()]} if hooks else {}),
        }
        try:
            answer = self._codedeploy.create_deployment(
                applicationName=self.application,
                deploymentGroupName=move.group,
                deploymentConfigName=AT_ONCE if move.at_once else configuration,
                description=description,
                **watched,
                revision={"revisionType": "AppSpecContent", "appSpecContent": {"content": json.dumps(content)}},
            )
        except ClientError as error:
            if error_code(error) == "DeploymentLimitExceededException":
                raise ConflictError(
                    f"{move.function}: another deployment is under way",
                    hint="wait for it, or stop it with `hitless aws abort`",
                ) from error
            raise
        return str(answer["deploymentId"])

    def _alarms(self, group: str, ignoring: Collection[str]) -> dict[str, Any]:
        """The group's alarm configuration without these alarms."""
        found = self._codedeploy.get_deployment_group(applicationName=self.application, deploymentGroupName=group)
        alarms = found["deploymentGroupInfo"].get("alarmConfiguration", {}).get("alarms", [])
        kept = [{"name": alarm["name"]} for alarm in alarms if alarm["name"] not in ignoring]
        return {"enabled": True, "alarms": kept}

    def look(self, deployment: str) -> Deployment:
        """How the deployment stands."""
        info = self._codedeploy.get_deployment(deploymentId=deployment)["deploymentInfo"]
        error = info.get("errorInformation") or {}
        reason = str(error.get("message") or error.get("code") or "")
        began, code = info.get("createTime"), error.get("code")
        return Deployment(str(info["status"]), reason, code in _STOPPED_BY_HAND, began, code in _ROLE_REFUSED)

    def hooks(self, deployment: str, move: Move) -> dict[str, str]:
        """The status of each hook that was called, by lifecycle event; empty if CodeDeploy does not tell."""
        try:
            answer = self._codedeploy.get_deployment_target(
                deploymentId=deployment, targetId=f"{move.function}:{move.alias}"
            )
        except ClientError:
            return {}
        events = answer["deploymentTarget"]["lambdaTarget"].get("lifecycleEvents", ())
        asked = {str(one["lifecycleEventName"]): str(one["status"]) for one in events}
        return {name: status for name, status in asked.items() if name in HOOKS}

    def stop(self, deployment: str) -> None:
        """End the deployment and let it move the alias back; nothing if it has ended already."""
        with Ignoring("DeploymentAlreadyCompletedException", "DeploymentDoesNotExistException"):
            self._codedeploy.stop_deployment(deploymentId=deployment, autoRollbackEnabled=True)

    def under_way(self, group: str) -> list[str]:
        """The ids of the group's deployments that have not ended; none if there is no such group yet."""
        with Ignoring("ApplicationDoesNotExistException", "DeploymentGroupDoesNotExistException"):
            pages = self._codedeploy.get_paginator("list_deployments").paginate(
                applicationName=self.application, deploymentGroupName=group, includeOnlyStatuses=UNDER_WAY
            )
            return [str(each) for page in pages for each in page["deployments"]]
        return []


STOP_TIMEOUT_S = 300.0
ALARM = "alarm {} rings"


@dataclass(frozen=True, slots=True)
class ShiftFailure:
    """Why a shift failed. `by_hand`: somebody stopped it."""

    reason: str
    by_hand: bool = False


class Shift:
    """Moves aliases.

    `poll_s` is the time between two looks at the deployments. `clock_factor` is how much faster an emulator's minutes
    pass than AWS's; 1 on AWS.
    """

    def __init__(
        self, deployments: CodeDeploy, aliases: Lambdas, *, alias: str, clock: Time = time, poll_s: float = 2.0,
        clock_factor: float = 1.0,
    ) -> None:  # fmt: skip
        self._deployments, self._aliases, self._alias = deployments, aliases, alias
        self._time, self._poll_s, self._clock_factor = clock, poll_s, clock_factor

    def run(
        self, moves: Iterable[Move], *, configuration: str, description: str, on_weight: Callable[[float], None],
        hooks: Mapping[str, str] | None = None, ignoring: Collection[str] = (),
        on_hook: Callable[[str, str], None] = lambda name, status: None,
        ringing: Callable[[], Collection[str]] = tuple,
    ) -> ShiftFailure | None:  # fmt: skip
        """Make all moves by the configuration. Returns None if all traffic is on the targets; if one failed, all were
        stopped.

        `on_hook` gets each hook's name and status at the end. CodeDeploy does not watch the alarms of `ignoring`.
        `ringing` is asked at each look; an alarm that it names ends the shift.
        """
        going: dict[str, Move] = {}
        start = partial(
            self._deployments.start, configuration=configuration, description=description, hooks=hooks or {},
            ignoring=ignoring,
        )  # fmt: skip
        failure = self._start(moves, going, start) or self._follow(going, start, on_weight, ringing)
        if failure is not None:
            self.stop(going)
        for deployment, move in going.items() if hooks else ():
            for event, status in self._deployments.hooks(deployment, move).items():
                on_hook(f"{event} of {move.function}", status)
        return failure

    def _start(
        self, moves: Iterable[Move], going: dict[str, Move], start: Callable[[Move], str]
    ) -> ShiftFailure | None:
        for move in moves:
            try:
                going[start(move)] = move
            except ConflictError as error:
                return ShiftFailure(error.message)
            except ClientError as error:
                return ShiftFailure(explain(error).message)
        return None

    def _follow(
        self, going: dict[str, Move], start: Callable[[Move], str], on_weight: Callable[[float], None],
        ringing: Callable[[], Collection[str]],
    ) -> ShiftFailure | None:  # fmt: skip
        left, role_known_at = dict(going), self._time.monotonic() + ROLE_KNOWN_WITHIN_S
        while left:
            for deployment, move in list(left.items()):
                seen = self._deployments.look(deployment)
                if seen.status == ENDED_WELL:
                    del left[deployment]
                elif seen.role_refused and self._time.monotonic() < role_known_at:
                    del going[deployment], left[deployment]
                    self._await_none(partial(self._under_way, [move.group]))  # CodeDeploy's own, that rolls back
                    if failure := self._start([move], going, start):
                        return failure
                    left |= {name: one for name, one in going.items() if one is move}
                elif seen.ended:
                    return ShiftFailure(f"{move.function}: {seen.reason or seen.status}", seen.by_hand)
            on_weight(self._weight(going.values()))
            if left and (rings := ringing()):
                return ShiftFailure(ALARM.format(", ".join(rings)))
            if left:
                self._time.sleep(self._poll_s)
        return None

    def guard(
        self, seconds: float, ringing: Callable[[], Collection[str]], *, said: str = ALARM
    ) -> ShiftFailure | None:
        """Watch alarms for that long after a shift that had no bake. Returns as soon as one rings."""
        deadline = self._time.monotonic() + seconds / self._clock_factor
        while True:
            if rings := ringing():
                return ShiftFailure(said.format(", ".join(rings)))
            if self._time.monotonic() >= deadline:
                return None
            self._time.sleep(self._poll_s)

    def stop(self, deployments: Iterable[str]) -> None:
        """Stop the deployments and wait until each has ended; CodeDeploy moves its alias back by itself."""
        waiting = list(deployments)
        for deployment in waiting:
            if not self._deployments.look(deployment).ended:
                self._deployments.stop(deployment)
        self._await_none(lambda: [each for each in waiting if not self._deployments.look(each).ended])

    def stop_groups(self, groups: Iterable[str]) -> list[str]:
        """Stop all active deployments of these groups and return their ids.

        Waits for CodeDeploy's own deployments too, which move the aliases back.
        """
        watched = list(groups)
        found = self._under_way(watched)
        self.stop(found)
        if found:
            self._await_none(lambda: self._under_way(watched))
        return found

    def under_way(self, group: str) -> dict[str, Deployment]:
        """What is under way in that group: id → how it stands."""
        return {each: self._deployments.look(each) for each in self._deployments.under_way(group)}

    def settle(self, functions: Iterable[str]) -> None:
        """Remove weights that a stopped shift has left: all traffic goes to the version that had most of it."""
        for function in functions:
            state = self._aliases.alias(function, self._alias)
            if state is not None and state.others:
                self._aliases.point(function, self._alias, state.version)

    def point(self, versions: Mapping[str, str]) -> None:
        """Move all traffic of each function (Lambda's name) to its version at once, unless it is there."""
        for function, version in versions.items():
            if self._aliases.alias(function, self._alias) not in (None, AliasState(version)):
                self._aliases.point(function, self._alias, version)

    def _under_way(self, groups: Iterable[str]) -> list[str]:
        return [deployment for group in groups for deployment in self._deployments.under_way(group)]

    def _await_none(self, left: Callable[[], list[str]]) -> None:
        deadline = self._time.monotonic() + STOP_TIMEOUT_S
        while waiting := left():
            if self._time.monotonic() > deadline:
                raise CloudError(
                    f"deployment {waiting[0]} did not end in time",
                    hint="see it in CodeDeploy's console; then repeat the command",
                )
            self._time.sleep(self._poll_s)

    def _weight(self, moves: Iterable[Move]) -> float:
        """The highest share that any of the functions has moved, in percent."""
        found = [0.0]
        for move in moves:
            state = self._aliases.alias(move.function, move.alias)
            if state is not None:
                found.append(state.weights_percent().get(move.target, 0))
        return max(found)
