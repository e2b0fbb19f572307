"""Alarms on a candidate's own traffic: pure decisions on the counts of a window, and the watch that reads them.

All alarms use one test. Of N requests, B were bad (failed, or slower than a limit). The alarm rings if the lower end of
Wilson's score interval for B of N is above the allowed share. So one failed request does not roll a canary back: with
1 % allowed, 2 of 20, 3 of 100 and 17 of 1,000 ring, 1 of 20 does not. A p99 above a limit means that more than 1 % of
the requests are slower, so latency needs no other test.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hitless.clock import Clock
from hitless.service.model import ALARM_DEVIATIONS, ALARM_FLOOR_MS, AlarmSettings
from hitless.workers.stats import EMPTY, Histogram

SLOW_PERCENT = 1.0
"""The share of requests that may be slower than a p99."""


class Verdict(StrEnum):
    OK = "ok"
    ALARM = "alarm"
    NOT_ENOUGH_DATA = "not_enough_data"


@dataclass(frozen=True, slots=True)
class ReleaseTraffic:
    """One release's requests in one window.

    `requests` are those that the gateway gave it; `failed` of them failed, even if the live release then responded.
    `latency` is that of its workers' responses; each of its `workers` may have one slow request, its first, which opens
    connections.
    """

    requests: int = 0
    failed: int = 0
    latency: Histogram = EMPTY
    workers: int = 0

    @property
    def p99_ms(self) -> float | None:
        """The p99 latency; None if no worker has responded."""
        p99_us = self.latency.percentile_us(99)
        return None if p99_us is None else p99_us / 1000

    def since(self, earlier: ReleaseTraffic) -> ReleaseTraffic:
        """The traffic since an earlier reading; never negative, even if counters were reset in between."""
        return ReleaseTraffic(
            max(0, self.requests - earlier.requests),
            max(0, self.failed - earlier.failed),
            self.latency - earlier.latency,
            self.workers,
        )


@dataclass(frozen=True, slots=True)
class TrafficWindow:
    """The traffic of the candidate and of the live release in the same time; `live` is None if none serves."""

    candidate: ReleaseTraffic
    live: ReleaseTraffic | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of the alarms: the verdict and a sentence that explains it."""

    verdict: Verdict
    sentence: str
    figures: Mapping[str, float | None] = field(default_factory=dict)
    """The figures behind it: `requests`, `failed`, `error_rate_percent`, `p99_ms`, `live_p99_ms`."""


Finding = tuple[Verdict, str]
"""One alarm's verdict and sentence."""


def read_alarms(settings: AlarmSettings, whole: TrafficWindow, recent: TrafficWindow | None = None) -> Reading:
    """Judge the candidate by the whole bake so far and by its last seconds (`recent`), which show late failures sooner.

    An alarm in either window is an alarm. "Not enough data" is a verdict on the whole bake only.
    """
    for window in (whole, recent):
        if window is None:
            continue
        for verdict, sentence in _findings(settings, window):
            if verdict is Verdict.ALARM:
                return Reading(verdict, sentence, _figures(window))
    findings = _findings(settings, whole)
    missing = [sentence for verdict, sentence in findings if verdict is Verdict.NOT_ENOUGH_DATA]
    verdict = Verdict.NOT_ENOUGH_DATA if missing else Verdict.OK
    return Reading(verdict, "; ".join(missing or [sentence for _, sentence in findings]), _figures(whole))


def is_above(bad: int, of: int, percent: float) -> bool:
    """Whether more than `percent` are bad with confidence: Wilson's lower bound is above it.

    False if at most `percent` of those seen were bad. With 0 % allowed one bad request is enough.
    """
    if of <= 0 or 100 * bad <= percent * of:
        return False
    share, z2 = min(1.0, bad / of), ALARM_DEVIATIONS**2
    middle = share + z2 / (2 * of)
    spread = ALARM_DEVIATIONS * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return (middle - spread) / (1 + z2 / of) > percent / 100


