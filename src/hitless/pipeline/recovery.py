"""After a daemon's end: each run that was under way goes on, or gets its true end.

The engine has recovered before (`hitless.engine.recovery`): a rollout that was cut off is live or withdrawn by now. A
run whose release went live goes on with its verification. One that had not come to its stage has changed nothing: it
goes on at the step that was cut off, unless a newer run came after it, or it was cut off twice before (it may be what
ends the daemon). So does one that was shipping to AWS, where nothing is withdrawn and a release is carried on. A
rollout that was withdrawn is marked interrupted: whether to try again is a person's to say.
"""

from __future__ import annotations

from hitless.pipeline.course import Course
from hitless.pipeline.parts import Parts
from hitless.pipeline.shipping import home_of
from hitless.pipeline.states import RunState, StepFailed, StepName, StepState, lane_of
from hitless.store.runs import RUNS_KEPT, RunRow

MOST_RESTARTS = 2


def recover(parts: Parts, path: str) -> list[RunRow]:
    """Mark what was interrupted; the runs that go on, oldest first."""
    going_on = [row for row in parts.records.in_state(RunState.RUNNING) if _goes_on(parts, row, path)]
    for row in parts.records.in_state(RunState.WAITING):
        answer = parts.records.approval(row.run)
        if answer is not None and answer.decision is not None:  # as the daemon died: nobody can give it again
            Course(parts, row, path).take_answer(answer)
    approved = [row for row in parts.records.in_state(RunState.QUEUED) if _is_approved(parts, row)]
    return going_on + approved


def _goes_on(parts: Parts, row: RunRow, path: str) -> bool:
    """Whether the run is taken up again; where not, it has its end."""
    course = Course(parts, row, path)
    step = next((one for one in parts.records.steps(row.run) if one.state == StepState.RUNNING), None)
    if step and step.name == StepName.DEPLOY and _went_live(parts, row):
        detail = {"note": "went live as the engine stopped"}
        parts.records.set_step(row.run, StepName.DEPLOY, StepState.SUCCEEDED, detail=detail)
    if course.ended_well(StepName.DEPLOY):
        return True
    where = f"the engine stopped during {step.name}" if step else "the engine stopped between two steps"
    touched = step is not None and step.name == StepName.DEPLOY and not _is_carried_on(course)
    after = [one.run for one in parts.records.runs(limit=RUNS_KEPT) if lane_of(one) == lane_of(row)]
    newest = max(after, default=row.run)
    if newest > row.run and not touched:
        course.end(RunState.SUPERSEDED, f"{where}, and run {newest} came after it")
        return False
    if row.restarts < MOST_RESTARTS and not touched:
        parts.records.count_restart(row.run)
        course.say(f"{where}: the run goes on")
        parts.engine.say(f"run {row.run} of {row.branch} goes on: {where}", row.stage)
        return True
    if step:
        parts.records.set_step(row.run, step.name, StepState.INTERRUPTED, detail={"reason": where})
    again = " again" if row.restarts and not touched else ""
    course.end(RunState.INTERRUPTED, f"{where}{again}: `hitless pipeline retry {row.run}`")
    return False


def _is_carried_on(course: Course) -> bool:
    try:
        return home_of(course).carries_on
    except StepFailed:  # the candidate is gone
        return False


def _went_live(parts: Parts, row: RunRow) -> bool:
    live = parts.engine.store.live(row.stage) if row.stage else None
    return live is not None and live[0] == row.release


def _is_approved(parts: Parts, row: RunRow) -> bool:
    return any(
        step.name == StepName.APPROVE and step.state == StepState.SUCCEEDED for step in parts.records.steps(row.run)
    )
