"""After a daemon's end: each run that was under way gets its true end, by what the engine and the state file know.

The engine has recovered before (`hitless.engine.recovery`): a rollout that was cut off is live or withdrawn by now. A
run whose release went live goes on with its verification; every other one is marked interrupted, and can be retried
from the step that was cut off.
"""

from __future__ import annotations

from hitless.pipeline.course import Course
from hitless.pipeline.parts import Parts
from hitless.pipeline.states import RunState, StepName, StepState
from hitless.store.runs import RunRow


def recover(parts: Parts, path: str) -> list[RunRow]:
    """Mark what was interrupted; the runs that go on, oldest first."""
    go_on = []
    for row in parts.records.in_state(RunState.RUNNING):
        step = next((one for one in parts.records.steps(row.run) if one.state == StepState.RUNNING), None)
        name = step.name if step else None
        if name == StepName.DEPLOY and _went_live(parts, row):
            parts.records.set_step(
                row.run, StepName.DEPLOY, StepState.SUCCEEDED, detail={"note": "went live as the engine stopped"}
            )
            go_on.append(row)
        elif name == StepName.VERIFY:
            go_on.append(row)
        else:
            _interrupt(parts, row, name, path)
    approved = [row for row in parts.records.in_state(RunState.QUEUED) if _is_approved(parts, row)]
    return go_on + approved


def _went_live(parts: Parts, row: RunRow) -> bool:
    live = parts.engine.store.live(row.stage) if row.stage else None
    return live is not None and live[0] == row.release


def _is_approved(parts: Parts, row: RunRow) -> bool:
    return any(
        step.name == StepName.APPROVE and step.state == StepState.SUCCEEDED for step in parts.records.steps(row.run)
    )


def _interrupt(parts: Parts, row: RunRow, step: str | None, path: str) -> None:
    if step is not None:
        reason = f"the engine stopped during {step}"
        parts.records.set_step(row.run, step, StepState.INTERRUPTED, detail={"reason": reason})
    else:
        reason = "the engine stopped between two steps"
    Course(parts, row, path).end(RunState.INTERRUPTED, f"{reason}: `hitless pipeline retry {row.run}`")
