"""Makes spans of rollouts from the engine's records, after they have ended.

Attributes follow https://opentelemetry.io/docs/specs/semconv/registry/attributes/deployment/; others begin with
`hitless.`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from hitless.release.result import Outcome, Step
from hitless.rollout.record import RolloutState
from hitless.store.store import RolloutRow, Store
from hitless.traces.otlp import INTERNAL, Recorded, Span, span


class Rollouts:
    """The rollouts that have not ended yet, and those to come."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending = {row.rollout for row in store.unfinished_rollouts()}
        self._last = max((row.rollout for row in store.rollouts(limit=1)), default=0)

    def ended(self) -> Iterator[Recorded]:
        """The spans of each rollout that has ended since the last call."""
        new = self._store.read("SELECT rollout FROM rollouts WHERE rollout > ?", (self._last,))
        self._pending |= {number for (number,) in new}
        self._last = max(self._last, *self._pending, 0)
        for number in sorted(self._pending):
            rows = [row for row in self._store.rollouts(before=number + 1, limit=1) if row.rollout == number]
            if not any(row.ended_at is None for row in rows):  # none: its stage was removed
                self._pending.discard(number)
                yield from (one for row in rows for one in self._spans(row))

    def _spans(self, row: RolloutRow) -> Iterator[Recorded]:
        release = self._store.release(row.stage, row.release)
        service, commit = (release.document["service"], release.commit) if release else (row.stage, None)
        row = replace(row, stage=row.stage.rpartition("_")[2])  # a shared engine's stages begin with the service's name
        spans = rollout_spans(row, self._store.steps(row.rollout), service, commit)
        return (((service, row.release, row.stage), one) for one in spans)


def rollout_spans(row: RolloutRow, steps: Sequence[Step], service: str, commit: str | None) -> Iterator[Span]:
    """The root span of an ended rollout, and one for each step; the step before a withdrawal is the one that failed."""
    outcome, end_ns = Outcome(row.outcome or Outcome.ABORTED), _ns(row.ended_at or row.started_at)
    error = {"error.type": outcome.value, "hitless.reason": row.reason} if outcome is Outcome.ROLLED_BACK else {}
    facts = {
        "deployment.id": str(row.rollout),
        "deployment.name": f"{row.verb} {service}",
        "deployment.status": {Outcome.LIVE: "succeeded", Outcome.ROLLED_BACK: "failed"}.get(outcome, outcome.value),
        "vcs.ref.head.revision": commit,
        "hitless.reason": row.reason,
        "hitless.strategy": row.strategy,
        "hitless.previous_release": row.previous_release,
    }
    digest = hashlib.sha256(f"{service} {row.stage} {row.rollout} {row.started_at}".encode()).hexdigest()
    trace, root = digest[:32], digest[32:48]
    times_ns = _ns(row.started_at), end_ns
    yield span((trace, root, ""), f"{row.verb} {row.stage}", INTERNAL, times_ns, {**facts, **error})
    wrong = max((n for n, step in enumerate(steps) if step.state != RolloutState.WITHDRAWING), default=0)
    ends_ns = [*(_ns(step.at) for step in steps[1:]), end_ns]
    for number, (step, until_ns) in enumerate(zip(steps, ends_ns, strict=False)):
        ids = trace, hashlib.sha256(f"{digest} {number}".encode()).hexdigest()[:16], root
        noted = {"hitless.weight_percent": f"{step.weight_percent:g}", "hitless.note": step.note}
        yield span(ids, step.state, INTERNAL, (_ns(step.at), until_ns), {**noted, **(error if number == wrong else {})})


def _ns(at: str) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1000) * 1_000_000
