"""Runs a stage's rollouts one at a time; a newer one supersedes those before it.

AllAtOnce has no bake, so its alarms can act only afterwards: after such a rollout, a guard watches them for some time
while the previous release keeps running. If one fires, one changed map entry makes the previous release live again. The
guard ends early when the stage ships again. At the end of a turn all releases but the live one are retired.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from hitless.clock import Clock, timestamp
from hitless.engine.retention import Retention
from hitless.errors import ConflictError, HitlessError
from hitless.release.receipt import ReceiptFacts
from hitless.release.result import Outcome, RolloutVerb
from hitless.release.who import NOBODY, Who
from hitless.rollout.alarms import ALARM_PERIOD_S, Reading, Verdict
from hitless.rollout.hooks import LifecycleHooks
from hitless.rollout.pools import ReleasePools
from hitless.rollout.receipt import Receipt
from hitless.rollout.record import RolloutState, Say
from hitless.rollout.release import Release, release_of
from hitless.rollout.rollout import Rollout
from hitless.rollout.servers import ends_before
from hitless.service.strategy import AllAtOnce, Strategy
from hitless.store.store import Store, StoreError

LONGEST_REASON = 2000
"""Characters of a message that a receipt keeps."""


@dataclass(frozen=True, slots=True)
class EngineParts:
    """The parts that every rollout of an engine uses."""

    store: Store
    pools: ReleasePools
    retention: Retention
    hooks: LifecycleHooks
    clock: Clock
    say: Say
    warn: Say
    """As `say`, and also tells the stage's `notify`."""

    def begin(
        self, release: Release, verb: str, strategy: Strategy, *, who: Who = NOBODY, why: str | None = None
    ) -> Rollout:
        """Record a rollout in the state file and return it before its first step."""
        live = self.store.live(release.stage)
        number = self.store.begin_rollout(
            release.stage,
            release.number,
            verb=verb,
            strategy=str(strategy),
            state=RolloutState.PREPARING,
            previous=live[0] if live else None,
            at=timestamp(self.clock.now()),
        )
        document = release.document
        facts = ReceiptFacts(  # copies, because the receipt may outlive the release
            who=who,
            why=why and why[:LONGEST_REASON],
            commit=document.commit,
            artifacts=document.digests,
            promoted_from=document.promoted_from,
        )
        return self.rollout(number, verb, release, None, strategy, Receipt(facts))

    def rollout(
        self, number: int, verb: str, candidate: Release, previous: Release | None, strategy: Strategy, receipt: Receipt
    ) -> Rollout:
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
        """Once the guard's rollout is live, record the release that it replaced as rolled back."""
        if back.previous is None or back.result is None or back.result.outcome != Outcome.LIVE:
            return
        for row in self.store.rollouts(back.previous.stage, release=back.previous.number, limit=1):
            self.store.revise_outcome(row.rollout, Outcome.ROLLED_BACK, why)

    async def back_up(self) -> None:
        """Copy the state file. A failure is reported and does not stop the work."""
        try:
            await asyncio.to_thread(self.store.back_up)
        except (OSError, StoreError) as error:
            self.say(f"cannot back up the state file: {error}", None)

    def live_release(self, stage: str) -> Release | None:
        """The release that should serve the stage."""
        live = self.store.live(stage)
        row = self.store.release(stage, live[0]) if live else None
        return release_of(row) if row else None


class Guard:
    """Watches the candidate of a finished rollout, for `left_s` at most."""

    def __init__(self, rollout: Rollout, previous: Release, clock: Clock, *, left_s: float) -> None:
        self.rollout, self.previous = rollout, previous
        self._clock = clock
        self._ends_at_s = clock.monotonic() + left_s
        self._ended = asyncio.Event()

    @property
    def left_s(self) -> float:
        return max(0.0, self._ends_at_s - self._clock.monotonic())

    def end(self) -> None:
        """End the guard; the release stays live."""
        self._ended.set()

    async def wait_for_alarm(self) -> Reading | None:
        """Watch until an alarm fires and return its reading; None if the time passed or the guard was ended."""
        while not self._ended.is_set() and self.left_s > 0:
            await ends_before(self._clock.sleep(min(ALARM_PERIOD_S, self.left_s)), self._ended)
            reading = await self.rollout.read_alarms()
            if reading.verdict is Verdict.ALARM and not self._ended.is_set():
                return reading
        return None


