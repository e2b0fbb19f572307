"""A stage on AWS: the service's stack, the services that a release uses, and bringing the stage to a stable state.

osls exits at the first failed event, while CloudFormation still rolls back. So the result of an update is read from the
stack. The stack policy is in place except during an update that removes an alias or a permission. The stack takes
network, bucket, domain and roles from core as literals, so that they are part of a version's hash: an import or a
parameter would change a function's code without a new version.

A release under way has one holder, a process whose mark is in the release's record. `settle` makes this process the
holder. The previous one sees that before its next step, and ends.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hitless.aws.api_stages import ApiStage, ApiStages
from hitless.aws.buckets import Bucket
from hitless.aws.codedeploy import Shift
from hitless.aws.events import ReleaseEnded
from hitless.aws.follow import WELL, Stack, resting
from hitless.aws.lambdas import AliasState, Autoscaling, Lambdas
from hitless.aws.osls import Osls, deployable
from hitless.aws.stacks import SERVICE_TAG, STAGE_TAG, Stacks
from hitless.aws.traffic import Traffic
from hitless.clock import Clock, timestamp
from hitless.cloud.records.records import Records, Rollouts
from hitless.cloud.stage.core_outputs import CoreOutputs
from hitless.cloud.stage.permissions import StackPermissions
from hitless.cloud.stage.shield import Shield
from hitless.cloud.transform.desired import fingerprint, functions_of
from hitless.cloud.transform.model import (
    ADOPTION_OUTPUT,
    ALIAS,
    API_ID,
    FINGERPRINT_OUTPUT,
    RELEASE_OUTPUT,
    STACK_TAGS,
    STAGE_ID,
    URL_OUTPUT,
    FunctionIds,
    LiveState,
    Template,
    of_type,
)
from hitless.cloud.transform.updates import LIFTED_POLICY, POLICY, removes_guarded
from hitless.errors import CloudError, ConflictError
from hitless.release.result import Outcome
from hitless.release.who import Who
from hitless.service.model import SmokeRequest


class StillAtWorkError(CloudError):
    """An update took longer than the time-out. It may still succeed, so nothing may be taken back."""


TIME_LIMIT = "HITLESS_TIME_LIMIT_MINUTES"
"""The variable by which a build knows its own time limit."""
_ROLE_REFUSED, ROLE_TRIES = "is invalid or cannot be assumed", 8
"""CloudFormation's words (AWS re:Post, "cloudformation-role-arn-error"), also for a role that it does not know yet."""
_WELL_OR_BACK = WELL | {"UPDATE_ROLLBACK_COMPLETE"}


@dataclass(frozen=True, slots=True)
class Observed:
    """What is live: the templates' view of it, the functions, and the versions that each alias sends traffic to."""

    live: LiveState
    functions: Mapping[FunctionIds, str]
    aliases: Mapping[FunctionIds, AliasState]
    stage: ApiStage | None = None
    """The API's stage; None without an API, or before the first release is live."""

    @property
    def at(self) -> dict[str, str]:
        """Lambda's name → the version of the alias."""
        return {self.functions[ids]: state.version for ids, state in self.aliases.items()}

    @property
    def exists(self) -> bool:
        return bool(self.live.template)


