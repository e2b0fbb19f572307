"""One rollout, readable from top to bottom in `Rollout.run`.

Each step is recorded before it is taken; the recovery rules (`hitless.engine.recovery`) read what was recorded and
what the gateway really does. Any failure before the candidate is live sets its weight to 0 at once. A candidate
receives no request before it is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hitless.errors import ConflictError, EngineError, HitlessError
from hitless.release.result import Outcome, Result, RolloutVerb
from hitless.release.smoke import first_request
from hitless.rollout.alarms import ALARM_PERIOD_S, CandidateWatch, Reading, ReleaseTraffic, TrafficWindow, Verdict
from hitless.rollout.hooks import Hook, LifecycleHooks
from hitless.rollout.record import Recorded, RolloutState
from hitless.rollout.smoke import smoke_workers
from hitless.service.model import SmokeRequest
from hitless.service.strategy import AllAtOnce, weights


class Stopped(Exception):
    """The rollout stops before its candidate is live, because of an alarm, a hook or a command."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome, self.reason = outcome, reason


@dataclass(slots=True, kw_only=True)
class Rollout(Recorded):
    """Moves one stage's traffic to a candidate.

    `cause`: the reason, if the engine started it by itself. `committed`: it can no longer be stopped. `guarded`: after
    an all-at-once deploy, the previous release is kept ready for `guard_s` seconds.
    """

    hooks: LifecycleHooks
    cause: str | None = None
    committed: bool = False
    guarded: bool = True
    baked_at_s: float | None = None
    """When its last bake will end, by the clock's monotonic time; None before the first one."""
    _watch: CandidateWatch | None = None
    _stop: asyncio.Future[Stopped] | None = None

    async def run(self) -> Result:
        """Start → test → shift by the strategy → confirm → swap → drain the previous release → stop it."""
        self.started_at_s = self.clock.monotonic()
        try:
            await self.start_counting()
            await self.enter(RolloutState.PREPARING, note=self.cause)
            await self.pools.lingering.keep(self.candidate.key)  # it may be waiting to be removed
            if not self.pools.runs(self.candidate):  # otherwise it was live until a moment ago and is still running
                await self._start()
                await self._test()
                await self.pools.connect(self.candidate)
            else:
                with suppress(EngineError):  # fewer workers do not stop the rollout
                    await self.pools.grow_to_live_size(self.candidate)
            await self.start_watching()
            await self._shift()
            await self._confirm()
            await self._swap()
        except Stopped as stop:
            return await self._withdraw(stop.outcome, stop.reason)
        except HitlessError as error:
            return await self._withdraw(Outcome.ROLLED_BACK, error.message)
        except Exception as error:  # noqa: BLE001 - after any error the live release must serve alone
            return await self._withdraw(Outcome.ROLLED_BACK, f"{type(error).__name__}: {error}")
        return await self.finish()

    def stop(self, outcome: Outcome, reason: str) -> None:
        """Ask the rollout to stop. Raises ConflictError once the candidate is live."""
        if self.committed or self.state in (RolloutState.DRAINING, RolloutState.ENDED):
            raise ConflictError(
                f"release {self.candidate.number} is already live",
                hint="to return to the previous release, run `hitless rollback`",
            )
        if self._stop is None:
            self._stop = asyncio.get_running_loop().create_future()
        if not self._stop.done():
            self._stop.set_result(Stopped(outcome, reason))

    @property
    def guard_s(self) -> int:
        """How long a guard keeps the previous release running: 0 except after a deploy of all traffic at once."""
        moved_at_once = self.previous is not None and isinstance(self.strategy, AllAtOnce)
        if not self.guarded or not moved_at_once or self.verb in (RolloutVerb.ROLLBACK, RolloutVerb.GUARD):
            return 0
        return self.candidate.document.settings.alarms.guard_s

    async def finish(self) -> Result:
        """After the swap: retire the previous release, or leave it to the guard. The candidate stays live."""
        if self.guard_s:
            await self.count()
        else:
            await self.retire_previous()
        return await self.end(Outcome.LIVE, self.cause)

    async def retire_previous(self) -> None:
        """Drain and stop the previous release, and add the last counts of both releases to the receipt."""
        live = None
        if self.previous and self.previous.number != self.candidate.number:
            if self.state is not RolloutState.ENDED:
                await self.enter(RolloutState.DRAINING, weight_percent=100)
            live = await self.pools.retire(self.previous, drain=True)
        self.add_counts(await self.pools.count(self.candidate.stage, self.candidate.number), live)
        self.save()

    async def start_watching(self) -> None:
        """Start to watch the alarms. Call it before the first request can reach the candidate."""
        self._watch = CandidateWatch(self._traffic, self.clock)
        await self._watch.begin()

    async def read_alarms(self) -> Reading:
        """Read the alarms once, and record the reading."""
        assert self._watch is not None
        self.reading = await self._watch.read(self.candidate.document.settings.alarms)
        self.receipt.add_reading(self.reading, self.now)
        self.save(only_if_old=True)
        return self.reading

    async def _start(self) -> None:
        candidate = self.candidate
        ready_timeout_s = candidate.document.settings.ready_timeout_s
        await self._unless_stopped(self.pools.start(candidate, candidate.served, ready_timeout_s=ready_timeout_s))

    async def _test(self) -> None:
        """Smoke requests and the `pre_traffic` hook, while no client can reach the candidate."""
        settings = self.candidate.document.settings
        requests = settings.smoke or (first_request(self.candidate.served) if self.verb == RolloutVerb.DEPLOY else ())
        if requests or settings.hooks.pre_traffic:
            await self.enter(RolloutState.TESTING)
        if requests:
            await self._unless_stopped(self._smoke(requests))
        if settings.hooks.pre_traffic:
            await self._unless_stopped(self._run_hook(Hook.PRE_TRAFFIC, settings.hooks.pre_traffic))

    async def _smoke(self, requests: tuple[SmokeRequest, ...]) -> None:
        rows = self.store.pools(self.candidate.stage, self.candidate.number)
        sockets = {row.function: self.pools.living[row.key].workers[0].socket for row in rows}
        if note := await smoke_workers(requests, self.candidate.served, sockets):
            self.say(f"release {self.candidate.number}: {note}", self.candidate.stage)
            await self.enter(RolloutState.TESTING, note=note)

    async def _shift(self) -> None:
        """Move through the strategy's weights below 100 %, and watch the alarms while each bakes."""
        if self.previous is None:
            return
        bakes = [step for step in weights(self.strategy) if step[0] < 100]
        for index, (weight_percent, bake_s) in enumerate(bakes):
            await self._shift_to(weight_percent)
            self.baked_at_s = self.clock.monotonic() + sum(later_s for _, later_s in bakes[index:])
            await self.enter(RolloutState.BAKING)
            await self._bake(bake_s)

    async def _bake(self, bake_s: float) -> None:
        end = self.clock.monotonic() + bake_s
        while (left := end - self.clock.monotonic()) > 0:
            await self._unless_stopped(self.clock.sleep(min(ALARM_PERIOD_S, left)))
            await self._check_alarms()

    async def _confirm(self) -> None:
        """The `post_traffic` hook, with all traffic going to the candidate and the previous release still running."""
        if function := self.candidate.document.settings.hooks.post_traffic:
            await self._shift_to(100)
            await self.enter(RolloutState.CONFIRMING)
            await self._while_watching(self._run_hook(Hook.POST_TRAFFIC, function))

    async def _swap(self) -> None:
        """Make the candidate live by changing one entry in the gateway's map. This is the point of no return."""
        if self._stop is not None and self._stop.done():
            raise self._stop.result()
        self.committed = True
        stage, number = self.candidate.stage, self.candidate.number
        await self.enter(RolloutState.SHIFTING, weight_percent=100, note=self._note_missing_data())
        await self.add_weight(100)
        await self.pools.route_all_to(stage, number)
        self.store.set_live(stage, number, self.now)
        self.say(f"release {number} is live", stage)

    async def _withdraw(self, outcome: Outcome, reason: str) -> Result:
        """Set the weight to 0 at once, then retire the candidate, drained if it had requests."""
        stage, served = self.candidate.stage, self.weight_percent > 0
        await self.enter(RolloutState.WITHDRAWING, weight_percent=0, note=reason)
        live = self.previous.number if self.previous else None
        await self.pools.route_all_to(stage, live)
        if served:
            await self.add_weight(0)
        counted = await self.pools.retire(self.candidate, drain=served)
        self.add_counts(counted, await self.pools.count(stage, self.previous.number) if self.previous else None)
        return await self.end(outcome, reason)

    async def _shift_to(self, weight_percent: float) -> None:
        """Send that share of the stage's requests to the candidate, by changing one entry in the gateway's map."""
        await self.enter(RolloutState.SHIFTING, weight_percent=weight_percent, note=self._note_missing_data())
        await self.add_weight(weight_percent)
        await self.pools.shift(self.candidate, self.previous.number if self.previous else None, weight_percent)

    async def _run_hook(self, hook: Hook, function: str) -> None:
        result = await self.hooks.run(hook, function, self.candidate)
        self.say(result.sentence, self.candidate.stage)
        self.receipt.add_hook(f"{hook} {function}", "Succeeded" if result.succeeded else "Failed", self.now)
        if not result.succeeded:
            raise Stopped(Outcome.ROLLED_BACK, result.sentence)

    async def _while_watching(self, work: Coroutine[Any, Any, None]) -> None:
        """Await the work while watching the alarms. An alarm or a stop of the rollout cancels it."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await self._unless_stopped(self._pause(task))
                await self._check_alarms()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _pause(self, task: asyncio.Future[None]) -> None:
        sleep = asyncio.ensure_future(self.clock.sleep(ALARM_PERIOD_S))
        try:
            await asyncio.wait({task, sleep}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()

    async def _check_alarms(self) -> None:
        reading = await self.read_alarms()
        if reading.verdict is Verdict.ALARM:
            raise Stopped(Outcome.ROLLED_BACK, f"alarm: {reading.sentence}")

    async def _traffic(self) -> TrafficWindow:
        """The traffic of both releases so far, or of the candidate alone if they do not share traffic."""
        stage, counted = self.candidate.stage, (await self.count()).total
        latency, workers = self.pools.latency(stage, self.candidate.number)
        candidate = ReleaseTraffic(counted.requests, counted.failed + counted.shielded, latency, workers)
        if self.previous is None or isinstance(self.strategy, AllAtOnce):
            return TrafficWindow(candidate)
        latency, workers = self.pools.latency(stage, self.previous.number)
        return TrafficWindow(candidate, ReleaseTraffic(latency=latency, workers=workers))

    def _note_missing_data(self) -> str | None:
        """A note for the step after a bake that had too few requests for a verdict. The rollout continues."""
        if self.reading is None or self.reading.verdict is not Verdict.NOT_ENOUGH_DATA:
            return None
        note = f"the alarms did not have enough data at {self.weight_percent:g}% ({self.reading.sentence})"
        self.say(f"release {self.candidate.number} continues, although {note}", self.candidate.stage)
        return note

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Await the work. If the rollout is stopped in the meantime, cancel the work and wait until it has ended."""
        stop = self._stop = self._stop or asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(work)
        stop.add_done_callback(lambda _: task.cancel())
        try:
            await task
        except asyncio.CancelledError:
            if stop.done():
                raise stop.result() from None
            raise
