"""A run as JSON, as `hitless pipeline runs` and `show` give it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hitless.pipeline.states import FORK, RunState, StepName
from hitless.store.runs import RunRecords, RunRow, StepRow

_ORDER = {str(name): index for index, name in enumerate(StepName)}


def run_document(records: RunRecords, row: RunRow, *, full: bool = False) -> dict[str, Any]:
    """One run; `full` with its steps' findings and its approval."""
    steps = sorted(records.steps(row.run), key=lambda step: _ORDER[step.name])
    document: dict[str, Any] = {
        "run": row.run,
        "stage": row.stage,
        "branch": row.branch,
        "commit": row.commit or None,
        "state": row.state,
        "release": row.release,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "reason": row.reason,
        "verb": row.verb,
        "message": row.message,
        "actor": row.actor,
        "overridden": row.overridden,
        "preview": _preview(steps),
        "fork": row.options.get(FORK),
        "steps": [_step(step, full=full) for step in steps],
    }
    if full:
        document["approval"] = _approval(records, row.run)
    return document


def _preview(steps: Iterable[StepRow]) -> str | None:
    """Where the run's code answers (or did), if it came as far."""
    urls = ((step.detail or {}).get("url") for step in steps if step.name == StepName.PREVIEW)
    return next((str(url) for url in urls if url), None)


def exit_code(records: RunRecords, row: RunRow) -> int:
    """What a command ends with that waited for the run."""
    match RunState(row.state):
        case RunState.FAILED:
            codes = [(step.detail or {}).get("exit_code") for step in records.steps(row.run)]
            return next((int(code) for code in codes if code), 1)
        case RunState.SUPERSEDED | RunState.REJECTED:
            return 4
        case RunState.INTERRUPTED:
            return 1
        case _:
            return 0


def _step(step: StepRow, *, full: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"name": step.name, "state": step.state, "duration_s": step.duration_s}
    if full:
        document |= {"started_at": step.started_at, "detail": step.detail}
    return document


def _approval(records: RunRecords, run: int) -> dict[str, Any] | None:
    found = records.approval(run)
    if found is None:
        return None
    return {
        "asked_at": found.asked_at,
        "expires_at": found.expires_at,
        "decision": found.decision,
        "by": found.decided_by,
        "at": found.decided_at,
        "why": found.why,
    }
