"""The result of a deploy, a rollback or a promotion, as the command line's contract shows it."""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType


class Outcome(StrEnum):
    LIVE = "live"
    ROLLED_BACK = "rolled_back"
    UNCHANGED = "unchanged"
    SUPERSEDED = "superseded"
    ABORTED = "aborted"

    @property
    def exit_code(self) -> int:
        """The command line's exit code for it."""
        return {Outcome.ROLLED_BACK: 3, Outcome.SUPERSEDED: 4, Outcome.ABORTED: 4}.get(self, 0)


class RolloutVerb(StrEnum):
    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    GUARD = "guard"


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of a rollout. `state` is the home's own word for where the rollout is."""

    at: str
    state: str
    weight_percent: int | float
    note: str | None = None


class SideCounts(msgspec.Struct, frozen=True):
    """Requests of one release during a rollout; `failed` are those that a client saw fail."""

    requests: int
    failed: int
    shielded: int | UnsetType = UNSET


class LastReading(msgspec.Struct, frozen=True):
    verdict: str
    sentence: str


class Result(msgspec.Struct, frozen=True):
    """How a release ended. `candidate` and `live` are None if nothing was counted.

    `alarms` is the engine's, `url` is AWS's.
    """

    stage: str
    release: int
    outcome: Outcome
    strategy: str
    reason: str | None = None
    duration_s: int | float = 0
    steps: tuple[Step, ...] = ()
    alarms: LastReading | UnsetType | None = UNSET
    candidate: SideCounts | None = None
    live: SideCounts | None = None
    url: str | UnsetType | None = UNSET


class Verified(msgspec.Struct, frozen=True):
    """Faults of a release on AWS, one sentence each. `superseded`: another one is live, and nothing was checked."""

    faults: tuple[str, ...] = ()
    superseded: bool = False


def whole(number: float) -> int | float:
    """Whole percentages are integers in JSON."""
    return int(number) if number == int(number) else number
