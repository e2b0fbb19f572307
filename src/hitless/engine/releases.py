"""What shipped, as the documents of `releases`: each release with what its last rollout cost, one release with the
receipts of all its rollouts. A release that was forgotten is still told by its receipts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hitless.engine.engine import Engine
from hitless.rollout.states import Outcome
from hitless.store.store import RolloutRow

_FOR_THE_ENGINE_ALONE = frozenset({"resume"})


def releases(engine: Engine, stage: str) -> list[dict[str, Any]]:
    """Each kept release of a stage, newest first, with how its last rollout ended."""
    rows = reversed(engine.store.releases(stage))
    return [_release(engine, stage, row.release, engine.store.rollouts(stage, release=row.release)) for row in rows]


def release(engine: Engine, stage: str, number: int) -> dict[str, Any]:
    """One release: configuration, and every rollout of it with its receipt. Raises UsageError where there is none."""
    rollouts = engine.store.rollouts(stage, release=number)
    row = engine.store.release(stage, number)
    if row is None and not rollouts:
        engine.release(stage, number)  # says which there are
    functions = row.document["functions"] if row else []
    return {
        **_release(engine, stage, number, rollouts),
        "functions": [{key: value for key, value in each.items() if key != "environment"} for each in functions],
        "rollouts": [_rollout(engine, rollout) for rollout in rollouts],
    }


def _release(engine: Engine, stage: str, number: int, rollouts: Sequence[RolloutRow]) -> dict[str, Any]:
    row, live = engine.store.release(stage, number), engine.store.live(stage)
    last = rollouts[0] if rollouts else None
    receipt = engine.store.receipt(last.rollout) if last else None
    facts = receipt or {}
    if row:
        artifacts = {name: artifact["digest"] for name, artifact in row.document["artifacts"].items()}
    else:
        artifacts = facts.get("artifacts", {})
    return {
        "release": number,
        "stage": stage,
        "live": live is not None and number == live[0],
        "kept": row is not None,
        "outcome": last.outcome if last else None,
        "reason": last.reason if last else None,
        "verb": last.verb if last else None,
        "strategy": last.strategy if last else None,
        "commit": row.commit if row else facts.get("commit"),
        "message": row.message if row else facts.get("why"),
        "artifacts": artifacts,
        "created_at": row.created_at if row else rollouts[-1].started_at,
        "ended_at": last.ended_at if last else None,
        "duration_s": (last.receipt or _pieced_together(last, receipt)).get("duration_s") if last else None,
        "cost": cost(receipt),
    }


def cost(receipt: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a rollout's receipt comes to: requests of both releases, those that failed, those that were shielded.

    Each request of a client counts once: a shielded one is the candidate's.
    """
    if receipt is None:
        return None
    sides = [side for side in (receipt["candidate"], receipt["live"]) if side]
    sums = {name: sum(side[name] for side in sides) for name in ("requests", "failed", "shielded")}
    return {**sums, "complete": receipt["complete"]}


def _pieced_together(rollout: RolloutRow, receipt: Mapping[str, Any] | None) -> dict[str, Any]:
    """The deploy document's figures, where nobody was there to write it at the end: the daemon had died."""
    if receipt is None or rollout.ended_at is None:
        return {}
    lasted = datetime.fromisoformat(rollout.ended_at) - datetime.fromisoformat(rollout.started_at)
    candidate, live = receipt["candidate"], receipt["live"]
    return {
        "duration_s": round(lasted.total_seconds(), 3),
        "candidate": {name: candidate[name] for name in ("requests", "failed", "shielded")},
        "live": {name: live[name] for name in ("requests", "failed")} if live else None,
    }


def _rollout(engine: Engine, rollout: RolloutRow) -> dict[str, Any]:
    receipt = engine.store.receipt(rollout.rollout)
    given = rollout.receipt or _pieced_together(rollout, receipt)
    told = {key: value for key, value in (receipt or {}).items() if key not in _FOR_THE_ENGINE_ALONE}
    return {
        "rollout": rollout.rollout,
        "verb": rollout.verb,
        "strategy": rollout.strategy,
        "state": rollout.state,
        "outcome": rollout.outcome,
        "reason": rollout.reason,
        "previous_release": rollout.previous_release,
        "started_at": rollout.started_at,
        "ended_at": rollout.ended_at,
        "duration_s": given.get("duration_s"),
        "steps": engine.store.steps(rollout.rollout),
        "candidate": given.get("candidate"),
        "live": given.get("live"),
        "was_live": rollout.outcome == Outcome.LIVE,
        "receipt": {**told, "cost": cost(receipt)} if receipt else None,
    }
