"""Reads CloudFormation stacks and follows them until they are stable: reports events, keeps the causes of failures.

A network error while waiting does not end the wait: CloudFormation continues by itself, so the poll is repeated until
the deadline. A stable state is not believed at once if no event has come yet: the API is eventually consistent. One
table says what a stack in each state needs before it can be changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from hitless.aws.session import Ignoring, error_code
from hitless.errors import CloudError


class StackStep(StrEnum):
    """What must be done next with a stack in some state."""

    CREATE = "create"
    UPDATE = "update"
    AWAIT = "await"
    RECREATE = "recreate"
    """It never came up or is half deleted, so nothing uses it; CloudFormation only allows its deletion."""
    ROLL_BACK = "roll back"
    """An update failed with its roll-back turned off, by somebody else: hitless never does."""
    CONTINUE_ROLLBACK = "continue roll-back"
    """A roll-back got stuck. Continuing it returns to what served before, and skips nothing."""


WELL = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"})

_STEPS: dict[str | None, StackStep] = {
    None: StackStep.CREATE,
    "REVIEW_IN_PROGRESS": StackStep.CREATE,  # an empty stack with a change set that was never executed
    "CREATE_COMPLETE": StackStep.UPDATE,
    "UPDATE_COMPLETE": StackStep.UPDATE,
    "UPDATE_ROLLBACK_COMPLETE": StackStep.UPDATE,
    "UPDATE_FAILED": StackStep.ROLL_BACK,
    "UPDATE_ROLLBACK_FAILED": StackStep.CONTINUE_ROLLBACK,
    "IMPORT_COMPLETE": StackStep.UPDATE,
    "IMPORT_ROLLBACK_COMPLETE": StackStep.UPDATE,
    "IMPORT_ROLLBACK_FAILED": StackStep.UPDATE,
    "CREATE_FAILED": StackStep.RECREATE,
    "ROLLBACK_COMPLETE": StackStep.RECREATE,
    "ROLLBACK_FAILED": StackStep.RECREATE,
    "DELETE_FAILED": StackStep.RECREATE,
    "DELETE_COMPLETE": StackStep.CREATE,
}


def next_step(status: str | None) -> StackStep:
    """What a stack with that status needs next; None is a missing stack. Unknown states are awaited."""
    return _STEPS.get(status, StackStep.AWAIT)


def resting(status: str) -> bool:
    """Whether CloudFormation is not working on the stack. A change set's empty shell counts as resting."""
    return not status.endswith("_IN_PROGRESS") or status == "REVIEW_IN_PROGRESS"


_Result = TypeVar("_Result")

REPEAT = "fix the cause, then repeat the command: it continues from here"

QUIET_POLLS = 3
"""After this many polls without an event, nothing has begun: the state of a stack that does not change is final."""

_CONSEQUENCES = ("Resource creation cancelled", "Resource update cancelled", "The following resource(s) failed")
"""Failures that only report another failure."""


class Time(Protocol):
    """The part of the module `time` that following a stack uses."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack as it is. `parameters` hold no secret: CloudFormation masks NoEcho ones."""

    name: str
    id: str
    status: str
    reason: str
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    protected: bool


