"""Creates, updates and deletes CloudFormation stacks by change sets, and imports resources into them.

A change set is shown in words before it is executed, and followed to its end. An interrupted run is finished by the
next one. A stack without our tags is never touched. Replacing a resource that serves needs `force`. A stack that never
came up is deleted and created again; one that serves never is. docs/decisions/aws-orchestration.md says why this is not
sceptre. botocore's errors leave this module as they are: callers are inside `aws_errors`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from hitless.aws.changes import Change, harmful, read_changes
from hitless.aws.follow import REPEAT, Follower, Stack, StackStep, next_step
from hitless.aws.session import error_code
from hitless.errors import CloudError, ConflictError

SERVICE_TAG = "hitless:service"
STAGE_TAG = "hitless:stage"

_ROLLBACK_BEGINS = frozenset({"UPDATE_ROLLBACK_IN_PROGRESS", "DELETE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"})

_EMPTY = ("didn't contain changes", "No updates are to be performed")
"""CloudFormation's reasons for an empty change set: there is no error code."""


@dataclass(frozen=True, slots=True)
class StackSpec:
    """A stack as it should be.

    `template` is its JSON. A parameter of None keeps the stack's value.
    `policy` is the stack policy's document, set before each update.
    """

    name: str
    template: str
    tags: Mapping[str, str]
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    protected: bool = False
    policy: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """A change set that is ready. `id` is empty if nothing changes; `creates`: it creates the stack."""

    stack: str
    id: str
    creates: bool
    changes: tuple[Change, ...]