def _findings(settings: AlarmSettings, window: TrafficWindow) -> list[Finding]:
    findings = [_error_rate(settings, window.candidate)]
    if settings.p99_ms is not None:
        findings.append(_slower_than(settings, window.candidate, settings.p99_ms, f"{settings.p99_ms:g} ms"))
    if settings.p99_relative_percent is not None:
        findings.append(_slower_than_live(settings, settings.p99_relative_percent, window))
    return findings


def _error_rate(settings: AlarmSettings, seen: ReleaseTraffic) -> Finding:
    if seen.requests < settings.minimum_requests:
        return _too_few("error rate", seen.requests, settings)
    sentence = f"{seen.failed} of {seen.requests} requests failed"
    if not is_above(seen.failed, seen.requests, settings.error_rate_percent):
        return Verdict.OK, sentence
    rate_percent = 100 * seen.failed / seen.requests
    return Verdict.ALARM, f"{sentence} ({rate_percent:.3g} %, alarm above {settings.error_rate_percent:g} %)"


def _slower_than(settings: AlarmSettings, seen: ReleaseTraffic, limit_ms: float, limit: str) -> Finding:
    answered = seen.latency.count
    if answered < settings.minimum_requests:
        return _too_few("p99", answered, settings)
    slow = max(0, seen.latency.count_above(limit_ms * 1000) - seen.workers)
    sentence = f"p99 {seen.p99_ms:.3g} ms"
    if not is_above(slow, answered, SLOW_PERCENT):
        return Verdict.OK, sentence
    return Verdict.ALARM, f"{sentence} over {answered} requests (alarm above {limit})"


def _slower_than_live(settings: AlarmSettings, percent: float, window: TrafficWindow) -> Finding:
    live = window.live
    if live is None:
        return Verdict.NOT_ENOUGH_DATA, "relative p99: no other release serves at the same time"
    live_ms = live.p99_ms
    if live.latency.count < settings.minimum_requests or live_ms is None:
        return _too_few("p99 of the live release", live.latency.count, settings)
    limit_ms = max(live_ms * percent / 100, live_ms + ALARM_FLOOR_MS)
    return _slower_than(
        settings, window.candidate, limit_ms, f"{percent:g} % of the live release's {live_ms:.3g} ms in the same time"
    )


def _too_few(what: str, have: int, settings: AlarmSettings) -> Finding:
    return Verdict.NOT_ENOUGH_DATA, f"{what}: {have} of {settings.minimum_requests} requests needed for a verdict"


def _figures(window: TrafficWindow) -> dict[str, float | None]:
    seen, live = window.candidate, window.live
    return {
        "requests": seen.requests,
        "failed": seen.failed,
        "error_rate_percent": round(100 * seen.failed / seen.requests, 3) if seen.requests else 0.0,
        "p99_ms": seen.p99_ms,
        "live_p99_ms": live.p99_ms if live else None,
    }


ALARM_PERIOD_S = 0.25
"""The time between two readings. A failing candidate is rolled back this soon after `minimum_requests`."""

RECENT_S = 10.0
"""The length of the second window. A failure after a long good start shows here first."""


class CandidateWatch:
    """Reads the alarms on the traffic since `begin`. `look` returns all traffic of both releases so far."""

    def __init__(self, look: Callable[[], Awaitable[TrafficWindow]], clock: Clock) -> None:
        self._look, self._clock = look, clock
        self._seen: deque[tuple[float, TrafficWindow]] = deque()
        self._first = TrafficWindow(ReleaseTraffic())

    async def begin(self) -> None:
        """Start to count. Call it before the first request can reach the candidate."""
        self._first = await self._look()
        self._seen.clear()
        self._seen.append((self._clock.monotonic(), self._first))

    async def read(self, settings: AlarmSettings) -> Reading:
        now, at_s = await self._look(), self._clock.monotonic()
        while len(self._seen) > 1 and self._seen[1][0] <= at_s - RECENT_S:
            self._seen.popleft()
        recent = self._seen[0][1]
        self._seen.append((at_s, now))
        return read_alarms(settings, _between(self._first, now), _between(recent, now))


def _between(earlier: TrafficWindow, now: TrafficWindow) -> TrafficWindow:
    live = now.live.since(earlier.live) if now.live and earlier.live else None
    return TrafficWindow(now.candidate.since(earlier.candidate), live)
