"""The engine's verbs: deploy, rollback, abort, status, stop; one rollout a stage at a time, the newest wins.

The engine's daemon may die at any instant: nothing that serves depends on it. What it must know again stands in the
state file and in the parts themselves (`hitless.engine.recovery`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import structlog

from hitless.clock import Clock, timestamp
from hitless.documents import to_plain
from hitless.engine.guard import Guard
from hitless.engine.retention import Retention
from hitless.engine.turn import EngineParts, Turn
from hitless.errors import ConflictError, UsageError
from hitless.release.document import ReleaseDocument
from hitless.release.result import Outcome, Result
from hitless.release.who import NOBODY, Who
from hitless.rollout.hooks import Hooks
from hitless.rollout.pools import ReleasePools
from hitless.rollout.release import Release, release_of
from hitless.rollout.rollout import Rollout
from hitless.rollout.states import Verb
from hitless.service.strategy import AllAtOnce, Strategy
from hitless.service.value import did_you_mean
from hitless.store.store import Store

log = structlog.get_logger()


class Engine:
    """The verbs over the store, the pools and the gateway. Built by `hitless.cli.wire`."""

    def __init__(
        self,
        *,
        service: str,
        stages: tuple[str, ...],
        store: Store,
        pools: ReleasePools,
        retention: Retention,
        hooks: Hooks,
        clock: Clock,
    ) -> None:
        self.service, self.stages = service, stages
        self.store, self.pools, self.clock = store, pools, clock
        self.parts = EngineParts(store, pools, retention, hooks, clock, self.say)
        self._turns = {stage: Turn(stage, self.parts) for stage in stages}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self.event_happened = asyncio.Condition()

    # -- verbs --------------------------------------------------------------------------------------------------------

    async def deploy(
        self,
        stage: str,
        document: ReleaseDocument,
        *,
        strategy: Strategy | None,
        force: bool,
        verb: str = "deploy",
        who: Who = NOBODY,
    ) -> Rollout | Result:
        """Register a release and start its rollout; the document of an `unchanged` deploy where it would serve the
        same.
        """
        turn = self._open_turn(stage)
        if document.service != self.service:
            raise ConflictError(
                f"this engine runs the service {self.service}, not {document.service}",
                hint="name another folder by --data-dir, or start another engine",
            )
        live = self.store.live(stage)
        fingerprint = document.fingerprint()
        if not force and turn.current is None and live:
            row = self.store.release(stage, live[0])
            if row and row.fingerprint == fingerprint and self.pools.runs(Release(stage, live[0], document)):
                return _unchanged(stage, live[0], strategy or document.settings.strategy)
        number = self.store.add_release(
            stage,
            document.to_json(),
            fingerprint=fingerprint,
            commit=document.commit,
            message=document.message,
            at=timestamp(self.clock.now()),
        )
        release = Release(stage, number, document)
        return self._start_rollout(release, verb, strategy or document.settings.strategy, who=who, why=document.message)

    async def rollback(
        self, stage: str, number: int | None, *, who: Who = NOBODY, why: str | None = None
    ) -> Rollout | Result:
        """Ship an earlier release again, all at once: the one named, else the one live before this one."""
        turn = self._open_turn(stage)
        live = self.store.live(stage)
        target = number if number is not None else self._previous_live(stage)
        if live and live[0] == target and turn.current is None:
            return _unchanged(stage, target, AllAtOnce())
        return self._start_rollout(self.release(stage, target), "rollback", AllAtOnce(), who=who, why=why)

    def abort(self, stage: str) -> Rollout:
        """Stop the rollout under way: weight back to 0 at once. Where all traffic has moved and the release is only
        guarded, the guard ends and the release stays.
        """
        turn = self.turn_of(stage)
        if turn.current is not None:
            turn.current.stop(Outcome.ABORTED, "aborted by hand")
            return turn.current
        if turn.guard is not None:
            turn.guard.end()
            self.say(f"the guard of release {turn.guard.rollout.candidate.number} was ended by hand", stage)
            return turn.guard.rollout
        raise ConflictError(f"no rollout is under way in {stage}", hint="`hitless status` shows what runs")

    def rollout_of(self, stage: str) -> Rollout | None:
        """The stage's rollout under way."""
        return self.turn_of(stage).current

    def guard_of(self, stage: str) -> Guard | None:
        """Who watches the stage's live release, with the one before it still warm."""
        return self.turn_of(stage).guard

    def resume_guard(self, rollout: Rollout, left_s: float) -> None:
        """Watch on after a daemon's death what the last one guarded."""
        turn = self.turn_of(rollout.candidate.stage)
        self._run_in_background(turn.resume_guard(rollout, left_s, lambda: self._stopping))

    @property
    def all_stages(self) -> tuple[str, ...]:
        """`stages`, and those that come and go."""
        return tuple(self._turns)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Of all stages."""
        return tuple(self._turns.values())

    def add_stage(self, stage: str) -> None:
        """One more stage, if it is not there: the gateway's side of it is the caller's business."""
        self._turns.setdefault(stage, Turn(stage, self.parts))

    def remove_stage(self, stage: str) -> None:
        """A stage that came goes: nothing of it stands any more."""
        del self._turns[stage]

    async def follow(self, rollout: Rollout | Result) -> AsyncIterator[dict[str, Any]]:
        """The rollout's steps as they are taken, then `{"result": …}`; only that if nothing was begun."""
        if isinstance(rollout, Result):
            yield {"result": to_plain(rollout)}
            return
        seen = 0
        while True:
            async with rollout.progress:
                while len(rollout.steps) == seen and rollout.result is None:
                    await rollout.progress.wait()
                steps, result = rollout.steps[seen:], rollout.result
                seen += len(steps)
            for step in steps:
                yield {"step": to_plain(step), "release": rollout.candidate.number}
            if result is not None:
                yield {"result": to_plain(result)}
                return

    async def end_rollouts(self, *, force: bool = False) -> None:
        """Stop the rollouts that can still be stopped and wait until all have ended; none begins from here on.

        With `force` they are left where they stand, without waiting for requests in hand: the next start ends them.
        """
        self._stopping = True
        if force:
            for task in self._tasks:
                task.cancel()
        for stage, turn in self._turns.items():
            if turn.guard is not None:
                turn.guard.end()
            if turn.current is not None:
                try:
                    self.abort(stage)
                except ConflictError:
                    continue
        await self.wait_until_idle()
        await self.pools.lingering.cut()

    async def wait_until_idle(self) -> None:
        """Wait until every rollout has ended, its cleaning up included."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- what is known ------------------------------------------------------------------------------------------------

    def release(self, stage: str, number: int) -> Release:
        """A kept release. Raises UsageError where there is none of that number."""
        row = self.store.release(stage, number)
        if row is None:
            kept = ", ".join(str(r.release) for r in self.store.releases(stage)) or "none"
            raise UsageError(f"{stage} has no release {number}", hint=f"kept releases: {kept}")
        return release_of(row)

    def live_release(self, stage: str) -> Release | None:
        """The release that should serve the stage."""
        return self.parts.live_release(stage)

    def say(self, sentence: str, stage: str | None = None) -> None:
        """Record one sentence of what the engine did and why; followers of the events see it at once.

        Where the state file takes nothing (a full disk) it goes to the daemon's log, and the work goes on.
        """
        try:
            self.store.add_event(sentence, stage, timestamp(self.clock.now()))
        except sqlite3.Error as error:
            log.error("an event could not be recorded", event_sentence=sentence, stage=stage, error=str(error))
            return
        self._run_in_background(self._notify_followers())

    async def _notify_followers(self) -> None:
        async with self.event_happened:
            self.event_happened.notify_all()

    # -- its parts ----------------------------------------------------------------------------------------------------

    def require_stage(self, stage: str) -> None:
        """UsageError where the engine has no such stage."""
        if stage not in self._turns:
            raise UsageError(
                f"this engine has no stage {stage} (it has {', '.join(self.stages)})",
                hint=did_you_mean(stage, self.stages)
                or "name it in serverless.yml, then `hitless down` and `hitless up`: listeners are made at start",
            )

    def turn_of(self, stage: str) -> Turn:
        """The stage's turn. UsageError if the engine has no such stage."""
        self.require_stage(stage)
        return self._turns[stage]

    def _open_turn(self, stage: str) -> Turn:
        if self._stopping:
            raise ConflictError("the engine is being stopped", hint="`hitless up` once it has ended")
        if self.turn_of(stage).closed:
            raise ConflictError(f"the stage {stage} is going", hint="push to its branch again once it has gone")
        return self.turn_of(stage)

    def _previous_live(self, stage: str) -> int:
        live = self.store.live(stage)
        for rollout in self.store.rollouts(stage):
            if (
                live
                and rollout.outcome == Outcome.LIVE
                and rollout.release == live[0]
                and rollout.verb != Verb.GUARD  # nobody goes back to what an alarm took back
                and rollout.previous_release is not None
            ):
                return rollout.previous_release
        raise ConflictError(
            f"{stage} has no release that was live before this one", hint="`hitless releases` lists what can be shipped"
        )

    def _start_rollout(self, release: Release, verb: str, strategy: Strategy, *, who: Who, why: str | None) -> Rollout:
        """Make the rollout known and let it run when the stage's present one has ended or given way."""
        turn = self.turn_of(release.stage)
        rollout = self.parts.begin(release, verb, strategy, who=who, why=why)
        ticket = turn.request(release)
        self._run_in_background(turn.run_turn(ticket, rollout, lambda: self._stopping))
        return rollout

    def _run_in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _unchanged(stage: str, release: int, strategy: Strategy) -> Result:
    return Result(stage, release, Outcome.UNCHANGED, str(strategy), duration_s=0.0)