class Stacks(Follower):
    """Reads and changes the stacks of one account and region."""

    def deploy(self, spec: StackSpec, *, force: bool = False) -> Stack:
        """Make the stack as `spec` says and return it. Does nothing if it is so already.

        Raises ConflictError for somebody else's stack, or if a resource that serves would be replaced without `force`;
        CloudError if the update fails.
        """
        prepared = self.prepare(spec)
        if prepared.id:
            self.show(prepared)
            self.refuse_harm(prepared, force=force)
            self.execute(spec, prepared)
        else:
            self._say(f"{spec.name}: nothing to change")
        return self._protect(spec)

    def prepare(self, spec: StackSpec) -> ChangeSet:
        """Bring the stack to a state in which it can be changed, and create the change set without executing it."""
        creates = self.settle(spec.name, spec.tags)
        made = self._cf.create_change_set(
            StackName=spec.name,
            ChangeSetName=f"hitless-{secrets.token_hex(6)}",
            ChangeSetType="CREATE" if creates else "UPDATE",
            Parameters=_parameters(spec, {} if creates else self.get(spec.name).parameters),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Tags=[{"Key": key, "Value": value} for key, value in sorted(spec.tags.items())],
            TemplateBody=spec.template,
        )
        return self._read(spec.name, made["Id"], creates=creates)

    def show(self, prepared: ChangeSet) -> None:
        """Report what the change set would do, one change a line; of a new stack only the number of resources."""
        count = f"{len(prepared.changes)} {'resource' if len(prepared.changes) == 1 else 'resources'}"
        if prepared.creates:
            self._say(f"{prepared.stack}: a new stack of {count}")
            return
        self._say(f"{prepared.stack}: {count} to change")
        for change in prepared.changes:
            self._say(f"  {change}")

    def refuse_harm(self, prepared: ChangeSet, *, force: bool) -> None:
        """Drop the change set and raise ConflictError if it replaces a resource that serves, unless `force`."""
        if force or not (harm := harmful(prepared.changes)):
            return
        self.drop(prepared)
        raise ConflictError(
            f"{prepared.stack}: {'; '.join(map(str, harm))}: requests would fail",
            hint="restore the setting, or repeat with --force if requests may fail",
            details={"changes": [change.to_json() for change in harm]},
        )

    def drop(self, prepared: ChangeSet) -> None:
        """Delete a change set, and the empty shell of a stack that is not created yet."""
        if prepared.id:
            self._cf.delete_change_set(ChangeSetName=prepared.id, StackName=prepared.stack)
        if prepared.creates and (stack := self.find(prepared.stack)) and stack.status == "REVIEW_IN_PROGRESS":
            self._cf.delete_stack(StackName=stack.id)

    def execute(self, spec: StackSpec, prepared: ChangeSet) -> Stack:
        """Carry the change set out and follow it to its end. CloudError with the first cause if it failed."""
        if spec.policy is not None and not prepared.creates:
            self.set_policy(spec.name, spec.policy)
        seen = self.last_event(spec.name)
        self._cf.execute_change_set(ChangeSetName=prepared.id, StackName=spec.name)
        stack = self.follow(spec.name, since=seen)
        if spec.policy is not None and prepared.creates:
            self.set_policy(spec.name, spec.policy)
        return stack

    def delete(self, name: str, *, tags: Mapping[str, str]) -> bool:
        """Delete the stack and wait until it is gone; False if there was none.

        Turns termination protection off: the caller has asked the person. CloudError names what could not be deleted.
        """
        stack = self.find(name)
        if stack is None:
            return False
        _refuse_foreign(stack, tags)
        self.rest(stack.id, since=self.last_event(stack.id))
        if stack.protected:
            self._cf.update_termination_protection(StackName=name, EnableTerminationProtection=False)
        seen = self.last_event(stack.id)
        self._cf.delete_stack(StackName=stack.id)
        left, causes = self.rest(stack.id, since=seen)
        if left is not None:
            because = "; ".join(causes) or left.reason or "CloudFormation gives no reason"
            raise CloudError(f"{name} could not be deleted: {because}", hint=REPEAT, details={"causes": causes})
        return True

    def settle(self, name: str, tags: Mapping[str, str]) -> bool:
        """Bring the stack to a stable state in which a change set can be made. Returns True if the change set must
        create it.

        Awaits an update under way, continues a stuck roll-back, deletes a stack that never came up.
        """
        for _ in range(8):
            stack = self.find(name)
            if stack is not None:
                _refuse_foreign(stack, tags)
            match next_step(stack.status if stack else None):
                case StackStep.CREATE:
                    return True
                case StackStep.UPDATE:
                    return False
                case StackStep.AWAIT:
                    self._say(
                        f"{name} is being changed ({stack.status if stack else ''}): waiting until that has ended"
                    )
                    self.rest(name, since=self.last_event(name))
                case StackStep.RECREATE:
                    self._say(f"{name} is {stack.status if stack else ''}: it is deleted and created again")
                    self.delete(name, tags=tags)
                case StackStep.CONTINUE_ROLLBACK:
                    self.continue_rollback(name)
                case StackStep.ROLL_BACK:
                    self._say(f"{name}: its failed update is rolled back")
                    seen = self.last_event(name)
                    self._cf.rollback_stack(StackName=name)
                    self.rest(name, since=seen)
        raise CloudError(
            f"{name} did not reach a stable state",
            hint=f"`aws cloudformation describe-stack-events --stack-name {name}` names the cause; then repeat",
        )

    def continue_rollback(self, name: str, skip: Collection[str] = ()) -> list[str]:
        """Continue a stuck roll-back, without the resources (logical ids) of `skip`. Returns what failed again.

        CloudFormation treats skipped resources as rolled back, and leaves them as they are.
        """
        self._say(f"{name}: its stuck roll-back is continued")
        seen = self.last_event(name)
        skipped = {"ResourcesToSkip": sorted(skip)} if skip else {}
        self._cf.continue_update_rollback(StackName=name, **skipped)
        return self.rest(name, since=seen)[1]

    def get(self, name: str) -> Stack:
        """The stack; CloudError if there is none."""
        if (stack := self.find(name)) is None:
            raise CloudError(f"there is no stack {name}", hint="`hitless aws bootstrap` creates core and pipeline")
        return stack

    def set_policy(self, name: str, policy: Mapping[str, Any]) -> None:
        """Set the stack policy."""
        self._cf.set_stack_policy(StackName=name, StackPolicyBody=json.dumps(policy, sort_keys=True))

    def resources(self, name: str) -> dict[str, tuple[str, str]]:
        """Logical id → (type, physical id) of what the stack holds."""
        pages = self._cf.get_paginator("list_stack_resources").paginate(StackName=name)
        return {
            each["LogicalResourceId"]: (each["ResourceType"], each.get("PhysicalResourceId", ""))
            for page in pages
            for each in page["StackResourceSummaries"]
            if each["ResourceStatus"] != "DELETE_COMPLETE"
        }

    def failures(self, name: str) -> dict[str, str]:
        """Logical id → reason, of each resource that failed to roll back or to be deleted in the newest update."""
        found: dict[str, str] = {}
        for page in self._cf.get_paginator("describe_stack_events").paginate(StackName=name):
            for event in page["StackEvents"]:
                status, logical_id = str(event["ResourceStatus"]), str(event["LogicalResourceId"])
                if status in _ROLLBACK_BEGINS and logical_id == name:
                    return found
                if status.endswith("_FAILED") and logical_id != name:
                    found.setdefault(logical_id, str(event.get("ResourceStatusReason", "")))
        return found

    def drift(self, name: str) -> list[dict[str, Any]]:
        """What differs from the stack's template, as CloudFormation compares them now; at most 100 resources."""
        asked = self._cf.detect_stack_drift(StackName=name)["StackDriftDetectionId"]

        def ended() -> bool | None:
            found = self._cf.describe_stack_drift_detection_status(StackDriftDetectionId=asked)
            return None if found["DetectionStatus"] == "DETECTION_IN_PROGRESS" else True

        self.wait(ended, f"{name}: CloudFormation is still looking for drift")
        told = {"StackName": name, "StackResourceDriftStatusFilters": ["MODIFIED", "DELETED"], "MaxResults": 100}
        return [_drifted(one) for one in self._cf.describe_stack_resource_drifts(**told)["StackResourceDrifts"]]

    def computed(self, stack: str, change_set: str) -> tuple[str, str]:
        """Wait until a change set is computed. Returns its status, CREATE_COMPLETE or FAILED, and the reason."""

        def made() -> tuple[str, str] | None:
            answer = self._cf.describe_change_set(ChangeSetName=change_set, StackName=stack)
            status = str(answer["Status"])
            return (status, str(answer.get("StatusReason", ""))) if status in ("CREATE_COMPLETE", "FAILED") else None

        return self.wait(made, f"{stack}: CloudFormation is still computing the change set")

    def _read(self, stack: str, change_set: str, *, creates: bool) -> ChangeSet:
        status, reason = self.computed(stack, change_set)
        if status == "FAILED":
            self.drop(ChangeSet(stack, change_set, creates, ()))
            if any(words in reason for words in _EMPTY):
                return ChangeSet(stack, "", creates, ())
            raise CloudError(f"{stack}: CloudFormation refuses the change set: {reason}", hint=REPEAT)
        pages = self._cf.get_paginator("describe_change_set").paginate(ChangeSetName=change_set, StackName=stack)
        return ChangeSet(stack, change_set, creates, read_changes(pages))

    def _protect(self, spec: StackSpec) -> Stack:
        stack = self.get(spec.name)
        if stack.protected == spec.protected:
            return stack
        self._cf.update_termination_protection(StackName=spec.name, EnableTerminationProtection=spec.protected)
        return self.get(spec.name)


