"""The engine's verbs: deploy, rollback, abort, status, stop; one rollout a stage at a time, the newest wins.

The engine's daemon may die at any instant: nothing that serves depends on it. What it must know again stands in the
state file and in the parts themselves (`hitless.engine.recovery`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from hitless.clock import Clock, timestamp
from hitless.engine.retention import Retention
from hitless.errors import ConflictError, UsageError
from hitless.rollout.pools import ReleasePools
from hitless.rollout.receipt import Receipt
from hitless.rollout.release import Release, ReleaseDocument
from hitless.rollout.rollout import Rollout
from hitless.rollout.states import Outcome, State
from hitless.rollout.who import NOBODY, Who
from hitless.service.strategy import AllAtOnce, Strategy
from hitless.store.store import ReleaseRow, Store

log = structlog.get_logger()


@dataclass(slots=True)
class Turn:
    """A stage's right to roll out: who rolls out now, and how many asked so far."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: int = 0
    current: Rollout | None = None


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
        clock: Clock,
    ) -> None:
        self.service, self.stages = service, stages
        self.store, self.pools, self.clock = store, pools, clock
        self._retention = retention
        self._turns = {stage: Turn() for stage in stages}
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
    ) -> Rollout | dict[str, Any]:
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
            if row and row.fingerprint == fingerprint and self._runs(stage, live[0], document):
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
        return self._ship(release, verb, strategy or document.settings.strategy, who=who, why=document.message)

    async def rollback(
        self, stage: str, number: int | None, *, who: Who = NOBODY, why: str | None = None
    ) -> Rollout | dict[str, Any]:
        """Ship an earlier release again, all at once: the one named, else the one live before this one."""
        turn = self._open_turn(stage)
        live = self.store.live(stage)
        target = number if number is not None else self._live_before(stage)
        if live and live[0] == target and turn.current is None:
            return _unchanged(stage, target, AllAtOnce())
        return self._ship(self.release(stage, target), "rollback", AllAtOnce(), who=who, why=why)

    def abort(self, stage: str) -> Rollout:
        """Stop the rollout under way: weight back to 0 at once."""
        current = self._turn(stage).current
        if current is None:
            raise ConflictError(f"no rollout is under way in {stage}", hint="`hitless status` shows what runs")
        current.stop(Outcome.ABORTED, "aborted by hand")
        return current

    def rollout_of(self, stage: str) -> Rollout | None:
        """The stage's rollout under way."""
        return self._turn(stage).current

    async def follow(self, rollout: Rollout) -> AsyncIterator[dict[str, Any]]:
        """The rollout's steps as they are taken, then `{"result": …}`."""
        seen = 0
        while True:
            async with rollout.progress:
                while len(rollout.steps) == seen and rollout.result is None:
                    await rollout.progress.wait()
                steps, result = rollout.steps[seen:], rollout.result
                seen += len(steps)
            for step in steps:
                yield {"step": step.to_json()}
            if result is not None:
                yield {"result": result}
                return

    async def settle(self, *, force: bool = False) -> None:
        """Stop the rollouts that can still be stopped and wait until all have ended; none begins from here on.

        With `force` they are left where they stand, without waiting for requests in hand: the next start ends them.
        """
        self._stopping = True
        if force:
            for task in self._tasks:
                task.cancel()
        for stage, turn in self._turns.items():
            if turn.current is not None:
                try:
                    self.abort(stage)
                except ConflictError:
                    continue
        await self.idle()

    async def idle(self) -> None:
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
        live = self.store.live(stage)
        return self.release(stage, live[0]) if live else None

    def say(self, sentence: str, stage: str | None = None) -> None:
        """Record one sentence of what the engine did and why; followers of the events see it at once.

        Where the state file takes nothing (a full disk) it goes to the daemon's log, and the work goes on.
        """
        try:
            self.store.add_event(sentence, stage, timestamp(self.clock.now()))
        except sqlite3.Error as error:
            log.error("an event could not be recorded", event_sentence=sentence, stage=stage, error=str(error))
            return
        self._background(self._tell())

    async def _tell(self) -> None:
        async with self.event_happened:
            self.event_happened.notify_all()

    # -- its parts ----------------------------------------------------------------------------------------------------

    def _turn(self, stage: str) -> Turn:
        if stage not in self._turns:
            raise UsageError(
                f"this engine has no stage {stage} (it has {', '.join(self.stages)})",
                hint="name it in serverless.yml, then `hitless down` and `hitless up`: listeners are made at start",
            )
        return self._turns[stage]

    def _open_turn(self, stage: str) -> Turn:
        if self._stopping:
            raise ConflictError("the engine is being stopped", hint="`hitless up` once it has ended")
        return self._turn(stage)

    def _runs(self, stage: str, number: int, document: ReleaseDocument) -> bool:
        """False for a live release that could not be brought back when the engine started."""
        running = {row.function for row in self.store.pools(stage, number) if row.key in self.pools.living}
        return running == {function.name for function in document.functions}

    def _live_before(self, stage: str) -> int:
        live = self.store.live(stage)
        for rollout in self.store.rollouts(stage):
            if (
                live
                and rollout.outcome == Outcome.LIVE
                and rollout.release == live[0]
                and rollout.previous_release is not None
            ):
                return rollout.previous_release
        raise ConflictError(
            f"{stage} has no release that was live before this one", hint="`hitless releases` lists what can be shipped"
        )

    def _ship(self, release: Release, verb: str, strategy: Strategy, *, who: Who, why: str | None) -> Rollout:
        """Make the rollout known and let it run when the stage's present one has ended or given way."""
        turn = self._turn(release.stage)
        turn.asked += 1
        live = self.store.live(release.stage)
        rollout = Rollout(
            number=self.store.begin_rollout(
                release.stage,
                release.number,
                verb=verb,
                strategy=str(strategy),
                state=State.PREPARING,
                previous=live[0] if live else None,
                at=timestamp(self.clock.now()),
            ),
            verb=verb,
            candidate=release,
            previous=None,
            strategy=strategy,
            pools=self.pools,
            store=self.store,
            clock=self.clock,
            say=self.say,
            receipt=Receipt(facts_of(release, who, why)),
        )
        if turn.current is not None:
            try:
                turn.current.stop(Outcome.SUPERSEDED, f"release {release.number} came after it")
            except ConflictError:
                pass  # it is live already and only drains: wait for its end
        self._background(self._take_turn(turn, turn.asked, rollout))
        return rollout

    async def _take_turn(self, turn: Turn, ticket: int, rollout: Rollout) -> None:
        async with turn.lock:
            if ticket != turn.asked:
                await rollout.end_unstarted(Outcome.SUPERSEDED, "a newer release came before it could start")
                return
            if self._stopping:
                await rollout.end_unstarted(Outcome.ABORTED, "the engine was stopped before it could start")
                return
            rollout.previous = self.live_release(rollout.candidate.stage)
            self.store.set_previous(rollout.number, rollout.previous.number if rollout.previous else None)
            if rollout.previous and rollout.previous.number == rollout.candidate.number:
                await rollout.end_unstarted(Outcome.UNCHANGED, None)
                return
            turn.current = rollout
            try:
                await rollout.run()
            except Exception as error:  # noqa: BLE001 - whatever it was, the stage's next rollout must have its turn
                await rollout.break_off(error)
            finally:
                turn.current = None
            if gone := await self._retention.apply(rollout.candidate.stage):
                self.say(f"forgot old releases: {', '.join(map(str, sorted(gone)))}", rollout.candidate.stage)

    def _background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def release_of(row: ReleaseRow) -> Release:
    """The release that a row of the state file describes."""
    return Release(row.stage, row.release, ReleaseDocument.from_json(row.document))


def facts_of(release: Release, who: Who, why: str | None) -> dict[str, Any]:
    """What a receipt says of a rollout besides its figures, for as long as it is kept: a release may be forgotten
    before.
    """
    document = release.document
    return {
        "who": who.to_json(),
        "why": why,
        "commit": document.commit,
        "artifacts": {name: artifact.digest for name, artifact in document.artifacts.items()},
    }


def _unchanged(stage: str, release: int, strategy: Strategy) -> dict[str, Any]:
    nothing: Mapping[str, None] = {"reason": None, "candidate": None, "live": None}
    return {
        "stage": stage,
        "release": release,
        "outcome": str(Outcome.UNCHANGED),
        "strategy": str(strategy),
        "duration_s": 0.0,
        "steps": [],
        **nothing,
    }
