"""Decides which run is next: each lane (queue of a stage or branch) runs one at a time, the newest waiting one first.

The lanes are in memory only. After the daemon's end they are made again from the runs' records (`recover`): each run
that was in progress continues, or its real result is recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from hitless.errors import HitlessError
from hitless.pipeline.buildspec.files import remove
from hitless.pipeline.course import Course, Step
from hitless.pipeline.parts import Parts
from hitless.pipeline.previews import preview
from hitless.pipeline.runs import RunState, StepDetail, StepFailed, StepName, StepState, lane_of, options_of
from hitless.pipeline.shipping import home_of, live_number
from hitless.pipeline.steps import STEPS, ask_maintainer, source, test
from hitless.store.runs import RUNS_KEPT, RunRow

TRY_AGAIN_S = 1.0
MAX_RESTARTS = 2
BRANCH: Mapping[StepName, Step] = {StepName.SOURCE: source, StepName.TEST: test}
FORKED = {StepName.SOURCE: source, StepName.APPROVE: ask_maintainer, StepName.TEST: test}
PREVIEWED = {**BRANCH, StepName.PREVIEW: preview}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Lane:
    """The runs of one lane. `resumed` runs have run before, and no newer run supersedes them."""

    resumed: list[RunRow] = field(default_factory=list)
    queued: RunRow | None = None
    task: asyncio.Task[None] | None = None
    running: tuple[int, asyncio.Task[None]] | None = None


class Turns:
    """The lanes of one pipeline."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lanes: dict[str, Lane] = {}
        self._unrecorded: dict[int, str] = {}
        self._ends_later: asyncio.Task[None] | None = None

    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks in progress."""
        later = [self._ends_later] if self._ends_later else []
        return [*(lane.task for lane in self._lanes.values() if lane.task), *later]

    def _lane(self, row: RunRow) -> Lane:
        return self._lanes.setdefault(lane_of(row), Lane())

    def enqueue(self, row: RunRow) -> None:
        lane = self._lane(row)
        if lane.queued is not None and lane.queued.run != row.run:
            Course(self._parts, lane.queued).end(RunState.SUPERSEDED, f"run {row.run} came after it")
        lane.queued = row
        if lane.running is not None:
            waits = f"waits for the end of run {lane.running[0]}"
            self._parts.records.set_state(row.run, RunState.QUEUED, waits, None)
            Course(self._parts, row).say(waits)
        self._wake(lane)

    def resume(self, row: RunRow) -> None:
        lane = self._lane(row)
        lane.resumed.append(row)
        self._wake(lane)

    def drop(self, row: RunRow) -> None:
        """Take a run that has not begun out of its lane. The caller records its end."""
        lane = self._lane(row)
        lane.resumed = [one for one in lane.resumed if one.run != row.run]
        lane.queued = None if lane.queued is None or lane.queued.run == row.run else lane.queued

    def _wake(self, lane: Lane) -> None:
        if lane.task is None:
            lane.task = asyncio.create_task(self._serve(lane))

    async def _serve(self, lane: Lane) -> None:
        """Run one run after another until the lane is empty."""
        try:
            while True:
                if lane.resumed:
                    row = lane.resumed.pop(0)
                elif lane.queued is not None:
                    row, lane.queued = lane.queued, None
                else:
                    return
                try:
                    self._parts.workshop.create()
                    await self._run(lane, row)
                    for gone in self._parts.records.forget_old():
                        remove(self._parts.workshop.of_run(gone))
                except Exception as error:  # noqa: BLE001 - such as a full disk: the lane's next run must not wait for it
                    self._unrecorded[row.run] = f"{type(error).__name__}: {error}"
                    if self._ends_later is None:
                        self._ends_later = asyncio.create_task(self._record_ends())
        finally:
            lane.task = None

    async def _run(self, lane: Lane, row: RunRow) -> None:
        """Run one run in a task of its own, so that it can be stopped without its lane."""
        task = asyncio.create_task(Course(self._parts, row).run(_steps_of(row)))
        lane.running = row.run, task
        try:
            await asyncio.wait([task])
        finally:
            lane.running = None
            if not task.done():  # the whole pipeline is stopping
                task.cancel()
                await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def stop(self, row: RunRow) -> bool:
        """Cancel a run in progress, with its processes; False if it is not in progress."""
        lane = self._lane(row)
        if lane.running is None or lane.running[0] != row.run:
            return False
        lane.running[1].cancel()
        await asyncio.wait([lane.running[1]])
        return True

    async def _record_ends(self) -> None:
        """Record the ends that could not be recorded, as soon as the disk allows it."""
        try:
            while self._unrecorded:
                for run, why in list(self._unrecorded.items()):
                    try:
                        row = self._parts.records.run(run)
                        if row is not None and not RunState(row.state).has_ended:
                            Course(self._parts, row).end_unfinished(why)
                        del self._unrecorded[run]
                    except (OSError, HitlessError) as error:
                        log.error("a run's end could not be recorded", {"run": run, "why": why, "error": str(error)})
                await self._parts.clock.sleep(TRY_AGAIN_S)
        finally:
            self._ends_later = None


def _steps_of(row: RunRow) -> Mapping[StepName, Step]:
    """All for a stage; tests, and perhaps a preview, for a branch; an approval, then tests, for a fork."""
    options = options_of(row)
    if options.fork:
        return FORKED
    if row.stage is not None:
        return STEPS
    return PREVIEWED if options.preview else BRANCH


def recover(parts: Parts) -> list[RunRow]:
    """After a daemon's end, return the runs to continue, oldest first; the others are ended.

    The engine has recovered before (`hitless.engine.recovery`), so a rollout that was cut off is live or withdrawn. If
    the run's release went live, the run continues with its verification. If the run had not come to its stage, nothing
    has changed: it continues at the step that was cut off, unless a newer run came after it, or it was cut off twice
    before and may be what kills the daemon. So does a run that was shipping to AWS, where the next ship continues a
    release. A run whose rollout was withdrawn is interrupted, and a person decides whether to retry it.
    """
    continued = [row for row in parts.records.in_state(RunState.RUNNING) if _resumes(parts, row)]
    for row in parts.records.in_state(RunState.WAITING):
        answer = parts.records.approval(row.run)
        if answer is not None and answer.decision is not None:  # the daemon died before it applied it
            Course(parts, row).apply_answer(answer)
    approved = (StepName.APPROVE, StepState.SUCCEEDED)
    for row in parts.records.in_state(RunState.QUEUED):
        if any((step.name, step.state) == approved for step in parts.records.steps(row.run)):
            continued.append(row)
    return continued


def _resumes(parts: Parts, row: RunRow) -> bool:
    """Whether the run continues. If not, it is ended here."""
    course = Course(parts, row)
    step = next((one for one in parts.records.steps(row.run) if one.state == StepState.RUNNING), None)
    if step and step.name == StepName.DEPLOY and live_number(course) == row.release is not None:
        detail = StepDetail(note="went live as the engine stopped")
        parts.records.set_step(row.run, StepName.DEPLOY, StepState.SUCCEEDED, detail=detail)
    if course.ended_well(StepName.DEPLOY):
        return True
    where = f"the engine stopped during {step.name}" if step else "the engine stopped between two steps"
    touched = step is not None and step.name == StepName.DEPLOY
    with suppress(StepFailed):  # the candidate is gone
        touched = touched and not home_of(course).continues
    after = [one.run for one in parts.records.runs(limit=RUNS_KEPT) if lane_of(one) == lane_of(row)]
    newest = max(after, default=row.run)
    if newest > row.run and not touched:
        course.end(RunState.SUPERSEDED, f"{where}, and run {newest} came after it")
        return False
    if row.restarts < MAX_RESTARTS and not touched:
        parts.records.count_restart(row.run)
        course.say(f"{where}: the run continues")
        parts.engine.say(f"{row.title} continues: {where}", row.stage)
        return True
    if step:
        parts.records.set_step(row.run, step.name, StepState.INTERRUPTED, detail=StepDetail(reason=where))
    again = " again" if row.restarts and not touched else ""
    course.end(RunState.INTERRUPTED, f"{where}{again}: `hitless pipeline retry {row.run}`")
    return False
