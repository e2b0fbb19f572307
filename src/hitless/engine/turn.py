"""A stage's turn: one rollout at a time, the newest wins; then the guard; at last nothing stands but what is live."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from hitless.clock import Clock, timestamp
from hitless.documents import to_plain
from hitless.engine.guard import Guard
from hitless.engine.retention import Retention
from hitless.errors import ConflictError, HitlessError
from hitless.release.result import Outcome
from hitless.release.who import NOBODY, Who
from hitless.rollout.alarms import Reading
from hitless.rollout.hooks import Hooks
from hitless.rollout.pools import ReleasePools
from hitless.rollout.receipt import Receipt
from hitless.rollout.record import Say
from hitless.rollout.release import Release, release_of
from hitless.rollout.rollout import Rollout
from hitless.rollout.states import State, Verb
from hitless.service.strategy import AllAtOnce, Strategy
from hitless.store.store import Store


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What every rollout of an engine works with."""

    store: Store
    pools: ReleasePools
    retention: Retention
    hooks: Hooks
    clock: Clock
    say: Say

    def begin(
        self, release: Release, verb: str, strategy: Strategy, *, who: Who = NOBODY, why: str | None = None
    ) -> Rollout:
        """A rollout that the state file knows and that has not taken its first step."""
        live = self.store.live(release.stage)
        number = self.store.begin_rollout(
            release.stage,
            release.number,
            verb=verb,
            strategy=str(strategy),
            state=State.PREPARING,
            previous=live[0] if live else None,
            at=timestamp(self.clock.now()),
        )
        return self.rollout(number, verb, release, None, strategy, Receipt(rollout_facts(release, who, why)))

    def rollout(
        self,
        number: int,
        verb: str,
        candidate: Release,
        previous: Release | None,
        strategy: Strategy,
        receipt: Receipt,
    ) -> Rollout:
        """The rollout of that number."""
        return Rollout(
            number=number,
            verb=verb,
            candidate=candidate,
            previous=previous,
            strategy=strategy,
            pools=self.pools,
            store=self.store,
            clock=self.clock,
            hooks=self.hooks,
            say=self.say,
            receipt=receipt,
        )

    def mark_rolled_back(self, back: Rollout, why: str) -> None:
        """Once the guard's rollout is live, the one that it took back counts as rolled back."""
        if back.previous is None or back.result is None or back.result.outcome != Outcome.LIVE:
            return
        for row in self.store.rollouts(back.previous.stage, release=back.previous.number, limit=1):
            self.store.revise_outcome(row.rollout, Outcome.ROLLED_BACK, why)

    async def back_up(self) -> None:
        """Keep a copy of the state file as it is now; the work goes on where that cannot be."""
        try:
            await asyncio.to_thread(self.store.back_up)
        except (OSError, sqlite3.Error) as error:
            self.say(f"the state file could not be backed up: {error}", None)

    def live_release(self, stage: str) -> Release | None:
        """The release that should serve the stage."""
        live = self.store.live(stage)
        row = self.store.release(stage, live[0]) if live else None
        return release_of(row) if row else None