@dataclass(slots=True)
class Turn:
    """A stage's turns: the current rollout, the current guard, and the number of requests so far."""

    stage: str
    parts: EngineParts
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    requests: int = 0
    wanted: int | None = None
    """The release that was requested last."""
    current: Rollout | None = None
    guard: Guard | None = None
    closed: bool = False
    """No more rollouts start here: the stage is being removed."""
    unfinished: set[int] = field(default_factory=set)
    """Rollouts that could not end because the gateway was down or the disk full."""

    def request(self, release: Release) -> int:
        """Stop the current rollout if possible, end the guard, and return a ticket for `run_turn`."""
        self._make_way(release.number, Outcome.SUPERSEDED, f"superseded by release {release.number}")
        return self.requests

    def close(self) -> None:
        """Stop the rollout if possible, supersede waiting ones. Once `lock` is free, the stage can be removed."""
        self.closed = True
        self._make_way(None, Outcome.ABORTED, "the stage is being removed")

    def _make_way(self, wanted: int | None, outcome: Outcome, reason: str) -> None:
        self.requests += 1
        self.wanted = wanted
        if self.current is not None:
            with contextlib.suppress(ConflictError):  # it is already live and only drains
                self.current.stop(outcome, reason)
        if self.guard is not None:
            self.guard.end()

    async def run_turn(self, ticket: int, rollout: Rollout, stopping: Callable[[], bool]) -> None:
        """Run the rollout when its turn comes, unless a newer one was requested by then; then guard its release."""
        async with self.lock:
            if not await self._ended_unstarted(ticket, rollout, stopping):
                await self._run(rollout)
                if rollout.result is not None and rollout.result.outcome == Outcome.LIVE:
                    await self._guard(rollout, rollout.guard_s, lambda: ticket != self.requests or stopping())
            if ticket == self.requests:
                await self.retire_unused()
            if gone := await self.parts.retention.apply(self.stage):
                self.parts.say(f"removed old releases: {', '.join(map(str, sorted(gone)))}", self.stage)
            await self.parts.back_up()

    async def resume_guard(self, rollout: Rollout, left_s: float, stopping: Callable[[], bool]) -> None:
        """Continue a guard that the death of the previous daemon cut off."""
        requests = self.requests
        async with self.lock:
            await rollout.start_watching()
            await self._guard(rollout, left_s, lambda: requests != self.requests or stopping())
            if requests == self.requests:
                await self.retire_unused()

    async def retire_unused(self) -> None:
        """Drain and retire the stage's releases that are not live and get no requests."""
        live, entry = self.parts.store.live(self.stage), self.parts.pools.gateway_stage(self.stage)
        wanted = {live[0] if live else None, entry.live, entry.candidate}
        for number in sorted({row.release for row in self.parts.store.pools(self.stage)} - wanted):
            row = self.parts.store.release(self.stage, number)
            if row is not None:
                await self._retire(number, self.parts.pools.retire(release_of(row), drain=True))

    async def _retire(self, number: int, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except HitlessError as error:  # the gateway is down: the next turn or start retries
            self.parts.say(f"cannot retire release {number} yet: {error.message}", self.stage)

    async def _ended_unstarted(self, ticket: int, rollout: Rollout, stopping: Callable[[], bool]) -> bool:
        if ticket != self.requests:
            await rollout.end_unstarted(Outcome.SUPERSEDED, "superseded by a newer release before it started")
        elif stopping():
            await rollout.end_unstarted(Outcome.ABORTED, "the engine stopped before it started")
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
        except Exception as error:  # noqa: BLE001 - after any error the next rollout must get its turn
            await rollout.end_unfinished(error)
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
        elif self.wanted != rollout.previous.number:  # otherwise it becomes live again without being restarted
            await self._retire(rollout.previous.number, rollout.retire_previous())
        else:
            await rollout.count()
            rollout.save()

    async def _return_to_previous(self, rollout: Rollout, previous: Release, reading: Reading) -> None:
        """Make the previous release live again and record the guarded one as rolled back."""
        number, why = rollout.candidate.number, f"alarm after all traffic had moved: {reading.sentence}"
        self.parts.warn(f"rolling back release {number}: {why}", self.stage)
        back = self.parts.begin(previous, RolloutVerb.GUARD, AllAtOnce(), why=why)
        back.cause, back.previous, back.committed = f"release {number}: {why}", rollout.candidate, True
        await rollout.count()
        rollout.save()
        back.receipt.begin_after(rollout.receipt)
        await self._run(back)
        self.parts.mark_rolled_back(back, why)
