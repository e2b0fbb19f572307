"""The states of a run and of its steps, how a step says how it ended, and whose turn a run waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hitless.store.runs import RunRow

FORK = "fork"
"""The key of a run's options that says whose code it tests: see `hitless.pipeline.forks`."""


class RunState(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting_for_approval"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"
    INTERRUPTED = "interrupted"

    @property
    def has_ended(self) -> bool:
        return self not in (RunState.QUEUED, RunState.RUNNING, RunState.WAITING)


RETRIABLE = frozenset({RunState.FAILED, RunState.INTERRUPTED, RunState.REJECTED, RunState.SUPERSEDED})


class StepName(StrEnum):
    """A run's steps, in their order."""

    SOURCE = "source"
    TEST = "test"
    BUILD = "build"
    REHEARSE = "rehearse"
    APPROVE = "approve"
    DEPLOY = "deploy"
    VERIFY = "verify"
    PREVIEW = "preview"


class StepState(StrEnum):
    """Where a step stands. `skipped`: there was nothing to do, and its detail says why."""

    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How a step ended well."""

    state: StepState = StepState.SUCCEEDED
    detail: Mapping[str, Any] = field(default_factory=dict)
    sentence: str = ""


def skipped(why: str) -> StepEnd:
    return StepEnd(StepState.SKIPPED, {"why": why}, f"skipped: {why}")


class StepFailed(Exception):
    """A step failed: `reason` is a sentence for the run; `exit_code` the one of a command that waits for it."""

    def __init__(self, reason: str, *, exit_code: int = 1, detail: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.reason, self.exit_code, self.detail = reason, exit_code, dict(detail or {})


def lane_of(row: RunRow) -> str:
    """Runs of one lane come one after the other, and the newest supersedes those that wait: a stage, a branch, a fork's
    pull request. The last is no branch, whatever it is called.
    """
    if row.stage is not None:
        return f"stage {row.stage}"
    return f"fork's {row.branch}" if FORK in row.options else f"branch {row.branch}"
