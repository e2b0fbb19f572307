"""The services that a stage on AWS needs, and bringing the stage to a stable state before a verb begins.

A release under way has one holder, a process whose mark is in the release's record. `settle` makes this process the
holder. The previous one sees that before its next step, and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import ClientError

from hitless.aws.api_stages import ApiStage, ApiStages
from hitless.aws.buckets import Bucket
from hitless.aws.codedeploy import Move, Shift
from hitless.aws.lambdas import Autoscaling, Lambdas
from hitless.aws.session import is_denied
from hitless.aws.traffic import Traffic
from hitless.clock import Clock, timestamp
from hitless.cloud.records.records import Records, Rollouts
from hitless.cloud.stage.service_stack import Observed, ServiceStack
from hitless.cloud.transform.desired import fingerprint
from hitless.cloud.transform.model import (
    FINGERPRINT_OUTPUT,
    RELEASE_OUTPUT,
    SHIELD_PREFIX,
    URL_OUTPUT,
    FunctionIds,
    LiveState,
    Template,
    of_type,
)
from hitless.release.result import Outcome


@dataclass(frozen=True, slots=True)
class Cloud:
    """Every service of AWS that a release uses."""

    stack: ServiceStack
    bucket: Bucket
    records: Records
    lambdas: Lambdas
    shift: Shift
    shield: Shield
    autoscaling: Autoscaling
    api: ApiStages
    traffic: Traffic
    rollouts: Rollouts
    who: Mapping[str, Any]
    """Who runs the command, as far as it is known."""
    clock: Clock
    say: Callable[[str], None]


def settle(cloud: Cloud, *, holder: str) -> Observed:
    """Bring the stage to a stable state before a verb begins: the stack, a release under way, shifts, left-over
    weights.

    A release under way passes to `holder`. One that is live already, but not in its record, is recorded as live.
    """
    cloud.stack.settle()
    observed = cloud.stack.observe()
    _take_over(cloud, observed, holder)
    if not observed.exists:
        return observed
    stopped = cloud.shift.stop_groups(ids.base for ids in observed.functions)
    if stopped:
        cloud.say(f"a shift was under way ({', '.join(stopped)}): it was stopped")
    cloud.shift.settle(observed.functions.values())
    lower_shield(cloud, observed)
    return cloud.stack.observe()


def lower_shield(cloud: Cloud, observed: Observed) -> None:
    """Remove the shield once no shift is under way."""
    if observed.stage is not None:
        cloud.shield.down(observed.stage, observed.functions)


def _take_over(cloud: Cloud, observed: Observed, holder: str) -> None:
    record = cloud.records.unfinished()
    if record is None:
        return
    if record.release == live_number(observed) and is_at_rest(observed.live):
        now = timestamp(cloud.clock.now())
        cloud.records.save(replace(record, holder=holder, outcome=Outcome.LIVE, ended_at=now))
    else:
        cloud.records.save(replace(record, holder=holder))


def live_number(observed: Observed) -> int | None:
    """The release that the stack records as live."""
    number = observed.live.output(RELEASE_OUTPUT)
    return int(number) if number is not None and number.isdecimal() else None


def url_of(cloud: Cloud) -> str | None:
    """The URL of the stage, from the stack; None if there is none."""
    stack = cloud.stack.find()
    return stack.outputs.get(URL_OUTPUT) if stack is not None else None


def function_names(cloud: Cloud, observed: Observed, *, service: str, stage: str) -> dict[str, str]:
    """Lambda's name → the name in serverless.yml, of all functions of the stack."""
    names = {name: name.removeprefix(f"{service}-{stage}-") for name in observed.functions.values()}
    number = live_number(observed)
    record = cloud.records.get(number) if number is not None else None
    return {**names, **({theirs: ours for ours, theirs in record.functions.items()} if record else {})}


def is_live(observed: Observed, wanted: Template) -> bool:
    """Whether the stage serves this content already, and all traffic is where the stack says."""
    if observed.live.output(FINGERPRINT_OUTPUT) != fingerprint(wanted):
        return False
    return is_at_rest(observed.live) and not any(state.others for state in observed.aliases.values())


def is_at_rest(live: LiveState) -> bool:
    """Whether each alias is at the version of the stack's template."""
    return all(
        alias["Properties"]["FunctionVersion"] == live.aliases[name]
        for name, alias in of_type(live.resources, "AWS::Lambda::Alias").items()
        if name in live.aliases
    )


IN_HAND_S = 5.0
"""Requests that a candidate still has when its weight is 0 may need the live version's response."""


class Shield:
    """The shield of a shift: while it is up, the live version answers requests that the candidate fails.

    For each function that moves, a variable of the API's stage tells the wrapper the numbers of both versions, and the
    live version's policy lets the function's role invoke it. Both exist only during the shift. After a machine's death
    the variables tell the next command what to remove; other versions ignore them. If a permission to raise it is
    missing, the release goes on without a shield, and says so.
    """

    def __init__(
        self, stages: ApiStages, lambdas: Lambdas, say: Callable[[str], None], wait: Callable[[float], None]
    ) -> None:
        self._stages, self._lambdas, self._say, self._wait = stages, lambdas, say, wait

    def up(self, stage: ApiStage, moves: Mapping[FunctionIds, Move]) -> None:
        """Raise it for these moves."""
        if not moves:
            return
        versions = {ids.shield_variable: f"{move.current}:{move.target}" for ids, move in moves.items()}
        try:
            self._stages.set(stage, versions)
        except ClientError as error:
            self._without(error, "the release")
            return
        for ids, move in moves.items():
            try:
                self._lambdas.allow_invoke(move.function, move.current, role_of=move.target)
            except ClientError as error:
                self._without(error, move.function)
                self._stages.drop(stage, [ids.shield_variable])

    def down(self, stage: ApiStage, functions: Mapping[FunctionIds, str]) -> None:
        """Remove the shield once the candidate has answered the requests that it had. `functions`: the service's, with
        Lambda's names.
        """
        found = self._stages.variables(stage)
        standing = {name: value for name, value in found.items() if name.startswith(SHIELD_PREFIX)}
        if not standing:
            return
        self._wait(IN_HAND_S)
        names = {ids.shield_variable: name for ids, name in functions.items()}
        for variable, versions in standing.items():
            if variable in names:
                self._lambdas.revoke_invoke(names[variable], versions.partition(":")[0])
        self._stages.drop(stage, standing)

    def _without(self, error: ClientError, what: str) -> None:
        """Go on without a shield if raising one is denied."""
        if not is_denied(error):
            raise error
        self._say(f"{what} is not shielded: {error}")
