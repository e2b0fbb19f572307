"""The receipt of a rollout, as both homes store and show it (docs/receipts.md describes each key).

Instants are timestamps of `hitless.clock.timestamp`. A key that only one home knows is left out by the other one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Self

import msgspec
from msgspec import UNSET, UnsetType

from hitless.release.document import PromotedFrom
from hitless.release.who import Who

VERSION: Final = 1
READINGS_KEPT: Final = 24


class Side(StrEnum):
    CANDIDATE = "candidate"
    LIVE = "live"


class Sums(msgspec.Struct, frozen=True):
    """Requests; those that a client saw fail; those that the live release answered because the candidate failed."""

    requests: int
    failed: int
    shielded: int


class RolloutCost(Sums, frozen=True):
    """What a rollout cost. `complete`: whether all requests are known."""

    complete: bool

    def plus(self, other: Self) -> Self:
        return type(self)(
            self.requests + other.requests,
            self.failed + other.failed,
            self.shielded + other.shielded,
            self.complete and other.complete,
        )


class ClassCounts(Sums, frozen=True):
    """Requests with their responses by status class (`2xx` …); requests in progress, and those whose client left, have
    none. `restarts`: of HAProxy in that time; its counts since its last reading are missing.
    """

    by_class: Mapping[str, int]
    restarts: int


class SavedCounts(ClassCounts, frozen=True):
    """The counts of one pool, as the next daemon continues them.

    `handed_over`: how many of them the live release was then asked, and its responses by class, as `requests`, `2xx` ….
    """

    handed_over: Mapping[str, int] = {}


class ReleaseCounts(ClassCounts, frozen=True):
    """The requests of one release during the rollout, and those of each function."""

    functions: Mapping[str, ClassCounts]


class Interval(msgspec.Struct, frozen=True, rename={"since": "from"}):
    """The time between two weights: the share that was asked for, and the share that the candidate got.

    `live` has no keys if no release was live.
    """

    since: str
    to: str
    asked_percent: int | float
    got_percent: float | None
    candidate: Mapping[str, int]
    live: Mapping[str, int]


class ReceiptPoint(msgspec.Struct, frozen=True):
    """The sums since the rollout's start, at one instant."""

    at: str
    candidate: Sums | UnsetType = UNSET
    live: Sums | UnsetType = UNSET


class Weight(msgspec.Struct, frozen=True):
    """A change of weight, with the sums at that instant."""

    at: str
    asked_percent: int | float
    candidate: Sums | UnsetType = UNSET
    live: Sums | UnsetType = UNSET


class AlarmReading(msgspec.Struct, frozen=True):
    at: str
    verdict: str
    sentence: str
    figures: Mapping[str, int | float | None]


class AlarmHistory(msgspec.Struct, frozen=True):
    """How often each verdict was given; the readings that are kept; figure → the reading with its highest value."""

    verdicts: Mapping[str, int]
    readings: tuple[AlarmReading, ...]
    worst: Mapping[str, AlarmReading]


class HookEnd(msgspec.Struct, frozen=True):
    at: str
    hook: str
    status: str


class ClientCounts(msgspec.Struct, frozen=True):
    """The responses of API Gateway to clients."""

    requests: int
    failed: int
    by_class: Mapping[str, int]


class Resume(msgspec.Struct, frozen=True, rename={"missing": "lacks"}):
    """What the next daemon needs to continue a receipt. `base`, `now`: side → function → pool's key → counts."""

    base: Mapping[Side, Mapping[str, Mapping[str, SavedCounts]]]
    now: Mapping[Side, Mapping[str, Mapping[str, SavedCounts]]]
    weights: tuple[Weight, ...]
    read_at: str
    every: int
    missing: tuple[str, ...]


class ReceiptFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known before the first step, and kept here because a release may be forgotten before its receipt."""

    version: int = VERSION
    release: int | UnsetType = UNSET
    stage: str | UnsetType = UNSET
    who: Who | UnsetType = UNSET
    why: str | UnsetType | None = UNSET
    commit: str | UnsetType | None = UNSET
    artifacts: Mapping[str, str] | UnsetType = UNSET
    promoted_from: PromotedFrom | UnsetType | None = UNSET


class ReceiptDocument(ReceiptFacts, frozen=True, kw_only=True):
    """The whole receipt. `missing`: notes on gaps in the sums; `live` is None for a stage's first release."""

    counted_by: str | UnsetType = UNSET
    complete: bool
    missing: tuple[str, ...]
    cost: RolloutCost | UnsetType = UNSET
    candidate: ReleaseCounts
    live: ReleaseCounts | None
    clients: ClientCounts | UnsetType | None = UNSET
    weights: tuple[Interval, ...]
    points: tuple[ReceiptPoint, ...]
    alarms: AlarmHistory
    hooks: tuple[HookEnd, ...]
    resume: Resume | UnsetType = UNSET

    @property
    def total(self) -> RolloutCost:
        """The requests of both releases; each request of a client counts once: a shielded one is the candidate's."""
        sides = [side for side in (self.candidate, self.live) if side]
        requests, failed = sum(side.requests for side in sides), sum(side.failed for side in sides)
        return RolloutCost(requests, failed, sum(side.shielded for side in sides), self.complete)
