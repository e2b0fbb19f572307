"""Reads the alarms again and again while a candidate has traffic: the whole bake so far, and its last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from hitless.clock import Clock
from hitless.rollout.alarms import Reading, ReleaseTraffic, TrafficWindow, read_alarms
from hitless.service.model import AlarmSettings

ALARM_PERIOD_S = 0.25
"""Between two readings: a candidate that fails is sent back so soon after the fewest requests that a verdict needs."""

RECENT_S = 10.0
"""The second window: what breaks after a long good start shows here before the whole bake's share moves."""


class AlarmWatch:
    """The traffic since `begin`. `look` gives all that both releases have had so far."""

    def __init__(self, look: Callable[[], Awaitable[TrafficWindow]], clock: Clock) -> None:
        self._look, self._clock = look, clock
        self._seen: deque[tuple[float, TrafficWindow]] = deque()
        self._first = TrafficWindow(ReleaseTraffic())

    async def begin(self) -> None:
        """From here on it counts: before the first request can reach the candidate."""
        self._first = await self._look()
        self._seen.clear()
        self._seen.append((self._clock.monotonic(), self._first))

    async def read(self, settings: AlarmSettings) -> Reading:
        """One look at the alarms."""
        now, at_s = await self._look(), self._clock.monotonic()
        while len(self._seen) > 1 and self._seen[1][0] <= at_s - RECENT_S:
            self._seen.popleft()
        recent = self._seen[0][1]
        self._seen.append((at_s, now))
        return read_alarms(settings, _between(self._first, now), _between(recent, now))


def _between(earlier: TrafficWindow, now: TrafficWindow) -> TrafficWindow:
    live = now.live.since(earlier.live) if now.live and earlier.live else None
    return TrafficWindow(now.candidate.since(earlier.candidate), live)
