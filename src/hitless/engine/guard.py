"""The guard of a release that took all traffic at once: the previous release stays warm while the alarms watch.

AllAtOnce has no bake, so its alarms can act only afterwards. Then the previous release takes over again by one change
of one map entry, because its workers still run. The guard ends early when the stage ships again.
"""

from __future__ import annotations

import asyncio

from hitless.clock import Clock
from hitless.rollout.alarms import ALARM_PERIOD_S, Reading, Verdict
from hitless.rollout.release import Release
from hitless.rollout.rollout import Rollout
from hitless.rollout.servers import ends_before


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
