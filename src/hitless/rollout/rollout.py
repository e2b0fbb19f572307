"""One rollout, readable from top to bottom in `Rollout.run`.

Each step is recorded before it is taken; the recovery rules (`hitless.engine.recovery`) read what was recorded and
what the gateway really does. Any failure before the candidate is live sets its weight to 0 at once. A candidate that
was never ready never saw a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from hitless.clock import Clock, timestamp
from hitless.errors import ConflictError, HitlessError
from hitless.rollout.alarms import Verdict, read_alarms
from hitless.rollout.pools import NOTHING, Counted, ReleasePools
from hitless.rollout.release import Release
from hitless.rollout.smoke import send_smoke_requests
from hitless.rollout.states import TRANSITIONS, Outcome, State
from hitless.service.strategy import Strategy, weights
from hitless.store.store import Store, whole

ALARM_PERIOD_S = 0.25

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
    _stop: asyncio.Future[Stopped] | None = None
    _before: Counted = NOTHING

    async def run(self) -> dict[str, Any]:
        """Ready → smoke requests → shift by the strategy → swap → drain the old → stop it. Returns the deploy
        document.
        """
        self.started_at_s = self.clock.monotonic()
        candidate, stage = self.candidate, self.candidate.stage
        try:
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
            if self.previous:
                self._before = await self.pools.count(stage, self.previous.number)
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
            live = self._since_start(await self.pools.retire(self.previous, drain=True))
        candidate = await self.pools.count(stage, self.candidate.number)
        return await self._end(Outcome.LIVE, None, candidate, live)

    async def end_unstarted(self, outcome: Outcome, reason: str | None) -> None:
        """End a rollout that never took its first step."""
        self.started_at_s = self.clock.monotonic()
        await self._end(outcome, reason, NOTHING, None)

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
        await self._give(self._document(outcome, reason, NOTHING, None))

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
            counted = await self.pools.count(self.candidate.stage, self.candidate.number)
            reading = read_alarms(
                self.candidate.document.settings.alarms,
                requests=counted.requests,
                failed=counted.failed + counted.shielded,
            )
            if reading.verdict is Verdict.ALARM:
                raise Stopped(Outcome.ROLLED_BACK, f"alarm: {reading.sentence}")

    async def _set_weight(self, weight_percent: float) -> None:
        stage, live = self.candidate.stage, self.previous.number if self.previous else None
        await self.pools.change_gateway(
            lambda state: state.with_stage(
                stage, live=live, candidate=self.candidate.number, weight=round(weight_percent * 100)
            )
        )

    async def _swap(self) -> None:
        """The point of no return: one entry of one map names the candidate as live."""
        stage, number = self.candidate.stage, self.candidate.number
        await self._take(State.SHIFTING, weight_percent=100)
        await self.pools.route_all_to(stage, number)
        self.store.set_live(stage, number, timestamp(self.clock.now()))
        self.say(f"release {number} is live", stage)

    async def _withdraw(self, outcome: Outcome, reason: str) -> dict[str, Any]:
        """Weight back to 0 at once, then the candidate's pools go, drained if they had requests."""
        stage, served = self.candidate.stage, self.weight_percent > 0
        await self._take(State.WITHDRAWING, weight_percent=0, note=reason)
        live = self.previous.number if self.previous else None
        await self.pools.route_all_to(stage, live)
        counted = await self.pools.retire(self.candidate, drain=served)
        live_counted = None
        if self.previous:
            live_counted = self._since_start(await self.pools.count(stage, self.previous.number))
        return await self._end(outcome, reason, counted, live_counted)

    async def _end(
        self, outcome: Outcome, reason: str | None, candidate: Counted, live: Counted | None
    ) -> dict[str, Any]:
        document = self._document(outcome, reason, candidate, live)
        self.state = State.ENDED
        self.store.end_rollout(self.number, outcome, reason, document, timestamp(self.clock.now()))
        how = f"ended: {outcome}" + (f" ({reason})" if reason else "")
        self.say(f"{self.verb} of release {self.candidate.number} {how}", self.candidate.stage)
        await self._give(document)
        return document

    def _document(
        self, outcome: Outcome, reason: str | None, candidate: Counted, live: Counted | None
    ) -> dict[str, Any]:
        return {
            "stage": self.candidate.stage,
            "release": self.candidate.number,
            "outcome": str(outcome),
            "strategy": str(self.strategy),
            "reason": reason,
            "duration_s": round(self.clock.monotonic() - self.started_at_s, 3),
            "steps": [step.to_json() for step in self.steps],
            "candidate": {"requests": candidate.requests, "failed": candidate.failed, "shielded": candidate.shielded},
            "live": {"requests": live.requests, "failed": live.failed} if live else None,
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
        async with self.progress:
            self.steps.append(step)
            self.progress.notify_all()

    def _since_start(self, now: Counted) -> Counted:
        return Counted(max(0, now.requests - self._before.requests), max(0, now.failed - self._before.failed))

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
