"""The service's stack: what is live in it, and updates of it by osls.

osls exits at the first failed event, while CloudFormation still rolls back. So the result of an update is read from the
stack. The stack policy is in place except during an update that removes an alias or a permission. The stack takes
network, bucket, domain and roles from core as literals, so that they are part of a version's hash: an import or a
parameter would change a function's code without a new version.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hitless.aws.api_stages import ApiStage
from hitless.aws.follow import WELL, Stack
from hitless.aws.lambdas import AliasState, Lambdas
from hitless.aws.osls import Osls, deployable
from hitless.aws.stacks import SERVICE_TAG, STAGE_TAG, Stacks
from hitless.cloud.transform.desired import functions_of
from hitless.cloud.transform.model import (
    ADOPTION_OUTPUT,
    ALIAS,
    API_ID,
    STAGE_ID,
    FunctionIds,
    LiveState,
    Template,
    of_type,
)
from hitless.cloud.transform.updates import LIFTED_POLICY, POLICY, removes_guarded
from hitless.errors import CloudError, ConflictError, UsageError


class StillAtWorkError(CloudError):
    """An update took longer than the time-out. It may still succeed, so nothing may be taken back."""


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
            # the empty shell of a change set that nobody carried out: osls can neither create nor update it
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
            raise ConflictError(f"{self.name} is only half adopted", hint=f"{verb} continues it")

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

    def rest(self) -> None:
        """Wait until CloudFormation no longer works on the stack."""
        self._stacks.rest(self.name, since=self._stacks.last_event(self.name))

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
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="hitless-osls-") as folder:
            failed = self._osls().deploy(Path(folder), state)
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


FILE = "core-outputs.json"

_PLACEHOLDERS = {
    "VpcId": "vpc-00000000000000000",
    "PrivateSubnetIds": "subnet-0000000000000000a,subnet-0000000000000000b,subnet-0000000000000000c",
    "LambdaSecurityGroupId": "sg-00000000000000000",
    "ArtifactBucketName": "placeholder-artifact-bucket",
}


@dataclass(frozen=True, slots=True)
class CoreOutputs:
    """The outputs of core that a release reads. Empty if core has none."""

    vpc_id: str
    private_subnet_ids: tuple[str, ...]
    security_group_id: str
    bucket: str
    domain: str = ""
    cloudformation_role_arn: str = ""
    permissions_boundary_arn: str = ""
    raw: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, outputs: Mapping[str, str], where: str) -> CoreOutputs:
        """Raises UsageError if a required output is missing; the message names `where`."""
        bucket = str(outputs.get("ArtifactBucketName", ""))
        if not bucket:
            raise UsageError(
                f"{where} has no ArtifactBucketName", hint="create the core stack with `hitless aws bootstrap`"
            )
        return cls(
            vpc_id=str(outputs.get("VpcId", "")),
            private_subnet_ids=tuple(filter(None, str(outputs.get("PrivateSubnetIds", "")).split(","))),
            security_group_id=str(outputs.get("LambdaSecurityGroupId", "")),
            bucket=bucket,
            domain=str(outputs.get("ApiDomainName", "")),
            cloudformation_role_arn=str(outputs.get("CloudFormationRoleArn", "")),
            permissions_boundary_arn=str(outputs.get("PermissionsBoundaryArn", "")),
            raw=tuple(sorted((key, str(value)) for key, value in outputs.items())),
        )

    def params(self) -> dict[str, str]:
        """The values of `${param:…}` in serverless.yml: each output's name in lower camel case."""
        return {key[0].lower() + key[1:]: value for key, value in self.raw if value}


def read_core_outputs(folder: Path, named: Path | None) -> CoreOutputs:
    """For a dry run: the given file, else core-outputs.json in the service's folder, else placeholders."""
    path = named or folder / FILE
    if named is None and not path.is_file():
        return CoreOutputs.of(_PLACEHOLDERS, "the placeholders")
    try:
        outputs = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", hint="it is one JSON object: output name → value"
        ) from error
    if not isinstance(outputs, dict):
        raise UsageError(f"{path} is not a JSON object", hint="it is one JSON object: output name → value")
    return CoreOutputs.of(outputs, str(path))
