"""Runs and steps: states, options, results of steps, and a run as JSON for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

import msgspec
from msgspec import UNSET, UnsetType

from hitless.documents import convert
from hitless.errors import HitlessError
from hitless.forge.forge import ForkPullRequest
from hitless.release.document import Origin
from hitless.store.runs import RunRecords, RunRow


class RunState(StrEnum):
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
    """The steps of a run, in their order."""

    SOURCE = "source"
    TEST = "test"
    BUILD = "build"
    REHEARSE = "rehearse"
    APPROVE = "approve"
    DEPLOY = "deploy"
    VERIFY = "verify"
    PREVIEW = "preview"


_ORDER = {str(name): index for index, name in enumerate(StepName)}


class StepState(StrEnum):
    """The state of a step. `skipped`: there was nothing to do, and its detail says why."""

    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class StepDetail(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The keys of a step's detail that commands and later steps read. Many steps have a larger detail of their own.

    `reason` and `exit_code`: why it failed or was cut off; `why` it was skipped; `url`, `release` and `outcome` of a
    rollout; `verify`: whether to verify what was deployed; `faults` that were found; `notes` of a rehearsal.
    """

    reason: str | None = None
    exit_code: int | None = None
    why: str | None = None
    note: str | None = None
    url: str | None = None
    release: int | None = None
    outcome: str | None = None
    verify: bool = True
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, detail: object) -> Self:
        """From the detail of a row or a document; None has nothing."""
        return convert(detail or {}, cls, "a step's detail")


NO_DETAIL = StepDetail()


@dataclass(frozen=True, slots=True)
class StepEnd:
    """The result of a successful step."""

    state: StepState = StepState.SUCCEEDED
    detail: msgspec.Struct = NO_DETAIL
    sentence: str = ""


def skipped(why: str) -> StepEnd:
    return StepEnd(StepState.SKIPPED, StepDetail(why=why), f"skipped: {why}")


class StepFailed(Exception):
    """A step failed. `reason` is a sentence for the run, `exit_code` that of a command that waits for the run."""

    def __init__(self, reason: str, *, exit_code: int = 1, detail: msgspec.Struct = NO_DETAIL) -> None:
        super().__init__(reason)
        self.reason, self.exit_code, self.detail = reason, exit_code, detail

    @classmethod
    def of(cls, error: Exception) -> StepFailed:
        match error:
            case StepFailed():
                return error
            case HitlessError():
                return cls(error.message, exit_code=error.exit_code)
            case _:
                return cls(f"{type(error).__name__}: {error}")


class RunOptions(msgspec.Struct, frozen=True, omit_defaults=True, rename={"source": "from"}):
    """The options of a run, as its record keeps them."""

    service: str = ""
    """On an engine that several services share."""
    skip_rehearsal: bool = False
    forced: bool = False
    """The push replaced commits of the branch."""
    preview: bool = False
    fork: ForkPullRequest | None = None
    """The pull request whose code it tests."""
    source: str | None = None
    """The stage that it promotes from, its `release` and the `origin` of the artifacts."""
    release: int | None = None
    origin: Origin | None = None
    document: Mapping[str, Any] | None = None
    """The configuration of a promotion from a folder whose commit is not in the repository."""


def options_of(row: RunRow) -> RunOptions:
    return convert(row.options, RunOptions, f"run {row.run}: options")


def lane_of(row: RunRow) -> str:
    """The queue of a run: its stage, its branch, or its fork's pull request (which is no branch, whatever its name).

    Runs of one lane run one after another, and a newer one supersedes those that wait.
    """
    if row.stage is not None:
        return f"stage {row.stage}"
    return f"fork's {row.branch}" if options_of(row).fork else f"branch {row.branch}"


class StepDocument(msgspec.Struct, frozen=True):
    """A step as JSON."""

    name: str
    state: str
    duration_s: float | None
    started_at: str | UnsetType | None = UNSET
    detail: Mapping[str, Any] | UnsetType | None = UNSET


class ApprovalDocument(msgspec.Struct, frozen=True):
    """The question to a person, and the answer."""

    asked_at: str
    expires_at: str
    decision: str | None
    by: str | None
    at: str | None
    why: str | None


class RunDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A run as JSON, for `hitless pipeline runs` and `show`, notifications and commit statuses."""

    run: int
    stage: str | None
    branch: str
    commit: str | None
    state: RunState
    release: int | None
    started_at: str
    ended_at: str | None
    reason: str | None
    verb: str
    message: str | None
    actor: str | None
    overridden: str | None
    preview: str | None
    """The URL of the branch's preview, if the run has reached that step."""
    fork: ForkPullRequest | None
    steps: tuple[StepDocument, ...]
    service: str | UnsetType = UNSET
    """The run's service, on an engine that several services share."""
    approval: ApprovalDocument | UnsetType | None = UNSET
    exit_code: int | UnsetType = UNSET
    """The exit code of a command that waited for the run."""
    question: Mapping[str, Any] | UnsetType = UNSET
    link: str | UnsetType | None = UNSET
    """The approval link, for people without a login here."""
    protection: str | UnsetType | None = UNSET
    """What the commit changes in the protection of its stage."""

    @classmethod
    def of(cls, records: RunRecords, row: RunRow, *, full: bool = False) -> RunDocument:
        """One run; `full` with the details of its steps and its approval."""
        steps = sorted(records.steps(row.run), key=lambda step: _ORDER[step.name])
        urls = (StepDetail.of(step.detail).url for step in steps if step.name == StepName.PREVIEW)
        return cls(
            **{key: value for key, value in asdict(row).items() if key in _OF_ROW},
            commit=row.commit or None,
            state=RunState(row.state),
            service=row.service or UNSET,
            preview=next((url for url in urls if url), None),
            fork=options_of(row).fork,
            steps=tuple(
                StepDocument(one.name, one.state, one.duration_s, *((one.started_at, one.detail) if full else ()))
                for one in steps
            ),
            approval=_approval(records, row.run) if full else UNSET,
        )

    @property
    def where(self) -> str:
        """The run's stage, or its branch."""
        return self.stage or self.told_branch

    @property
    def told_branch(self) -> str:
        """The branch: `dev`, or `dev (users)` on an engine that several services share."""
        return self.branch + (f" ({self.service})" if self.service else "")


_OF_ROW = {field.name for field in fields(RunRow)} & set(RunDocument.__struct_fields__) - {"commit", "state", "service"}


def exit_code(records: RunRecords, row: RunRow) -> int:
    """The exit code of a command that waited for the run."""
    match RunState(row.state):
        case RunState.FAILED:
            codes = [StepDetail.of(step.detail).exit_code for step in records.steps(row.run)]
            return next((code for code in codes if code), 1)
        case RunState.SUPERSEDED | RunState.REJECTED:
            return 4
        case RunState.INTERRUPTED:
            return 1
        case _:
            return 0


def _approval(records: RunRecords, run: int) -> ApprovalDocument | None:
    found = records.approval(run)
    if found is None:
        return None
    return ApprovalDocument(
        found.asked_at, found.expires_at, found.decision, found.decided_by, found.decided_at, found.why
    )
