"""The record of a rollout: its steps, its receipt, and at its end the result.

Each step is in the state file before it is taken. Followers read `steps` and `result` under `progress`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from hitless.clock import Clock, timestamp
from hitless.errors import HitlessError
from hitless.release.receipt import Side
from hitless.release.result import LastReading, Outcome, Result, SideCounts, Step, whole
from hitless.rollout.alarms import Reading
from hitless.rollout.counted import Counted
from hitless.rollout.pools import ReleasePools
from hitless.rollout.receipt import Receipt
from hitless.rollout.release import Release
from hitless.service.strategy import Strategy
from hitless.store.store import Store, StoreError


class RolloutState(StrEnum):
    PREPARING = "preparing"
    TESTING = "testing"
    SHIFTING = "shifting"
    BAKING = "baking"
    CONFIRMING = "confirming"
    DRAINING = "draining"
    WITHDRAWING = "withdrawing"
    ENDED = "ended"


_S = RolloutState
TRANSITIONS: dict[RolloutState, frozenset[RolloutState]] = {
    _S.PREPARING: frozenset({_S.TESTING, _S.SHIFTING, _S.WITHDRAWING}),
    _S.TESTING: frozenset({_S.SHIFTING, _S.WITHDRAWING}),
    _S.SHIFTING: frozenset({_S.BAKING, _S.CONFIRMING, _S.SHIFTING, _S.DRAINING, _S.WITHDRAWING, _S.ENDED}),
    _S.BAKING: frozenset({_S.SHIFTING, _S.DRAINING, _S.WITHDRAWING}),
    _S.CONFIRMING: frozenset({_S.SHIFTING, _S.WITHDRAWING}),
    _S.DRAINING: frozenset({_S.ENDED}),
    _S.WITHDRAWING: frozenset({_S.ENDED}),
    _S.ENDED: frozenset(),
}


SAVE_PERIOD_S = 1.0
"""How old the saved receipt may be while the alarms are read."""

Say = Callable[[str, str | None], None]


@dataclass(slots=True, kw_only=True)
class Recorded:
    """The recorded part of a rollout. `previous` is None for a stage's first release."""

    number: int
    verb: str
    candidate: Release
    previous: Release | None
    strategy: Strategy
    pools: ReleasePools
    store: Store
    clock: Clock
    say: Say
    state: RolloutState = RolloutState.PREPARING
    weight_percent: float = 0.0
    steps: list[Step] = field(default_factory=list)
    progress: asyncio.Condition = field(default_factory=asyncio.Condition)
    result: Result | None = None
    started_at_s: float = 0.0
    receipt: Receipt = field(default_factory=Receipt)
    reading: Reading | None = None
    _saved_at_s: float = float("-inf")

    @property
    def now(self) -> str:
        return timestamp(self.clock.now())

    async def enter(self, state: RolloutState, *, weight_percent: float | None = None, note: str | None = None) -> None:
        """Record a step before it is taken."""
        if state is not self.state and state not in TRANSITIONS[self.state]:
            raise AssertionError(f"a rollout cannot change from {self.state} to {state}")
        self.state = state
        if weight_percent is not None:
            self.weight_percent = weight_percent
        step = Step(self.now, state, whole(self.weight_percent), note)
        self.store.record_step(self.number, state, self.weight_percent, note, step.at)
        self.save()
        async with self.progress:
            self.steps.append(step)
            self.progress.notify_all()

    async def start_counting(self) -> None:
        """Start the receipt with the current counts of both releases."""
        candidate, live = await self._count_both()
        self.receipt.begin(live, candidate)

    async def count(self) -> Counted:
        """Read the gateway's counts and add them to the receipt; returns the candidate's."""
        candidate, live = await self._count_both()
        self.add_counts(candidate, live)
        return candidate

    async def _count_both(self) -> tuple[Counted, Counted | None]:
        numbers = [self.candidate.number, *([self.previous.number] if self.previous else [])]
        candidate, *live = await self.pools.count_all(self.candidate.stage, *numbers)
        return candidate, live[0] if live else None

    def add_counts(self, candidate: Counted, live: Counted | None) -> None:
        self.receipt.add_counts(candidate, live, self.now)

    async def add_weight(self, weight_percent: float) -> None:
        """Add a change of weight to the receipt, after the counts that belong to the previous weight."""
        await self.count()
        self.receipt.add_weight(weight_percent, self.now)

    def save(self, *, only_if_old: bool = False) -> None:
        """Save the receipt. A full disk must not end a healthy rollout."""
        now_s = self.clock.monotonic()
        if only_if_old and now_s - self._saved_at_s < SAVE_PERIOD_S:
            return
        try:
            self.store.save_receipt(self.number, self.receipt.document())
            self._saved_at_s = now_s
        except StoreError as error:
            self.receipt.add_missing(f"the receipt could not be saved for a time: {error.__cause__}")

    async def end(self, outcome: Outcome, reason: str | None) -> Result:
        """Record the end and give the result to the followers."""
        result = self._result(outcome, reason)
        self.state = RolloutState.ENDED
        self.save()
        self.store.end_rollout(self.number, outcome, reason, result, self.now)
        how = f"ended: {outcome}" + (f" ({reason})" if reason else "")
        self.say(f"{self.verb} of release {self.candidate.number} {how}", self.candidate.stage)
        await self._publish(result)
        return result

    async def end_unstarted(self, outcome: Outcome, reason: str | None) -> None:
        """End a rollout that never took its first step."""
        self.started_at_s = self.clock.monotonic()
        await self.end(outcome, reason)

    async def end_unfinished(self, error: Exception) -> None:
        """Give a result although the end failed (gateway away, disk full), so that no command waits for it any longer.

        The state file keeps the rollout as unfinished; recovery ends it later.
        """
        stage, number = self.candidate.stage, self.candidate.number
        outcome = Outcome.LIVE if self.pools.gateway_stage(stage).live == number else Outcome.ROLLED_BACK
        why = error.message if isinstance(error, HitlessError) else f"{type(error).__name__}: {error}"
        reason = f"it could not be ended while {self.state}: {why}"
        self.state = RolloutState.ENDED
        self.say(f"{self.verb} of release {number} was left unfinished: {reason}", stage)
        await self._publish(self._result(outcome, reason))

    async def _publish(self, result: Result) -> None:
        async with self.progress:
            self.result = result
            self.progress.notify_all()

    def _result(self, outcome: Outcome, reason: str | None) -> Result:
        candidate, live = self.receipt.counts_of(Side.CANDIDATE).total, self.receipt.counts_of(Side.LIVE).total
        return Result(
            stage=self.candidate.stage,
            release=self.candidate.number,
            outcome=outcome,
            strategy=str(self.strategy),
            reason=reason,
            duration_s=round(self.clock.monotonic() - self.started_at_s, 3),
            steps=tuple(self.steps),
            alarms=LastReading(str(self.reading.verdict), self.reading.sentence) if self.reading else None,
            candidate=SideCounts(candidate.requests, candidate.failed, candidate.shielded),
            live=SideCounts(live.requests, live.failed) if self.previous else None,
        )
