"""A small fake CloudFormation: stacks that go through the states a test sets, responses in botocore's shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError

OURS = {"hitless:service": "clock", "hitless:stage": "dev"}


class FakeTime:
    """Seconds pass only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


@dataclass
class FakeStack:
    """`ahead` are the states that the next looks at it find; `then` names the events that occur on the way."""

    status: str = "CREATE_COMPLETE"
    ahead: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=lambda: dict(OURS))
    protected: bool = False
    parameters: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, str]] = field(default_factory=list)

    def event(self, resource: str, status: str, reason: str = "") -> None:
        one = {"EventId": f"e{len(self.events)}", "LogicalResourceId": resource, "ResourceStatus": status}
        self.events.insert(0, one | ({"ResourceStatusReason": reason} if reason else {}))


class FakeCloudFormation:
    """Records each call in `calls`; `changes` and `refusal` are the result of the next change set."""

    def __init__(self, **stacks: FakeStack) -> None:
        self.stacks = {name.replace("_", "-"): stack for name, stack in stacks.items()}
        self.calls: list[str] = []
        self.told: dict[str, Any] = {}
        self.changes: list[dict[str, Any]] = [{"Action": "Add", "LogicalResourceId": "Vpc", "ResourceType": "T"}]
        self.refusal: str | None = None
        self.failures: list[dict[str, str]] = []
        self.end = ""
        self.cuts = 0

    def _call(self, name: str) -> None:
        self.calls.append(name)

    def describe_stacks(self, StackName: str) -> dict[str, Any]:  # noqa: N803 - botocore's names
        if self.cuts:
            self.cuts -= 1
            raise EndpointConnectionError(endpoint_url="https://cloudformation")
        stack = self.stacks.get(StackName)
        if stack is None:
            raise error("ValidationError", f"Stack with id {StackName} does not exist")
        if stack.ahead:
            stack.status = stack.ahead.pop(0)
            if stack.status == "DELETE_COMPLETE":
                del self.stacks[StackName]
        return {
            "Stacks": [
                {
                    "StackName": StackName,
                    "StackId": StackName,
                    "StackStatus": stack.status,
                    "Tags": [{"Key": key, "Value": value} for key, value in stack.tags.items()],
                    "Parameters": [
                        {"ParameterKey": key, "ParameterValue": value} for key, value in stack.parameters.items()
                    ],
                    "Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in stack.outputs.items()],
                    "EnableTerminationProtection": stack.protected,
                }
            ]
        }

    def describe_stack_events(self, StackName: str) -> dict[str, Any]:  # noqa: N803
        if StackName not in self.stacks:
            raise error("ValidationError", "does not exist")
        return {"StackEvents": list(self.stacks[StackName].events)}

    def get_paginator(self, name: str) -> Any:
        call = getattr(self, name)

        class Pages:
            def paginate(self, **options: Any) -> Iterator[dict[str, Any]]:
                yield call(**options)

        return Pages()

    def create_change_set(self, **told: Any) -> dict[str, str]:
        self._call("create_change_set")
        self.told = told
        if told["ChangeSetType"] == "CREATE":
            tags = {tag["Key"]: tag["Value"] for tag in told["Tags"]}
            self.stacks[told["StackName"]] = FakeStack("REVIEW_IN_PROGRESS", tags=tags)
        return {"Id": "change-set"}

    def describe_change_set(self, **_: Any) -> dict[str, Any]:
        if self.refusal is not None:
            return {"Status": "FAILED", "StatusReason": self.refusal}
        return {"Status": "CREATE_COMPLETE", "Changes": [{"ResourceChange": change} for change in self.changes]}

    def delete_change_set(self, **_: Any) -> None:
        self._call("delete_change_set")

    def execute_change_set(self, StackName: str, **_: Any) -> None:  # noqa: N803
        self._call("execute_change_set")
        stack = self.stacks[StackName]
        kind = "CREATE" if stack.status == "REVIEW_IN_PROGRESS" else "UPDATE"
        for failure in self.failures:
            stack.event(failure["resource"], "CREATE_FAILED", failure["reason"])
        stack.event(StackName, f"{kind}_COMPLETE")
        stack.ahead = [f"{kind}_IN_PROGRESS", self.end or f"{kind}_COMPLETE"]

    def delete_stack(self, StackName: str, **_: Any) -> None:  # noqa: N803
        self._call("delete_stack")
        if self.stacks[StackName].protected:
            raise error("ValidationError", "TerminationProtection is enabled")
        self.stacks[StackName].ahead = ["DELETE_IN_PROGRESS", "DELETE_COMPLETE"]

    def continue_update_rollback(self, StackName: str) -> None:  # noqa: N803
        self._call("continue_update_rollback")
        self.stacks[StackName].ahead = ["UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"]

    def rollback_stack(self, StackName: str) -> None:  # noqa: N803
        self._call("rollback_stack")
        self.stacks[StackName].ahead = ["ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"]

    def set_stack_policy(self, **_: Any) -> None:
        self._call("set_stack_policy")

    def update_termination_protection(self, StackName: str, EnableTerminationProtection: bool) -> None:  # noqa: N803
        self._call(f"protect {EnableTerminationProtection}")
        self.stacks[StackName].protected = EnableTerminationProtection


def error(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")
