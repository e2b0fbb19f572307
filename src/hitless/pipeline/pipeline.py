"""One service's pipeline: each push becomes a run, each stage has one run at a time, newer runs replace queued ones.

Runs are recorded in the state file. Which run is active and which are queued is only in memory; it is rebuilt when the
engine starts. The gateway and the workers do not depend on the pipeline.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from hitless.clock import timestamp
from hitless.documents import to_plain
from hitless.errors import ConflictError, HitlessError, UsageError
from hitless.forge.forge import ForkPullRequest
from hitless.pipeline.approvals import MAX_WHY, check_open
from hitless.pipeline.course import APPROVED, REJECTED, Course
from hitless.pipeline.definition import Definition
from hitless.pipeline.orders import Promotion, RefUpdate
from hitless.pipeline.parts import Parts
from hitless.pipeline.promotion import begin_promotion
from hitless.pipeline.pushes import Lineage, plan_runs, refusals_of
from hitless.pipeline.repository import hook_command
from hitless.pipeline.runs import (
    RETRIABLE,
    RunDocument,
    RunOptions,
    RunState,
    StepDetail,
    StepName,
    StepState,
    exit_code,
    options_of,
)
from hitless.pipeline.turns import Turns, recover
from hitless.store.runs import NewRun, PushRow, RunRow

FOLLOW_S = 0.05
CHECK_INTERVAL_S, LATE_PUSH_S = 30.0, 60.0

log = logging.getLogger(__name__)


class Pipeline:
    """The verbs: push, fork, promote, approve, reject, stop, retry, follow."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._turns = Turns(parts)
        self._watch: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Resume or end each run that was in progress when the last daemon ended, and queue the queued ones again.

        The caller has removed the working folders of that daemon's runs.
        """
        try:
            command = hook_command(self.parts.workshop.data.parent, self.parts.workshop.service)
            await asyncio.to_thread(self.parts.repository.renew_hooks, command)
        except OSError as error:
            log.error("the repository's hooks could not be renewed", {"error": str(error)})
        continued = recover(self.parts)
        for row in continued:
            self._turns.resume(row)
        resumed = {row.run for row in continued}
        for row in self.parts.records.in_state(RunState.QUEUED):
            if row.run not in resumed:
                self._turns.enqueue(row)
        self._watch = asyncio.create_task(self._check_periodically())

    async def stop(self) -> None:
        """Stop the runs in progress; the next start resumes them or marks them as interrupted."""
        tasks = [*self._turns.tasks(), *filter(None, (self._watch, self._tidying))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def remove(self) -> None:
        """End the pipeline for good with its open runs; remove the repository and the runs. Events stay."""
        await self.stop()
        records = self.parts.records
        for row in records.in_state(RunState.QUEUED, RunState.RUNNING, RunState.WAITING):
            Course(self.parts, row).end(RunState.INTERRUPTED, "the service was removed")
        await self.parts.clock.sleep(2 * FOLLOW_S)  # followers see the end of their runs
        for push in self.parts.pushes.all():
            self.parts.pushes.forget(push.ref, push.new)
        if self.parts.previews is not None:
            await self.parts.previews.end_all("the service was removed")
        await asyncio.to_thread(self.parts.workshop.remove, records.forget_old(kept=0))

    async def check(
        self, updates: list[RefUpdate], options: dict[str, str], actor: str, lineage: Lineage | None = None
    ) -> list[str]:
        """Return the reasons to refuse a push, before git stores it. A push without any is recorded."""
        if lineage is None:  # fetched, so the repository has the commits and their parents
            new = [update.new for update in updates if not update.deletes]
            lineage = {one: await self.parts.repository.parents(one) for one in new}
        refusals = refusals_of(self.parts, self._definition(), updates, options, lineage)
        at = timestamp(self.parts.clock.now())
        for update in updates if not refusals else ():
            if update.branch and not update.deletes:
                self.parts.pushes.add(PushRow(update.ref, update.old, update.new, options, actor, at))
        return refusals

    async def push(self, updates: list[RefUpdate], options: dict[str, str], actor: str) -> list[int | str]:
        """Start the runs of an accepted push. For a branch or tag that starts none, a sentence says why."""
        started: list[int | str] = []
        for planned in await plan_runs(self.parts, self._definition(), updates, options, actor):
            if isinstance(planned, str):
                started.append(planned)
                continue
            row = self.parts.record(planned)
            self._turns.enqueue(row)
            started.append(row.run)
        for update in updates:
            self.parts.pushes.forget(update.ref, update.new)
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.create_task(self._tidy())
        return started

    async def _tidy(self) -> None:
        """Pack the repository. A failure is only logged."""
        try:
            await self.parts.repository.tidy()
        except (OSError, HitlessError) as error:
            log.error("the repository could not be packed", {"error": str(error)})

    async def start_missed_pushes(self, *, older_than_s: float) -> None:
        """Start the runs of pushes whose post-receive hook never ran: the branch has moved, but no run was recorded."""
        now = self.parts.clock.now()
        young, wrong = timestamp(now - timedelta(seconds=older_than_s)), timestamp(now + timedelta(hours=1))
        for push in self.parts.pushes.all():
            update = RefUpdate(push.old, push.new, push.ref)
            if young < push.at < wrong or update.branch is None:  # even later: before the clock was set back
                continue
            has_moved = await self.parts.repository.head_of(update.branch) == push.new
            if has_moved and not self.parts.records.started(update.branch, push.new, since=push.at):
                self.parts.engine.say(f"a push of {update.branch} by {push.actor} had started no run; it does now")
                await self.push([update], dict(push.options), push.actor)
            self.parts.pushes.forget(push.ref, push.new)

    async def fork(self, fork: ForkPullRequest, commit: str, actor: str) -> RunRow:
        """A run that tests a fork's commit, once it is approved. UsageError if the repository does not have it."""
        if not await self.parts.holds(commit):
            raise UsageError(f"the repository does not contain the commit {commit[:12]}", hint="fetch it first")
        options = to_plain(RunOptions(fork=fork))
        row = self.parts.record(
            NewRun(
                branch=fork.branch, commit=commit, message=fork.description, options=options, verb="fork", actor=actor
            )
        )
        self._turns.enqueue(row)
        return row

    def close_fork(self, number: int) -> None:
        """End the runs of a closed pull request that wait for approval or their turn."""
        for row in self.parts.records.in_state(RunState.WAITING, RunState.QUEUED):
            if (fork := options_of(row).fork) and fork.number == number:
                self._turns.drop(row)
                Course(self.parts, row).end(RunState.SUPERSEDED, "the pull request was closed")

    async def promote(self, order: Promotion, *, actor: str) -> RunRow:
        """A run that ships the live release of one stage to another, byte for byte. Raises HitlessError."""
        row = await begin_promotion(self.parts, self._definition(), order, actor)
        self._turns.enqueue(row)
        return row

    def approve(self, run: int, *, by: str, why: str | None) -> RunRow:
        """Resume a run that waits for approval. Raises UsageError, or ConflictError if it does not wait."""
        row = self._decide(run, APPROVED, by, why)
        self._turns.resume(row)
        return row

    def reject(self, run: int, *, by: str, why: str | None) -> RunRow:
        """End a run that waits for approval. Raises UsageError, or ConflictError if it does not wait."""
        return self._decide(run, REJECTED, by, why)

    async def stop_run(self, run: int, *, by: str, why: str | None) -> RunRow:
        """Stop a run that is queued, or in progress before its deploy step. Raises UsageError, ConflictError."""
        row, reason = self.row(run), f"stopped by {by}" + (f": {why}" if why else "")
        step = next((one for one in self.parts.records.steps(run) if one.state == StepState.RUNNING), None)
        match RunState(row.state):
            case RunState.WAITING:
                raise ConflictError(f"run {run} waits for approval", hint=f"`hitless reject {run}`")
            case RunState.QUEUED:
                if not await self._turns.stop(row):  # if it has just begun, its turn stops it
                    self._turns.drop(row)
            case RunState.RUNNING if step and step.name in (StepName.DEPLOY, StepName.VERIFY):
                raise ConflictError(
                    f"run {run} is already deploying, so it cannot be stopped",
                    hint=f"abort its rollout: `hitless abort --stage {row.stage}`",
                )
            case RunState.RUNNING if not await self._turns.stop(row):
                raise ConflictError(f"run {run} is changing state", hint="repeat the command")
            case RunState.RUNNING:
                if step and RunState(self.row(run).state) is RunState.RUNNING:
                    detail = StepDetail(reason=reason)
                    self.parts.records.set_step(run, step.name, StepState.INTERRUPTED, detail=detail)
            case _:
                raise ConflictError(
                    f"run {run} is {row.state}, so it cannot be stopped", hint=f"see `hitless pipeline show {run}`"
                )
        if not RunState(self.row(run).state).has_ended:
            Course(self.parts, row).end(RunState.INTERRUPTED, reason)
        return row

    def retry(self, run: int) -> RunRow:
        """Queue an ended run again; it continues at the step that failed. Raises UsageError, ConflictError."""
        row = self.row(run)
        if RunState(row.state) not in RETRIABLE:
            raise ConflictError(
                f"run {run} is {row.state}, so it cannot be retried", hint=f"see `hitless pipeline show {run}`"
            )
        newest = next(iter(self.parts.records.runs(row.stage, limit=1)), None) if row.stage else None
        if newest and newest.run > run:
            raise ConflictError(f"run {newest.run} of {row.stage} came after run {run}", hint="retry that one, or push")
        self.parts.records.set_state(run, RunState.QUEUED, None, None)
        Course(self.parts, row).say("== retried")
        self._turns.enqueue(row)
        return row

    def expire(self) -> None:
        """End the runs that were not approved in time."""
        now = timestamp(self.parts.clock.now())
        for row in self.parts.records.in_state(RunState.WAITING):
            asked = self.parts.records.approval(row.run)
            if asked and asked.expires_at <= now:
                reason = f"no answer until {asked.expires_at}"
                detail = StepDetail(reason=reason, exit_code=1)
                self.parts.records.set_step(row.run, StepName.APPROVE, StepState.FAILED, detail=detail)
                Course(self.parts, row).end(RunState.FAILED, reason)

    def row(self, run: int) -> RunRow:
        """The run's row. Raises UsageError if there is no such run."""
        found = self.parts.records.run(run)
        if found is None:
            raise UsageError(f"there is no run {run}", hint="`hitless pipeline runs` lists them")
        return found

    def document(self, run: int, *, full: bool = False) -> RunDocument:
        """A run, with the exit code of a command that waited for it; `full` adds what its approver is asked."""
        row, asked = self.row(run), self.parts.workshop.of_run(run) / "question.json"
        return replace(
            RunDocument.of(self.parts.records, row, full=full),
            exit_code=exit_code(self.parts.records, row),
            question=json.loads(asked.read_text()) if full and asked.exists() else UNSET,
        )

    async def follow(self, run: int, *, offset: int = 0) -> AsyncIterator[dict[str, Any]]:
        """`{"text": …}` of the run's log as it is written, then `{"run": …}` when it has ended or waits for a person.

        Skips the first `offset` bytes of the log.
        """
        log = self.parts.workshop.log(run)
        while True:
            state = RunState(self.row(run).state)  # first, so that the log is read to its end
            with suppress(FileNotFoundError), log.open("rb") as file:
                file.seek(offset)
                while data := file.read(65536):
                    offset += len(data)
                    yield {"text": data.decode(errors="replace"), "of": run}
            if state.has_ended or state is RunState.WAITING:
                yield {"run": to_plain(self.document(run))}
                return
            await self.parts.clock.sleep(FOLLOW_S)

    def _definition(self) -> Definition | None:
        return Definition.read(self.parts.workshop.definition)

    def _decide(self, run: int, decision: str, by: str, why: str | None) -> RunRow:
        if why and len(why) > MAX_WHY:
            raise UsageError(f"the reason is longer than {MAX_WHY} characters", hint="shorten it")
        row, asked, now = self.row(run), self.parts.records.approval(run), self.parts.clock.now()
        check_open(row, asked.expires_at if asked else None, now)
        if not self.parts.records.decide(run, decision=decision, by=by, at=timestamp(now), why=why):
            raise ConflictError(f"run {run} was already approved or rejected", hint=f"`hitless pipeline show {run}`")
        answer = self.parts.records.approval(run)
        assert answer is not None
        Course(self.parts, row).apply_answer(answer)
        return row

    async def _check_periodically(self) -> None:
        """Expire approvals and start missed pushes, at the start and every `CHECK_INTERVAL_S`."""
        late_s = 0.0
        while True:
            try:
                self.expire()
                await self.start_missed_pushes(older_than_s=late_s)
                late_s = LATE_PUSH_S
            except (OSError, HitlessError) as error:
                log.error("the pipeline's periodic checks failed; they will be repeated", {"error": str(error)})
            await self.parts.clock.sleep(CHECK_INTERVAL_S)
