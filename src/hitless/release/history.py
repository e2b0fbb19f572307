"""The documents of `hitless releases`, as the command line's contract shows them.

Timestamps are those of `hitless.clock.timestamp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hitless.release.receipt import ReceiptDocument, RolloutCost
from hitless.release.result import SideCounts, Step


class TakenBack(msgspec.Struct, frozen=True):
    """The guard's rollout that returned to `release` because an alarm fired. It is described by that release."""

    rollout: int
    release: int
    cost: RolloutCost | None


class RolloutDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout of a release. `was_live` is False for a release that a guard rolled back later.

    `outcome` is None while it is under way; `candidate` and `live` are None if nothing was counted.
    """

    rollout: int
    verb: str
    strategy: str
    state: str = "ended"
    outcome: str | None
    reason: str | None
    previous_release: int | None
    started_at: str
    ended_at: str | None
    duration_s: float | None
    steps: Sequence[Step]
    candidate: SideCounts | None = None
    live: SideCounts | None = None
    was_live: bool
    taken_back: TakenBack | None = None
    receipt: ReceiptDocument | None = None


class ReleaseSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One release of the engine, and how its last rollout ended. `kept`: whether it can be shipped again.

    `artifacts`: function → digest. `cost` is that of shipping it, with a guard's return to the release before it.
    """

    release: int
    stage: str
    live: bool
    kept: bool
    outcome: str | None
    reason: str | None
    verb: str | None
    strategy: str | None
    commit: str | None
    message: str | None
    artifacts: Mapping[str, str]
    created_at: str
    ended_at: str | None
    duration_s: float | None
    cost: RolloutCost | None


class ReleaseHistory(ReleaseSummary, frozen=True, kw_only=True):
    """One release of the engine in full. `functions` are those of its document, without their environment."""

    functions: Sequence[Mapping[str, Any]]
    rollouts: Sequence[RolloutDocument]