class Follower:
    """Reads stacks of one account and region through botocore's client; `say` gets one sentence a line."""

    def __init__(
        self,
        cloudformation: Any,
        *,
        say: Callable[[str], None],
        clock: Time = time,
        poll_s: float = 3.0,
        timeout_s: float = 3600.0,
    ) -> None:
        self._cf = cloudformation
        self._say = say
        self._time = clock
        self._poll_s = poll_s
        self._timeout_s = timeout_s

    def find(self, name: str) -> Stack | None:
        """The stack of that name or id, or None. A deleted one is None."""
        try:
            found = self._cf.describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            if error_code(error) == "ValidationError" and "does not exist" in str(error):
                return None
            raise
        return None if not found or found[0]["StackStatus"] == "DELETE_COMPLETE" else _stack(found[0])

    def last_event(self, name: str) -> str | None:
        """The id of the newest event: what `follow(since=…)` starts after. None if there is no stack."""
        with Ignoring("ValidationError"):
            events = self._cf.describe_stack_events(StackName=name)["StackEvents"]
            return str(events[0]["EventId"]) if events else None
        return None

    def follow(self, name: str, *, since: str | None) -> Stack:
        """Report the events after the id `since` until the stack is stable. Raises CloudError if it did not succeed."""
        stack, causes = self.rest(name, since=since)
        if stack is None:
            raise CloudError(f"{name} was deleted while this command ran", hint=REPEAT)
        if stack.status not in WELL:
            because = causes[0] if causes else stack.reason or "CloudFormation gives no reason"
            raise CloudError(
                f"{stack.name} ended as {stack.status}: {because}", hint=REPEAT, details={"causes": causes}
            )
        return stack

    def rest(self, name: str, *, since: str | None) -> tuple[Stack | None, list[str]]:
        """Wait until the stack is stable or gone. Returns it with the failures on the way, the first cause first."""
        seen, causes, quiet_polls = since, list[str](), 0

        def rests() -> tuple[Stack | None, list[str]] | None:
            nonlocal seen, quiet_polls
            stack = self.find(name)
            for event in self._events(name, since=seen) if stack else ():
                seen = str(event["EventId"])
                causes.extend(self._tell(event))
            if stack is None:
                return stack, causes
            quiet_polls = 0 if seen != since or not resting(stack.status) else quiet_polls + 1
            settled = resting(stack.status) and (seen != since or quiet_polls > QUIET_POLLS)
            return (stack, causes) if settled else None

        return self.wait(rests, f"{name} is still being updated")

    def wait(self, ready: Callable[[], _Result | None], late: str) -> _Result:
        """Poll until `ready` returns something, through network errors too. Raises CloudError after the time-out."""
        deadline = self._time.monotonic() + self._timeout_s
        while True:
            try:
                if (result := ready()) is not None:
                    return result
            except (ConnectionError, HTTPClientError) as error:
                self._say(f"  AWS cannot be reached ({type(error).__name__}); trying again")
                if self._time.monotonic() > deadline:
                    raise
            if self._time.monotonic() > deadline:
                raise CloudError(f"{late} after {self._timeout_s:.0f} s", hint=REPEAT)
            self._time.sleep(self._poll_s)

    def pause(self) -> None:
        """Let one poll's time pass."""
        self._time.sleep(self._poll_s)

    def _events(self, name: str, *, since: str | None) -> list[Mapping[str, Any]]:
        """Events after `since`, the oldest first. Reads no further back than `since`."""
        fresh: list[Mapping[str, Any]] = []
        for page in self._cf.get_paginator("describe_stack_events").paginate(StackName=name):
            for event in page["StackEvents"]:
                if event["EventId"] == since:
                    return fresh[::-1]
                fresh.append(event)
        return fresh[::-1]

    def _tell(self, event: Mapping[str, Any]) -> list[str]:
        """Report an event to the user. Returns the failures in it."""
        status, reason = str(event["ResourceStatus"]), str(event.get("ResourceStatusReason", ""))
        what = f"{event['LogicalResourceId']}: {reason}" if reason else str(event["LogicalResourceId"])
        if not status.endswith("_FAILED"):
            if status.endswith("_COMPLETE"):
                self._say(f"  {event['LogicalResourceId']} {status.lower().replace('_', ' ')}")
            return []
        self._say(f"  {event['LogicalResourceId']} {status.lower().replace('_', ' ')}: {reason}")
        return [] if reason.startswith(_CONSEQUENCES) else [what]


def _stack(found: Mapping[str, Any]) -> Stack:
    return Stack(
        name=found["StackName"],
        id=found.get("StackId", found["StackName"]),
        status=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        outputs={each["OutputKey"]: each.get("OutputValue", "") for each in found.get("Outputs", ())},
        parameters={each["ParameterKey"]: each.get("ParameterValue", "") for each in found.get("Parameters", ())},
        tags={each["Key"]: each["Value"] for each in found.get("Tags", ())},
        protected=bool(found.get("EnableTerminationProtection", False)),
    )
