"""One rollout, readable from top to bottom in `Rollout.run`.

Each step is recorded before it is taken; the recovery rules (`hitless.engine.recovery`) read what was recorded and
what the gateway really does. Any failure before the candidate is live sets its weight to 0 at once. A candidate that
was never ready never saw a request.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from hitless.clock import Clock, timestamp
from hitless.errors import ConflictError, HitlessError
from hitless.rollout.alarms import Verdict, read_alarms
from hitless.rollout.counted import Counted
from hitless.rollout.pools import ReleasePools
from hitless.rollout.receipt import Receipt, Side
from hitless.rollout.release import Release
from hitless.rollout.smoke import send_smoke_requests
from hitless.rollout.states import TRANSITIONS, Outcome, State
from hitless.service.strategy import Strategy, weights
from hitless.store.store import Store, whole

ALARM_PERIOD_S = 0.25
SAVE_PERIOD_S = 1.0
"""How old the receipt may be that a daemon's death leaves behind."""

Say = Callable[[str, str | None], None]


class Stopped(Exception):
    """Somebody asked the rollout to stop before its candidate was live."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome, self.reason = outcome, reason


@dataclass(frozen=True, slots=True)
class Step:
    """A step that the rollout took."""

    at: str
    state: State
    weight_percent: float
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "state": str(self.state),
            "weight_percent": whole(self.weight_percent),
            **({"note": self.note} if self.note else {}),
        }


@dataclass(slots=True)
class Rollout:
    """Moves one stage's traffic to a candidate. `previous` is None for a stage's first release."""

    number: int
    verb: str
    candidate: Release
    previous: Release | None
    strategy: Strategy
    pools: ReleasePools
    store: Store
    clock: Clock
    say: Say
    state: State = State.PREPARING
    weight_percent: float = 0.0
    steps: list[Step] = field(default_factory=list)
    progress: asyncio.Condition = field(default_factory=asyncio.Condition)
    result: dict[str, Any] | None = None
    started_at_s: float = 0.0
    receipt: Receipt = field(default_factory=Receipt)
    _stop: asyncio.Future[Stopped] | None = None
    _saved_at_s: float = float("-inf")

    async def run(self) -> dict[str, Any]:
        """Ready → smoke requests → shift by the strategy → swap → drain the old → stop it. Returns the deploy
        document.
        """
        self.started_at_s = self.clock.monotonic()
        candidate, stage = self.candidate, self.candidate.stage
        try:
            if self.previous:
                self.receipt.begin(await self.pools.count(stage, self.previous.number))
            await self._take(State.PREPARING)
            await self._unless_stopped(
                self.pools.start(
                    candidate, candidate.document.functions, ready_timeout_s=candidate.document.settings.ready_timeout_s
                )
            )
            if candidate.document.settings.smoke:
                await self._take(State.TESTING)
                await self._unless_stopped(self._smoke())
            await self.pools.connect(candidate)
            await self._shift()
            self._refuse_stop()
            await self._swap()
        except Stopped as stop:
            return await self._withdraw(stop.outcome, stop.reason)
        except HitlessError as error:
            return await self._withdraw(Outcome.ROLLED_BACK, error.message)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the live release alone must serve
            return await self._withdraw(Outcome.ROLLED_BACK, f"{type(error).__name__}: {error}")
        return await self.finish()

    def stop(self, outcome: Outcome, reason: str) -> None:
        """Ask the rollout to stop. Raises ConflictError once the candidate is live."""
        if self.state in (State.DRAINING, State.ENDED) or self.weight_percent == 100:
            raise ConflictError(
                f"release {self.candidate.number} is live already", hint="`hitless rollback` returns to the one before"
            )
        if self._stop is None:
            self._stop = asyncio.get_running_loop().create_future()
        if not self._stop.done():
            self._stop.set_result(Stopped(outcome, reason))

    async def finish(self) -> dict[str, Any]:
        """After the swap: drain the previous release and stop it; the candidate stays live whatever happens here."""
        stage = self.candidate.stage
        live = None
        if self.previous and self.previous.number != self.candidate.number:
            await self._take(State.DRAINING, weight_percent=100)
            live = await self.pools.retire(self.previous, drain=True)
        self._tell(await self.pools.count(stage, self.candidate.number), live)
        return await self._end(Outcome.LIVE, None)

    async def end_unstarted(self, outcome: Outcome, reason: str | None) -> None:
        """End a rollout that never took its first step."""
        self.started_at_s = self.clock.monotonic()
        await self._end(outcome, reason)

    async def break_off(self, error: Exception) -> None:
        """After an end that failed itself (the gateway gone for good, the disk full): nobody waits for it any longer.

        The state file keeps the rollout as unfinished, so that the engine's next start brings it to its end.
        """
        stage, number = self.candidate.stage, self.candidate.number
        outcome = Outcome.LIVE if self.pools.gateway_stage(stage).live == number else Outcome.ROLLED_BACK
        why = error.message if isinstance(error, HitlessError) else f"{type(error).__name__}: {error}"
        reason = f"it could not be ended while it was {self.state}: {why}"
        self.state = State.ENDED
        self.say(f"{self.verb} of release {number} was left unfinished: {reason}", stage)
        await self._give(self._document(outcome, reason))

    # -- the steps ----------------------------------------------------------------------------------------------------

    async def _smoke(self) -> None:
        rows = self.store.pools(self.candidate.stage, self.candidate.number)
        sockets = {row.function: self.pools.living[row.key].workers[0].socket for row in rows}
        await send_smoke_requests(self.candidate.document.settings.smoke, self.candidate.document.functions, sockets)

    async def _shift(self) -> None:
        """Walk through the strategy's weights below 100 %, with the alarms read while each bakes."""
        if self.previous is None:
            return
        for weight_percent, bake_s in weights(self.strategy):
            if weight_percent >= 100:
                continue
            await self._take(State.SHIFTING, weight_percent=weight_percent)
            await self._set_weight(weight_percent)
            await self._take(State.BAKING)
            await self._bake(bake_s)

    async def _bake(self, bake_s: float) -> None:
        end = self.clock.monotonic() + bake_s
        while (left := end - self.clock.monotonic()) > 0:
            await self._unless_stopped(self.clock.sleep(min(ALARM_PERIOD_S, left)))
            counted = await self.count()
            reading = read_alarms(
                self.candidate.document.settings.alarms,
                requests=counted.requests,
                failed=counted.failed + counted.shielded,
            )
            self.receipt.alarm(reading, timestamp(self.clock.now()))
            self._save(only_if_old=True)
            if reading.verdict is Verdict.ALARM:
                raise Stopped(Outcome.ROLLED_BACK, f"alarm: {reading.sentence}")

    async def _set_weight(self, weight_percent: float) -> None:
        live = self.previous.number if self.previous else None
        await self._weigh(weight_percent)
        await self.pools.shift(self.candidate, live, weight_percent)

    async def _swap(self) -> None:
        """The point of no return: one entry of one map names the candidate as live."""
        stage, number = self.candidate.stage, self.candidate.number
        await self._take(State.SHIFTING, weight_percent=100)
        await self._weigh(100)
        await self.pools.route_all_to(stage, number)
        self.store.set_live(stage, number, timestamp(self.clock.now()))
        self.say(f"release {number} is live", stage)

    async def _withdraw(self, outcome: Outcome, reason: str) -> dict[str, Any]:
        """Weight back to 0 at once, then the candidate's pools go, drained if they had requests."""
        stage, served = self.candidate.stage, self.weight_percent > 0
        await self._take(State.WITHDRAWING, weight_percent=0, note=reason)
        live = self.previous.number if self.previous else None
        await self.pools.route_all_to(stage, live)
        if served:
            await self._weigh(0)
        counted = await self.pools.retire(self.candidate, drain=served)
        self._tell(counted, await self.pools.count(stage, self.previous.number) if self.previous else None)
        return await self._end(outcome, reason)

    async def _end(self, outcome: Outcome, reason: str | None) -> dict[str, Any]:
        document = self._document(outcome, reason)
        self.state = State.ENDED
        self._save()
        self.store.end_rollout(self.number, outcome, reason, document, timestamp(self.clock.now()))
        how = f"ended: {outcome}" + (f" ({reason})" if reason else "")
        self.say(f"{self.verb} of release {self.candidate.number} {how}", self.candidate.stage)
        await self._give(document)
        return document

    def _document(self, outcome: Outcome, reason: str | None) -> dict[str, Any]:
        candidate, live = self.receipt.of(Side.CANDIDATE), self.receipt.of(Side.LIVE)
        return {
            "stage": self.candidate.stage,
            "release": self.candidate.number,
            "outcome": str(outcome),
            "strategy": str(self.strategy),
            "reason": reason,
            "duration_s": round(self.clock.monotonic() - self.started_at_s, 3),
            "steps": [step.to_json() for step in self.steps],
            "candidate": candidate.sums(),
            "live": {"requests": live.requests, "failed": live.failed} if self.previous else None,
        }

    async def _give(self, document: dict[str, Any]) -> None:
        """Whoever follows the rollout hears how it ended."""
        async with self.progress:
            self.result = document
            self.progress.notify_all()

    # -- its parts ----------------------------------------------------------------------------------------------------

    async def _take(self, state: State, *, weight_percent: float | None = None, note: str | None = None) -> None:
        """Record a step before it is taken."""
        if state is not self.state and state not in TRANSITIONS[self.state]:
            raise AssertionError(f"a rollout cannot go from {self.state} to {state}")
        self.state = state
        if weight_percent is not None:
            self.weight_percent = weight_percent
        step = Step(timestamp(self.clock.now()), state, self.weight_percent, note)
        self.store.record_step(self.number, state, self.weight_percent, note, step.at)
        self._save()
        async with self.progress:
            self.steps.append(step)
            self.progress.notify_all()

    async def count(self) -> Counted:
        """One reading of the gateway, for the receipt too; returns the candidate's."""
        numbers = [self.candidate.number, *([self.previous.number] if self.previous else [])]
        candidate, *live = await self.pools.count_all(self.candidate.stage, *numbers)
        self._tell(candidate, live[0] if live else None)
        return candidate

    def _tell(self, candidate: Counted, live: Counted | None) -> None:
        self.receipt.counted(candidate, live, timestamp(self.clock.now()))

    async def _weigh(self, weight_percent: float) -> None:
        """For the receipt: the counts up to a change of weight belong to the weight before it."""
        await self.count()
        self.receipt.weight(weight_percent, timestamp(self.clock.now()))

    def _save(self, *, only_if_old: bool = False) -> None:
        """Record the receipt as it stands. A disk that takes nothing must not end a rollout that is well."""
        now_s = self.clock.monotonic()
        if only_if_old and now_s - self._saved_at_s < SAVE_PERIOD_S:
            return
        try:
            self.store.save_receipt(self.number, self.receipt.to_json())
            self._saved_at_s = now_s
        except sqlite3.Error as error:
            self.receipt.lacks(f"the receipt could not be recorded for a time: {error}")

    def _refuse_stop(self) -> None:
        if self._stop is not None and self._stop.done():
            raise self._stop.result()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Await the work, or leave it (cancelled and ended) as soon as somebody stops the rollout."""
        stop = self._stop = self._stop or asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(work)
        stop.add_done_callback(lambda _: task.cancel())
        try:
            await task
        except asyncio.CancelledError:
            if stop.done():
                raise stop.result() from None
            raise
