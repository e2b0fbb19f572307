"""CloudFormation's stack states, and what each asks for before a stack can be changed. One table."""

from __future__ import annotations

from enum import StrEnum


class Step(StrEnum):
    """What comes next for a stack in some state."""

    CREATE = "create"
    UPDATE = "update"
    AWAIT = "await"
    RECREATE = "recreate"
    """It never came up or is half deleted, so nobody is served; CloudFormation allows nothing but its deletion."""
    ROLL_BACK = "roll back"
    """An update that failed with its own roll-back turned off (by somebody else: we never do)."""
    CONTINUE_ROLLBACK = "continue roll-back"
    """A roll-back that could not end; continuing it returns to what served before, and skips nothing."""


WELL = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"})

_STEPS: dict[str | None, Step] = {
    None: Step.CREATE,
    "REVIEW_IN_PROGRESS": Step.CREATE,  # the shell of a change set that nobody carried out
    "CREATE_COMPLETE": Step.UPDATE,
    "UPDATE_COMPLETE": Step.UPDATE,
    "UPDATE_ROLLBACK_COMPLETE": Step.UPDATE,
    "UPDATE_FAILED": Step.ROLL_BACK,
    "UPDATE_ROLLBACK_FAILED": Step.CONTINUE_ROLLBACK,
    "IMPORT_COMPLETE": Step.UPDATE,
    "IMPORT_ROLLBACK_COMPLETE": Step.UPDATE,
    "IMPORT_ROLLBACK_FAILED": Step.UPDATE,
    "CREATE_FAILED": Step.RECREATE,
    "ROLLBACK_COMPLETE": Step.RECREATE,
    "ROLLBACK_FAILED": Step.RECREATE,
    "DELETE_FAILED": Step.RECREATE,
    "DELETE_COMPLETE": Step.CREATE,
}


def next_step(status: str | None) -> Step:
    """What a stack of that status asks for; None is a stack that is not there. Unknown states are awaited."""
    known = _STEPS.get(status)
    return known if known is not None else Step.AWAIT


def resting(status: str) -> bool:
    """Whether CloudFormation works on the stack no more. A change set's empty shell counts as resting."""
    return not status.endswith("_IN_PROGRESS") or status == "REVIEW_IN_PROGRESS"