@dataclass(slots=True)
class Turn:
    """A stage's right to roll out: who rolls out now, who is guarded, and how many asked so far."""

    stage: str
    parts: EngineParts
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: int = 0
    wanted: int | None = None
    """The release that was asked for last."""
    current: Rollout | None = None
    guard: Guard | None = None
    closed: bool = False
    """Nothing ships here any more: the stage goes."""
    unfinished: set[int] = field(default_factory=set)
    """Rollouts that could not be brought to their end: the gateway was away, or the disk full."""

    def request(self, release: Release) -> int:
        """Somebody wants to ship that release: the present rollout gives way where it can, the guard ends. Returns the
        ticket for `take`.
        """
        self.asked += 1
        self.wanted = release.number
        if self.current is not None:
            try:
                self.current.stop(Outcome.SUPERSEDED, f"release {release.number} came after it")
            except ConflictError:
                pass  # it is live already and only drains: wait for its end
        if self.guard is not None:
            self.guard.end()
        return self.asked

    def close(self) -> None:
        """Whatever waits here gives way, what can still be stopped is: the stage goes when its lock is free."""
        self.closed = True
        self.asked += 1
        self.wanted = None
        if self.current is not None:
            with contextlib.suppress(ConflictError):
                self.current.stop(Outcome.ABORTED, "the stage goes")
        if self.guard is not None:
            self.guard.end()

    async def run_turn(self, ticket: int, rollout: Rollout, stopping: Callable[[], bool]) -> None:
        """Run the rollout when its turn has come, unless a newer one asked meanwhile; then guard what it shipped."""
        async with self.lock:
            if not await self._ended_unstarted(ticket, rollout, stopping):
                await self._run(rollout)
                if rollout.result is not None and rollout.result.outcome == Outcome.LIVE:
                    await self._guard(rollout, rollout.guard_s, lambda: ticket != self.asked or stopping())
            if ticket == self.asked:
                await self.retire_unused()
            if gone := await self.parts.retention.apply(self.stage):
                self.parts.say(f"forgot old releases: {', '.join(map(str, sorted(gone)))}", self.stage)
            await self.parts.back_up()

    async def resume_guard(self, rollout: Rollout, left_s: float, stopping: Callable[[], bool]) -> None:
        """Watch on after a daemon's death what the last one guarded."""
        asked = self.asked
        async with self.lock:
            await rollout.begin_to_watch()
            await self._guard(rollout, left_s, lambda: asked != self.asked or stopping())
            if asked == self.asked:
                await self.retire_unused()

    async def retire_unused(self) -> None:
        """Retire, properly drained, what stands in the stage, is not live and gets no requests."""
        live, entry = self.parts.store.live(self.stage), self.parts.pools.gateway_stage(self.stage)
        wanted = {live[0] if live else None, entry.live, entry.candidate}
        for number in sorted({row.release for row in self.parts.store.pools(self.stage)} - wanted):
            row = self.parts.store.release(self.stage, number)
            if row is not None:
                await self._retire(number, self.parts.pools.retire(release_of(row), drain=True))

    async def _retire(self, number: int, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except HitlessError as error:  # the gateway is away: the next turn, or the next start, does it
            self.parts.say(f"release {number} could not be retired yet: {error.message}", self.stage)

    async def _ended_unstarted(self, ticket: int, rollout: Rollout, stopping: Callable[[], bool]) -> bool:
        if ticket != self.asked:
            await rollout.end_unstarted(Outcome.SUPERSEDED, "a newer release came before it could start")
        elif stopping():
            await rollout.end_unstarted(Outcome.ABORTED, "the engine was stopped before it could start")
        else:
            rollout.previous = self.parts.live_release(self.stage)
            self.parts.store.set_previous(rollout.number, rollout.previous.number if rollout.previous else None)
            if rollout.previous is None or rollout.previous.number != rollout.candidate.number:
                return False
            await rollout.end_unstarted(Outcome.UNCHANGED, None)
        return True

    async def _run(self, rollout: Rollout) -> None:
        self.current = rollout
        try:
            await rollout.run()
        except Exception as error:  # noqa: BLE001 - whatever it was, the stage's next rollout must have its turn
            await rollout.break_off(error)
            self.unfinished.add(rollout.number)
        finally:
            self.current = None

    async def _guard(self, rollout: Rollout, left_s: float, wanted_elsewhere: Callable[[], bool]) -> None:
        if not left_s or rollout.previous is None:
            return
        self.guard = Guard(rollout, rollout.previous, self.parts.clock, left_s=left_s)
        if wanted_elsewhere():
            self.guard.end()
        try:
            reading = await self.guard.wait_for_alarm()
        finally:
            self.guard = None
        if reading is not None:
            await self._return_to_previous(rollout, rollout.previous, reading)
        elif self.wanted != rollout.previous.number:  # else it is to be live again, and serves as it stands
            await self._retire(rollout.previous.number, rollout.retire_previous())
        else:
            await rollout.count()
            rollout.save()

    async def _return_to_previous(self, rollout: Rollout, previous: Release, reading: Reading) -> None:
        """The release before takes over again; the one that was guarded counts as rolled back."""
        number, why = rollout.candidate.number, f"alarm after all traffic had moved: {reading.sentence}"
        self.parts.say(f"release {number} is taken back: {why}", self.stage)
        back = self.parts.begin(previous, Verb.GUARD, AllAtOnce(), why=why)
        back.cause, back.previous, back.committed = f"release {number}: {why}", rollout.candidate, True
        await rollout.count()
        rollout.save()
        back.receipt.begin_where_ended(rollout.receipt)
        await self._run(back)
        self.parts.mark_rolled_back(back, why)


LONGEST_WHY = 2000
"""Characters of a message that a receipt keeps."""


def rollout_facts(release: Release, who: Who, why: str | None) -> dict[str, Any]:
    """What a receipt says of a rollout besides its figures, for as long as it is kept: a release may be forgotten
    before.
    """
    document = release.document
    return {
        "who": who.to_json(),
        "why": None if why is None else str(why)[:LONGEST_WHY],
        "commit": document.commit,
        "artifacts": document.digests,
        "promoted_from": to_plain(document.promoted_from),
    }
