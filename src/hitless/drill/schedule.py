"""Ships the releases and injects the faults of a drill on schedule, then makes the first release live again.

Without a seed for the faults, rollouts and faults never overlap, so that each failed request has one cause. An error of
the service or the engine becomes an outcome, because an exception would end the drill without a report on its load.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hitless.clock import Clock
from hitless.drill import faults
from hitless.drill.plan import DrillPlan
from hitless.drill.progress import TerminalProgress
from hitless.drill.result import ShippedRelease
from hitless.drill.scenarios import Scenario
from hitless.drill.shipper import ERROR, Shipped, Shipper, stage_of
from hitless.drill.timeline import MICROSECONDS, RolloutPhase, Timeline, Window
from hitless.drill.workspace import Workspace
from hitless.errors import ConflictError, HitlessError
from hitless.release.document import DRILL_MESSAGE
from hitless.release.result import Outcome

RECOVERY_DEADLINE_S = 30.0
RECOVERY_POLL_S = 0.02


@dataclass(slots=True)
class DrillSchedule:
    """`run` does everything. `elapsed_us` returns the time since the drill's start; `stop` ends it early."""

    plan: DrillPlan
    shipper: Shipper | None
    workspace: Workspace | None
    live_at_start: Mapping[str, Any]
    timeline: Timeline
    elapsed_us: Callable[[], int]
    progress: TerminalProgress
    clock: Clock
    stop: asyncio.Event
    shipped: list[ShippedRelease] = field(default_factory=list)
    restored: ShippedRelease | None = None
    injected: list[Window] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    _rollout: asyncio.Lock = field(default_factory=asyncio.Lock)
    _fault: asyncio.Lock = field(default_factory=asyncio.Lock)
    _begun_at_us: list[int] = field(default_factory=lambda: [0])

    async def run(self) -> None:
        """Ship all releases and inject all faults. Returns half a second before the planned end, or when the last of
        them has ended, if that is later.
        """
        injecting = asyncio.create_task(self._inject_all())
        try:
            await self._ship_all()
            await injecting
            if self.shipped:
                async with self._rollout:
                    await self._restore()
            await self._wait_until(self.plan.duration_s - 0.5)
        finally:
            injecting.cancel()

    async def _wait_until(self, at_s: float) -> None:
        """Wait until that time after the start, or until the drill is stopped."""
        rest_s = at_s - self.elapsed_us() / MICROSECONDS
        if rest_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), rest_s)

    async def _ship_all(self) -> None:
        *instants, last = self.plan.release_instants_s()
        for number, (at_s, scenario) in enumerate(zip(instants, self.plan.scenarios, strict=True), start=1):
            await self._wait_until(at_s)
            if self.stop.is_set():
                break
            async with self._fault:
                pass  # a release begins only when the service has recovered
            async with self._rollout:
                self._begun_at_us.append(self.elapsed_us())
                await self._ship(number, scenario)
        if self.shipped:
            await self._wait_until(last)

    async def _ship(self, number: int, scenario: Scenario) -> None:
        count = len(self.plan.scenarios)
        label = f"release {number} of {count} ({scenario.name})"
        shipping = self._deploy_or_roll_back(number, scenario)
        one = await self._timed(label, scenario, shipping, new=not scenario.rolls_back)
        if one.release is not None:
            one.window.label = f"release {one.release} ({scenario.name})"
        self.shipped.append(one)
        surprise = "" if one.as_expected else f", expected {scenario.expected}"
        reason = f": {one.reason}" if one.reason else ""
        release = "-" if one.release is None else one.release
        self.progress.say(
            f"{number}/{count} {scenario.name}: release {release} {one.outcome}{surprise}"
            f" in {one.duration_s:.2f} s{reason}"
        )

    async def _timed(
        self, label: str, scenario: Scenario, shipping: Awaitable[Shipped], *, new: bool
    ) -> ShippedRelease:
        """Await a rollout, with a window for it. An engine that cannot be reached is an outcome too."""
        window = self.timeline.open(label, self.elapsed_us())
        try:
            shipped = await shipping
        except (HitlessError, OSError) as error:
            shipped = Shipped(None, ERROR, str(error))
        window.end_us = self.elapsed_us()
        origin = self.clock.now() - timedelta(microseconds=self.elapsed_us())  # the start of the drill's time axis
        window.phases = [
            RolloutPhase(
                (datetime.fromisoformat(step["at"]) - origin) // timedelta(microseconds=1),
                str(step["state"]),
                float(step["weight_percent"]),
            )
            for step in shipped.steps
        ]
        return ShippedRelease(
            *(scenario.name, scenario.expected, shipped.outcome, shipped.release, shipped.reason, shipped.candidate),
            window,
            any(one.interrupts and (one.end_us or window.start_us) >= window.start_us for one in self.timeline.windows),
            new,
        )

    async def _deploy_or_roll_back(self, number: int, scenario: Scenario) -> Shipped:
        assert self.shipper is not None
        if scenario.rolls_back:
            return await self.shipper.rollback(None)
        assert self.workspace is not None
        self.workspace.reset()
        self.workspace.mark(f"{self.clock.now():%Y%m%dT%H%M%S.%f} {number}")
        scenario.alter(self.workspace, self.plan.requests)
        message = f"{DRILL_MESSAGE}{scenario.name}, {number} of {len(self.plan.scenarios)}"
        return await self.shipper.deploy(self.workspace.folder, message=message, strategy=scenario.strategy)

    async def _restore(self) -> None:
        """Make the release that was live at the start live again."""
        back = Scenario("return")
        self.restored = await self._timed("return to the first release", back, self._return_to_start(), new=False)
        self.progress.say(f"return to release {self.live_at_start['release']}: {self.restored.outcome}")

    async def _return_to_start(self) -> Shipped:
        assert self.shipper is not None
        first = int(self.live_at_start["release"])
        live = stage_of(await self.shipper.status(), self.plan.stage).get("live") or {}
        if live.get("release") == first:
            return Shipped(first, Outcome.LIVE)
        shipped = await self.shipper.rollback(first)
        if shipped.outcome == Outcome.LIVE or self.workspace is None:
            return shipped
        # After many releases the engine may have removed the first one. Ship the same artifacts if they can be rebuilt.
        self.workspace.reset()
        self.workspace.unmark()
        if dict(await self.shipper.digests(self.workspace.folder)) != dict(self.live_at_start.get("artifacts") or {}):
            return shipped
        self.notices.append(f"release {first} was no longer kept: its artifacts were shipped again")
        return await self.shipper.deploy(self.workspace.folder, message=f"{DRILL_MESSAGE}release {first} again")

    async def _inject_all(self) -> None:
        for (begun, after_s), fault in zip(self.plan.fault_instants_s(), self.plan.faults, strict=True):
            while len(self._begun_at_us) <= begun and not self.stop.is_set():
                await self.clock.sleep(RECOVERY_POLL_S)
            await self._wait_until(self._begun_at_us[min(begun, len(self._begun_at_us) - 1)] / MICROSECONDS + after_s)
            if self.stop.is_set():
                return
            alone = self.plan.fault_seed is None or fault.scenario
            async with self._fault, self._rollout if alone else contextlib.nullcontext():
                await self._inject(fault)

    async def _inject(self, fault: faults.Fault) -> None:
        window = self.timeline.open(fault.name, self.elapsed_us(), fault=True, interrupts=fault.interrupts)
        try:
            window.recovered_ms = await self._inject_and_time(fault, window)
        except (HitlessError, OSError) as error:
            self.notices.append(f"{fault.name}: {error}")
        window.end_us = self.elapsed_us()
        self.injected.append(window)
        ms = window.recovered_ms
        seen = "no recovery seen" if ms is None else f"recovered within {ms:g} ms"
        self.progress.say(f"{fault.name}: {seen}")

    async def _inject_and_time(self, fault: faults.Fault, window: Window) -> float | None:
        assert self.shipper is not None
        if fault.scenario is not None:
            shipped = await self._deploy_or_roll_back(0, fault.scenario)
            if shipped.outcome != fault.scenario.expected:
                raise ConflictError(f"the release ended {shipped.outcome}: {shipped.reason}")
            return round((self.elapsed_us() - window.start_us) / 1000, 1)
        parts = (self.shipper, self.plan.stage, faults.send, self.clock, window, self.elapsed_us, faults.wait_for_end)
        recovered = await fault.inject(faults.FaultContext(*parts))
        while self.elapsed_us() < window.start_us + RECOVERY_DEADLINE_S * MICROSECONDS:
            with contextlib.suppress(HitlessError, OSError):  # an engine that is restarting does not respond yet
                if recovered(await self.shipper.status()):
                    return round((self.elapsed_us() - window.start_us) / 1000, 1)
            await self.clock.sleep(RECOVERY_POLL_S)
        return None
