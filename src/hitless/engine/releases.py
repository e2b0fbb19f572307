"""The documents of `hitless releases`: each release with its last rollout's failures, or one with all its receipts.

A forgotten release is still described by its receipts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import UNSET
from msgspec.structs import asdict, replace

from hitless.errors import UsageError
from hitless.release.document import DRILL_MESSAGE
from hitless.release.history import ReleaseHistory, ReleaseSummary, RolloutDocument, TakenBack
from hitless.release.receipt import ReceiptDocument, RolloutCost
from hitless.release.result import Outcome, RolloutVerb, SideCounts
from hitless.store.store import RolloutRow, Store

RETURNS = frozenset({RolloutVerb.ROLLBACK, RolloutVerb.GUARD})
"""Rollouts that return to an earlier release: their failures say nothing about it."""


def releases(store: Store, stage: str) -> list[ReleaseSummary]:
    """Each kept release of a stage, newest first, and how its last rollout ended."""
    numbers = store.release_numbers(stage)[::-1]
    return [_summary(store, stage, number, store.rollouts(stage, release=number)) for number in numbers]


def release(store: Store, stage: str, number: int) -> ReleaseHistory:
    """One release: its configuration and every rollout with its receipt. Raises UsageError if there is none."""
    rollouts = store.rollouts(stage, release=number)
    row = store.release(stage, number)
    if row is None and not rollouts:
        raise missing(store, stage, number)
    functions = row.document["functions"] if row else []
    return ReleaseHistory(
        **asdict(_summary(store, stage, number, rollouts)),
        functions=[{key: value for key, value in each.items() if key != "environment"} for each in functions],
        rollouts=[_rollout(store, rollout) for rollout in rollouts],
    )


def previous_live(store: Store, stage: str) -> int | None:
    """The release that was live before this one; after a drill, the one that was live before the drill's return."""
    live = store.live(stage)
    for rollout in store.rollouts(stage) if live else ():
        if (
            live
            and rollout.outcome == Outcome.LIVE
            and rollout.release == live[0]
            and rollout.verb != RolloutVerb.GUARD  # a guard rolled the release back, so it cannot be a target
            and rollout.previous_release is not None
            and (_is_drills(store, stage, live[0]) or not _is_drills(store, stage, rollout.previous_release))
        ):
            return rollout.previous_release
    return None


def _is_drills(store: Store, stage: str, number: int) -> bool:
    row = store.release(stage, number)
    return row is not None and (row.document.get("message") or "").startswith(DRILL_MESSAGE)


def missing(store: Store, stage: str, number: int) -> UsageError:
    """The error for a release that the stage does not have."""
    kept = ", ".join(map(str, store.release_numbers(stage))) or "none"
    return UsageError(f"{stage} has no release {number}", hint=f"{stage} has these releases: {kept}")


def _summary(store: Store, stage: str, number: int, rollouts: Sequence[RolloutRow]) -> ReleaseSummary:
    row, live = store.release(stage, number), store.live(stage)
    last = rollouts[0] if rollouts else None
    shipped = next((rollout for rollout in rollouts if rollout.verb not in RETURNS), last)
    receipt = store.receipt(last.rollout) if last else None
    if row:
        artifacts = {name: artifact["digest"] for name, artifact in row.document["artifacts"].items()}
    else:
        artifacts = dict(receipt.artifacts or {}) if receipt else {}
    return ReleaseSummary(
        release=number,
        stage=stage,
        live=live is not None and number == live[0],
        kept=row is not None,
        outcome=last.outcome if last else None,
        reason=last.reason if last else None,
        verb=last.verb if last else None,
        strategy=last.strategy if last else None,
        commit=row.commit if row else (receipt and receipt.commit) or None,
        message=row.message if row else (receipt and receipt.why) or None,
        artifacts=artifacts,
        created_at=row.created_at if row else rollouts[-1].started_at,
        ended_at=last.ended_at if last else None,
        duration_s=_figures(last, receipt)[0] if last else None,
        cost=_total_cost(store, shipped) if shipped else None,
    )


def _total_cost(store: Store, rollout: RolloutRow) -> RolloutCost | None:
    """The cost of shipping a release: its rollout, and the return to the previous release if a guard rolled it back."""
    own, back = _cost(store, rollout), _guard_rollout_of(store, rollout)
    after = _cost(store, back) if back else None
    return own.plus(after) if own and after else own


def _guard_rollout_of(store: Store, rollout: RolloutRow) -> RolloutRow | None:
    """The guard's rollout that returned from this one, which had ended live."""
    turned = rollout.outcome == Outcome.ROLLED_BACK and rollout.result and rollout.result.outcome == Outcome.LIVE
    if not turned or rollout.previous_release is None:
        return None
    later = store.rollouts(rollout.stage, release=rollout.previous_release)
    returns = [
        row
        for row in later
        if row.verb == RolloutVerb.GUARD and row.previous_release == rollout.release and row.rollout > rollout.rollout
    ]
    return returns[-1] if returns else None


def _cost(store: Store, rollout: RolloutRow) -> RolloutCost | None:
    receipt = store.receipt(rollout.rollout)
    return receipt.total if receipt else None


def _figures(
    rollout: RolloutRow, receipt: ReceiptDocument | None
) -> tuple[float | None, SideCounts | None, SideCounts | None]:
    """Duration in s, counts of the candidate and of the live release: from the result, or else from the receipt if the
    daemon died.
    """
    if (result := rollout.result) is not None:
        return result.duration_s, result.candidate, result.live
    if receipt is None or rollout.ended_at is None:
        return None, None, None
    lasted = datetime.fromisoformat(rollout.ended_at) - datetime.fromisoformat(rollout.started_at)
    candidate, live = receipt.candidate, receipt.live
    return (
        round(lasted.total_seconds(), 3),
        SideCounts(candidate.requests, candidate.failed, candidate.shielded),
        SideCounts(live.requests, live.failed) if live else None,
    )


def _rollout(store: Store, rollout: RolloutRow) -> RolloutDocument:
    receipt, back = store.receipt(rollout.rollout), _guard_rollout_of(store, rollout)
    duration_s, candidate, live = _figures(rollout, receipt)
    return RolloutDocument(
        rollout=rollout.rollout,
        verb=rollout.verb,
        strategy=rollout.strategy,
        state=rollout.state,
        outcome=rollout.outcome,
        reason=rollout.reason,
        previous_release=rollout.previous_release,
        started_at=rollout.started_at,
        ended_at=rollout.ended_at,
        duration_s=duration_s,
        steps=store.steps(rollout.rollout),
        candidate=candidate,
        live=live,
        was_live=rollout.outcome == Outcome.LIVE,
        taken_back=TakenBack(back.rollout, back.release, _cost(store, back)) if back else None,
        receipt=replace(receipt, resume=UNSET, cost=receipt.total) if receipt else None,
    )
