"""From what was measured to what is said of it: objections keep the candidate from shipping, notes do not. Pure.

What memory and latency show once may be the machine's doing, or a cache that fills: another round of the same load is
asked for then, and only what every round shows is an objection. Where live's copy was not heard either, nothing is
known of the candidate: that is a doubt, and neither "may ship" nor "may not".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from hitless.pipeline.rehearsal.compare import Difference
from hitless.rollout.alarms import surely_above
from hitless.service.model import AlarmSettings

ROUNDS = 3
GROWTH_MB = 0.4
"""Memory that a candidate's workers gain in one round beyond what live's gain; workers at rest differ by less."""
STEADY = 0.5
"""A leak's last round gains at least so much of what its first did; a cache's does not."""
SLOWER, SLOWER_MS = 3.0, 25.0
"""A candidate's p99 beside live's, at the same load at the same moment: both must be exceeded."""
CROWDED, CROWDED_MS = 1.35, 3.0
"""How much longer a crowd takes on the candidate than on live, beyond what a request alone does: both again."""
ENOUGH = 20
"""Requests that a release must have been sent before anything is said of how it bears load."""
LOST = 0.1
"""Share of the load that may fail before its figures say nothing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One release under load. Times in milliseconds, memory of its workers together in MiB."""

    startup_s: float
    requests: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None
    memory_mb: float
    growth_mb: float
    failures: Mapping[str, int]
    unsent: int = 0
    """Of the failed ones: due, and never sent, by the sender's doing."""

    @property
    def lost(self) -> bool:
        """Whether so much of it failed that its figures say nothing."""
        return self.failed > LOST * self.requests

    def to_json(self) -> dict[str, Any]:
        return {
            "startup_s": self.startup_s,
            "requests": self.requests,
            "failed": self.failed,
            "unsent": self.unsent,
            "latency_ms": {"p50": self.p50_ms, "p99": self.p99_ms},
            "memory_mb": round(self.memory_mb, 1),
            "memory_growth_mb": round(self.growth_mb, 1),
            "failures": dict(self.failures),
        }

    def followed_by(self, later: Measured) -> Measured:
        """Both rounds as one: sums, and the percentiles of the better round."""
        failures = {name: self.failures.get(name, 0) + later.failures.get(name, 0) for name in self.failures}
        percentiles = [one for one in (self, later) if one.p99_ms is not None]
        best = min(percentiles, key=lambda one: one.p99_ms or 0.0, default=self)
        return replace(
            later,
            requests=self.requests + later.requests,
            failed=self.failed + later.failed,
            p50_ms=best.p50_ms,
            p99_ms=best.p99_ms,
            growth_mb=self.growth_mb + later.growth_mb,
            failures={**later.failures, **failures},
            unsent=self.unsent + later.unsent,
        )


Pair = tuple[Measured, Measured]
"""Live's, and the candidate's."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Milliseconds that one request takes alone, and that so many of them at once take together, at best."""

    alone_ms: float
    crowd_ms: float


def of_answers(route: str, found: Sequence[Difference]) -> tuple[list[str], list[str]]:
    """(objections, notes) on one route's answers."""
    objections = [f"{route}: {one}" for one in found if one.breaks]
    return objections, [f"{route}: {one}" for one in found if not one.breaks]


def unheard(asked: int, unanswered: int) -> str:
    """The doubt where live's copy gave no answer to most of what it was asked alone; else nothing."""
    if not asked or 2 * unanswered < asked:
        return ""
    return f"live's copy did not answer {unanswered} of {asked} requests that it was asked one by one"


def too_little(live: Measured, candidate: Measured) -> str:
    """The doubt where the load tells nothing of the candidate: hardly sent, or lost on live's copy as well."""
    for whose, one in (("live's copy", live), ("the candidate", candidate)):
        sent = one.requests - one.unsent
        if sent < ENOUGH or one.unsent > LOST * one.requests:
            return f"{sent} of {one.requests} requests were sent to {whose}, and {ENOUGH} are the least to judge by"
    if live.lost and candidate.lost:
        return (
            f"{candidate.failed} of {candidate.requests} requests failed on the candidate, and"
            f" {live.failed} of {live.requests} on live's copy beside it"
        )
    return ""


def of_rollout(result: Mapping[str, Any], alarms: AlarmSettings) -> tuple[str, str]:
    """(objection, doubt) on how the candidate's rollout over live's copy ended. An alarm is held against the candidate
    alone where live did not fail by more than the alarm allows in the same time.
    """
    if result["outcome"] in ("live", "unchanged"):
        return "", ""
    said = f"the rollout would have been {result['outcome'].replace('_', ' ')}: {result['reason']}"
    live = result["live"] or {"requests": 0, "failed": 0}
    if surely_above(live["failed"], live["requests"], alarms.error_rate_percent):
        return "", f"{said}; but live's copy failed {live['failed']} of {live['requests']} requests meanwhile"
    return said, ""


