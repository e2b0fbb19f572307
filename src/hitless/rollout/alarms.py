"""Alarms on the candidate's own traffic: pure decisions over what was counted in a window.

One test serves all of them: of so many requests so many were bad (failed, or slower than a limit), and the share that
is bad in truth is *surely* above what is allowed. Surely means that the lower end of Wilson's score interval lies above
it, so that a canary is not sent back for one unlucky request: at 1 % allowed, 2 of 20, 3 of 100 and 17 of 1,000 are
alarms, 1 of 20 is not. A p99 above a limit *is* more than 1 % of requests above it, so latency needs no other test.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hitless.clock import Clock
from hitless.service.model import AlarmSettings
from hitless.workers.stats import EMPTY, Histogram

DEVIATIONS = 2.0
"""Standard deviations between what was seen and what is held for true: some 2 % of alarms may be bad luck."""

RELATIVE_FLOOR_MS = 5.0
"""A candidate's p99 that is less than this above the live release's is no alarm, whatever the ratio: 0.4 ms against
0.2 ms is twice as long and nobody's concern.
"""

SLOW_PERCENT = 1.0
"""Of requests may be slower than a p99."""


class Verdict(StrEnum):
    """What an alarm says of the candidate now."""

    OK = "ok"
    ALARM = "alarm"
    NOT_ENOUGH_DATA = "not_enough_data"


@dataclass(frozen=True, slots=True)
class ReleaseTraffic:
    """One release's requests in one window.

    `failed` of the `requests` that the gateway gave it failed, whether or not the live release then answered for it.
    `latency` is what its workers took for those that they answered; each of its `workers` may have one slow request,
    its first, which opens connections.
    """

    requests: int = 0
    failed: int = 0
    latency: Histogram = EMPTY
    workers: int = 0

    @property
    def p99_ms(self) -> float | None:
        """None where no worker has answered."""
        p99_us = self.latency.percentile_us(99)
        return None if p99_us is None else p99_us / 1000

    def since(self, earlier: ReleaseTraffic) -> ReleaseTraffic:
        """What came after an earlier reading; nothing is negative, whatever was counted anew in between."""
        return ReleaseTraffic(
            max(0, self.requests - earlier.requests),
            max(0, self.failed - earlier.failed),
            self.latency - earlier.latency,
            self.workers,
        )


@dataclass(frozen=True, slots=True)
class TrafficWindow:
    """The candidate's traffic and the live release's in the same time; `live` is None where none serves beside it."""

    candidate: ReleaseTraffic
    live: ReleaseTraffic | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the alarms: the verdict and the sentence that explains it."""

    verdict: Verdict
    sentence: str
    figures: Mapping[str, float | None] = field(default_factory=dict)
    """What it rests on, by name with its unit: `requests`, `failed`, `error_rate_percent`, `p99_ms`, `live_p99_ms`."""


Finding = tuple[Verdict, str]
"""What one alarm says, and its sentence."""


def read_alarms(settings: AlarmSettings, whole: TrafficWindow, recent: TrafficWindow | None = None) -> Reading:
    """Judge the candidate by the whole bake so far and by its last seconds (`recent`): the one is sure, the other soon
    shows what went wrong late. An alarm in either is an alarm; "not enough data" is said of the whole alone.
    """
    for window in (whole, recent):
        if window is None:
            continue
        for verdict, sentence in _findings(settings, window):
            if verdict is Verdict.ALARM:
                return Reading(verdict, sentence, _figures(window))
    findings = _findings(settings, whole)
    lacking = [sentence for verdict, sentence in findings if verdict is Verdict.NOT_ENOUGH_DATA]
    verdict = Verdict.NOT_ENOUGH_DATA if lacking else Verdict.OK
    return Reading(verdict, "; ".join(lacking or [sentence for _, sentence in findings]), _figures(whole))


def surely_above(bad: int, of: int, percent: float) -> bool:
    """Whether more than that many per cent are bad, beyond what chance explains: Wilson's lower bound lies above.

    Never where no more than `percent` of those seen were bad; with 0 % allowed one bad one suffices.
    """
    if of <= 0 or 100 * bad <= percent * of:
        return False
    share, z2 = min(1.0, bad / of), DEVIATIONS**2
    middle = share + z2 / (2 * of)
    spread = DEVIATIONS * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
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
        return _lacking("error rate", seen.requests, settings)
    sentence = f"{seen.failed} of {seen.requests} requests failed"
    if not surely_above(seen.failed, seen.requests, settings.error_rate_percent):
        return Verdict.OK, sentence
    rate_percent = 100 * seen.failed / seen.requests
    return Verdict.ALARM, f"{sentence} ({rate_percent:.3g} %, alarm above {settings.error_rate_percent:g} %)"


def _slower_than(settings: AlarmSettings, seen: ReleaseTraffic, limit_ms: float, limit: str) -> Finding:
    answered = seen.latency.count
    if answered < settings.minimum_requests:
        return _lacking("p99", answered, settings)
    slow = max(0, seen.latency.count_above(limit_ms * 1000) - seen.workers)
    sentence = f"p99 {seen.p99_ms:.3g} ms"
    if not surely_above(slow, answered, SLOW_PERCENT):
        return Verdict.OK, sentence
    return Verdict.ALARM, f"{sentence} over {answered} requests (alarm above {limit})"


def _slower_than_live(settings: AlarmSettings, percent: float, window: TrafficWindow) -> Finding:
    live = window.live
    if live is None:
        return Verdict.NOT_ENOUGH_DATA, "relative p99: no other release serves beside it"
    live_ms = live.p99_ms
    if live.latency.count < settings.minimum_requests or live_ms is None:
        return _lacking("p99 of the live release", live.latency.count, settings)
    limit_ms = max(live_ms * percent / 100, live_ms + RELATIVE_FLOOR_MS)
    return _slower_than(
        settings, window.candidate, limit_ms, f"{percent:g} % of the live release's {live_ms:.3g} ms in the same time"
    )


def _lacking(what: str, have: int, settings: AlarmSettings) -> Finding:
    return Verdict.NOT_ENOUGH_DATA, f"{what}: {have} of {settings.minimum_requests} requests that a verdict needs"


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