class ServiceStack:
    """The stack `{service}-{stage}`."""

    def __init__(
        self, name: str, *, service: str, stage: str, region: str, core: CoreOutputs,
        stacks: Stacks, cloudformation: Any, lambdas: Lambdas, osls: Callable[[], Osls], say: Callable[[str], None],
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self.name = name
        self._service, self._stage, self._region, self._core = service, stage, region, core
        self._stacks, self._cf, self._lambdas = stacks, cloudformation, lambdas
        self._osls, self._say, self._now = osls, say, now

    @property
    def tags(self) -> dict[str, str]:
        return {SERVICE_TAG: self._service, STAGE_TAG: self._stage}

    def settle(self) -> None:
        """Bring the stack to a stable state: await an update, continue a stuck roll-back, delete a stack that never
        came up. Raises ConflictError as `refuse_plain` does.
        """
        self.refuse_plain()
        if self._stacks.settle(self.name, self.tags) and self.find() is not None:
            # an empty stack with a change set that was never executed: osls can neither create nor update it
            self._stacks.delete(self.name, tags=self.tags)

    def refuse_plain(self) -> None:
        """Raise ConflictError if hitless did not make the stack, or has only half adopted it. A release would change
        the code that clients use before any check.
        """
        stack, verb = self.find(), f"`hitless aws adopt --stage {self._stage}`"
        if stack is None or stack.status == "REVIEW_IN_PROGRESS":
            return
        if SERVICE_TAG not in stack.tags:
            raise ConflictError(
                f"the stack {self.name} was not made by hitless",
                hint=f"{verb} adopts it without a failed request, or says why not",
            )
        if ADOPTION_OUTPUT in stack.outputs:
            raise ConflictError(f"{self.name} is only partly adopted", hint=f"{verb} continues it")

    def find(self) -> Stack | None:
        """The stack as CloudFormation describes it."""
        return self._stacks.find(self.name)

    def observe(self) -> Observed:
        """What is live now, read from the stack and from Lambda."""
        stack = self.find()
        if stack is None or stack.status == "REVIEW_IN_PROGRESS":
            return Observed(LiveState(), {}, {})
        template = self._template()
        held = self._stacks.resources(self.name)
        versions = {
            name: int(held[name][1].rpartition(":")[2])
            for name in of_type(template.get("Resources", {}), "AWS::Lambda::Version")
            if name in held and held[name][1].rpartition(":")[2].isdecimal()
        }
        functions = functions_of(template)
        aliases = {
            ids: state for ids, name in functions.items() if (state := self._lambdas.alias(name, ALIAS)) is not None
        }
        at = {ids.alias: state.version for ids, state in aliases.items()}
        return Observed(LiveState(template, at, versions), functions, aliases, _api_stage(template, held))

    def rest(self) -> Stack | None:
        """The stack, once CloudFormation no longer works on it."""
        stack = self.find()
        if stack is None or resting(stack.status):
            return stack
        self._say(f"{self.name} is being changed ({stack.status}): waiting until that has ended")
        return self._stacks.rest(self.name, since=self._stacks.last_event(self.name))[0]

    def held(self) -> dict[str, str]:
        """Logical id → physical id of what the stack holds."""
        return {name: physical for name, (_, physical) in self._stacks.resources(self.name).items()}

    def failures(self) -> dict[str, str]:
        """Logical id → reason, of each resource that could not be rolled back."""
        return self._stacks.failures(self.name)

    def continue_rollback(self, skip: Collection[str]) -> list[str]:
        """Continue a stuck roll-back without the resources to skip. Returns what failed again."""
        return self._stacks.continue_rollback(self.name, skip)

    def _template(self) -> Template:
        body = self._cf.get_template(StackName=self.name, TemplateStage="Original")["TemplateBody"]
        template: Template = json.loads(body if isinstance(body, str) else json.dumps(body))
        return template

    def update(self, template: Template, *, before: Template) -> None:
        """Update the stack to the template.

        Raises CloudError with the first cause if it fails, StillAtWorkError if the result is not known yet,
        ConflictError if another update is under way.
        """
        lift = bool(before) and removes_guarded(before, template)
        if before:
            self._stacks.set_policy(self.name, LIFTED_POLICY if lift else POLICY)
        seen = self._stacks.last_event(self.name)
        try:
            self._deploy(template, seen)
        finally:
            if lift or not before:
                self._restore_policy()

    def _deploy(self, template: Template, seen: str | None) -> None:
        now = self._now()
        instant = f"{int(now.timestamp() * 1000)}-{now:%Y-%m-%dT%H:%M:%S.000Z}"
        state = deployable(
            service=self._service, stage=self._stage, region=self._region, bucket=self._core.bucket,
            template=template, role=self._core.cloudformation_role_arn,
            directory=f"serverless/{self._service}/{self._stage}/{instant}",
            tags=template.get("Metadata", {}).get(STACK_TAGS),
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="hitless-osls-") as folder:
            for left in reversed(range(ROLE_TRIES)):
                failed = self._osls().deploy(Path(folder), state)
                if not left or _ROLE_REFUSED not in (failed or ""):
                    break
                self._stacks.pause()
        if failed is None:
            self._say(f"{self.name} is updated")
            return
        if is_busy(failed):
            raise ConflictError(
                f"{self.name} is being updated by somebody else",
                hint="repeat the command: it waits until that update has ended, and continues",
            )
        try:
            stack, causes = self._stacks.rest(self.name, since=seen) if self.find() else (None, [])
        except CloudError as late:
            raise StillAtWorkError(late.message, hint=late.hint) from late
        if stack is not None and stack.status in WELL and not causes and self._template() == template:
            return  # osls lost sight of an update that went well
        raise CloudError(
            f"the update of {self.name} failed: {causes[0] if causes else failed}",
            hint="fix the cause, then repeat the command: it continues from here",
            details={"causes": causes, "status": stack.status if stack else None},
        )

    def _restore_policy(self) -> None:
        stack = self.find()
        if stack is not None and stack.status in _WELL_OR_BACK:
            self._stacks.set_policy(self.name, POLICY)


def _api_stage(template: Template, held: Mapping[str, tuple[str, str]]) -> ApiStage | None:
    stage = template.get("Resources", {}).get(STAGE_ID)
    if stage is None or API_ID not in held:
        return None
    return ApiStage(held[API_ID][1], str(stage["Properties"]["StageName"]))


def is_busy(said: str) -> bool:
    """Whether CloudFormation refused an update because another one is under way. It has no error code of its own."""
    return re.search(r"is in \w+_IN_PROGRESS state and can ?not be updated", said) is not None


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
    tell_ended: Callable[[ReleaseEnded], None]
    who: Who
    """Who runs the command, as far as it is known."""
    clock: Clock
    say: Callable[[str], None]
    ask: Callable[[str, SmokeRequest], str | None]
    """Sends a request to a URL; returns why the response is unexpected, or None."""
    time_limit_s: float = math.inf
    """This machine is stopped after that time."""
    permissions: StackPermissions | None = None
    """Those of the CloudFormation role; None if the stack is updated with the caller's own permissions."""


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


def live_template(cloud: Cloud, observed: Observed) -> Template | None:
    """The template that the live release wanted; None if it is missing, or if there is no live release."""
    number = live_number(observed)
    return cloud.records.template(number) if number is not None else None


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