def totals(rounds: Sequence[Pair]) -> Pair:
    """All rounds as one."""
    live, candidate = rounds[0]
    for later in rounds[1:]:
        live, candidate = live.followed_by(later[0]), candidate.followed_by(later[1])
    return live, candidate


def in_doubt(rounds: Sequence[Pair], alarms: AlarmSettings) -> bool:
    """Whether another round is needed: so far every one shows a leak, or a candidate that is slower."""
    return len(rounds) < ROUNDS and bool(_leak(rounds) or _slower(rounds, alarms))


def of_load(rounds: Sequence[Pair], alarms: AlarmSettings) -> list[str]:
    """Objections to how the candidate bore the load beside live."""
    live, candidate = totals(rounds)
    failures = [
        f"{name} failed {count} times under load, live's never"
        for name, count in candidate.failures.items()
        if count and not live.failures.get(name)
    ]
    if candidate.lost and not live.lost and not failures:
        failures = [
            f"{candidate.failed} of {candidate.requests} requests failed under load,"
            f" live's {live.failed} of {live.requests}"
        ]
    found = (_leak(rounds), _slower(rounds, alarms))
    return [*failures, *(sentence for sentence in found if sentence)]


def of_crowd(route: str, size: int, workers: int, tries: Sequence[tuple[Crowd, Crowd]]) -> list[str]:
    """Objection where every try shows that requests wait for each other on the candidate, and on live do not.

    A handler that has merely become slower is so alone, too: that is for `of_load`, and the stage's alarms.
    """
    if not tries or not all(_waits(size / workers, *one) for one in tries):
        return []
    live, candidate = min(tries, key=lambda one: one[1].crowd_ms)
    return [
        f"{route}: {size} at once take {candidate.crowd_ms:.1f} ms, live's {live.crowd_ms:.1f} ms, and one alone"
        f" {candidate.alone_ms:.1f} ms, live's {live.alone_ms:.1f} ms: they wait for each other (a lock?)"
    ]


def _waits(turns: float, live: Crowd, candidate: Crowd) -> bool:
    """`turns`: how many requests each worker has. At least so many times what one takes alone is nobody's lock."""
    slower_alone = max(1.0, candidate.alone_ms / max(live.alone_ms, 0.1))
    expected_ms = max(live.crowd_ms * slower_alone, candidate.alone_ms * ceil(turns))
    return candidate.crowd_ms > CROWDED * expected_ms and candidate.crowd_ms - expected_ms > CROWDED_MS


def _leak(rounds: Sequence[Pair]) -> str:
    gained = [candidate.growth_mb - max(0.0, live.growth_mb) for live, candidate in rounds]
    if min(gained) <= GROWTH_MB or gained[-1] < STEADY * gained[0]:
        return ""
    live, candidate = totals(rounds)
    kib = 1024 * (candidate.growth_mb - max(0.0, live.growth_mb)) / max(1, candidate.requests)
    return (
        f"its workers gained {candidate.growth_mb:.1f} MiB in {candidate.requests} requests ({kib:.1f} KiB each) and"
        f" went on gaining, live's {live.growth_mb:.1f} MiB: it leaks memory"
    )


def _slower(rounds: Sequence[Pair], alarms: AlarmSettings) -> str:
    found = [_slower_once(live, candidate, alarms) for live, candidate in rounds]
    return found[-1] if all(found) else ""


def _slower_once(live: Measured, candidate: Measured, alarms: AlarmSettings) -> str:
    old, new = live.p99_ms, candidate.p99_ms
    if old is not None and new is not None and new > SLOWER * old and new - old > SLOWER_MS:
        return f"its p99 is {new:g} ms under the same load, live's {old:g} ms"
    if new is not None and alarms.p99_ms is not None and new > alarms.p99_ms and (old or 0) <= alarms.p99_ms:
        return f"its p99 is {new:g} ms, above the alarm's {alarms.p99_ms:g} ms; live's is {old:g} ms"
    return ""


def sentence(
    live: Measured | None, candidate: Measured | None, objections: Sequence[str], doubts: Sequence[str]
) -> str:
    """The whole in a line for people."""
    if objections:
        return f"it may not ship: {'; '.join(objections)}"
    if doubts:
        return f"undecided, too little was seen: {'; '.join(doubts)}"
    if live is None or candidate is None:
        return "it may ship; it was not seen under load"
    return (
        f"it may ship: start-up {candidate.startup_s:.2f} s (live {live.startup_s:.2f} s), p99 {candidate.p99_ms} ms"
        f" ({live.p99_ms} ms), memory {candidate.memory_mb:.0f} MiB ({live.memory_mb:.0f} MiB),"
        f" {candidate.requests + live.requests} requests"
    )