def _parameters(spec: StackSpec, present: Mapping[str, str]) -> list[dict[str, Any]]:
    """Parameters for the call. One that keeps its value is left out if the stack has none: the default applies."""
    return [
        {"ParameterKey": key, "ParameterValue": value}
        if value is not None
        else {"ParameterKey": key, "UsePreviousValue": True}
        for key, value in sorted(spec.parameters.items())
        if value is not None or key in present
    ]


def _drifted(one: Mapping[str, Any]) -> dict[str, Any]:
    names = {"path": "PropertyPath", "expected": "ExpectedValue", "actual": "ActualValue"}
    changed = [{ours: each[theirs] for ours, theirs in names.items()} for each in one.get("PropertyDifferences", ())]
    status = one["StackResourceDriftStatus"].lower()
    return {"resource": one["LogicalResourceId"], "type": one["ResourceType"], "status": status, "differences": changed}


def _refuse_foreign(stack: Stack, tags: Mapping[str, str]) -> None:
    for key in (SERVICE_TAG, STAGE_TAG):
        if stack.tags.get(key) != tags.get(key):
            raise ConflictError(
                f"the stack {stack.name} is not this service's: its tag {key} is {stack.tags.get(key) or 'missing'}",
                hint="rename the service or the stage, or delete that stack if nobody uses it",
            )


_NOT_IMPORTED = "is not imported by any stack"
"""ListImports' message for an unused export: there is no error code."""


class Imports:
    """Imports existing resources into stacks of one account and region, by change sets of the type IMPORT.

    Such a change set may only import: no other resource, output or tag changes in it, and each imported resource has a
    DeletionPolicy (CloudFormation User Guide, "Import AWS resources into a CloudFormation stack").
    """

    def __init__(self, cloudformation: Any, stacks: Stacks) -> None:
        self._cf, self._stacks = cloudformation, stacks

    def take_in(
        self, stack: str, template: Mapping[str, Any], resource: str, identifier: Mapping[str, str], *, url: str
    ) -> None:
        """Import the template's `resource`, which its service knows by `identifier`. `url`: where the template lies in
        S3, because a call takes only 51,200 bytes.

        Raises CloudError if CloudFormation refuses it: it does not exist, another stack holds it, or something else
        would change.
        """
        made = self._cf.create_change_set(
            StackName=stack,
            ChangeSetName=f"hitless-{secrets.token_hex(6)}",
            ChangeSetType="IMPORT",
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[
                {"ParameterKey": key, "UsePreviousValue": True} for key in sorted(self._stacks.get(stack).parameters)
            ],
            ResourcesToImport=[
                {
                    "ResourceType": template["Resources"][resource]["Type"],
                    "LogicalResourceId": resource,
                    "ResourceIdentifier": dict(identifier),
                }
            ],
            TemplateURL=url,
        )["Id"]
        status, reason = self._stacks.computed(stack, made)
        if status == "FAILED":
            self._cf.delete_change_set(ChangeSetName=made, StackName=stack)
            raise CloudError(f"{stack}: CloudFormation does not import {resource}: {reason}", hint=REPEAT)
        seen = self._stacks.last_event(stack)
        self._cf.execute_change_set(ChangeSetName=made, StackName=stack)
        self._stacks.follow(stack, since=seen)

    def importers(self, export: str) -> tuple[str, ...]:
        """The stacks that use an export."""
        try:
            pages = self._cf.get_paginator("list_imports").paginate(ExportName=export)
            return tuple(str(name) for page in pages for name in page["Imports"])
        except ClientError as error:
            if error_code(error) == "ValidationError" and _NOT_IMPORTED in str(error):
                return ()
            raise
