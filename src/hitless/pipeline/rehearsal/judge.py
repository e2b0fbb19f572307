"""Turns measurements into objections, which block the candidate, and doubts, which leave the result open. Pure.

Memory and latency that one round shows may be the machine's doing, or a cache that fills. Then another round of the
same load follows, and only what every round shows is an objection. If live's copy was not heard either, nothing is
known of the candidate: that is a doubt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import msgspec
from msgspec.structs import replace

from hitless.release.result import SideCounts
from hitless.rollout.alarms import is_above
from hitless.service.model import AlarmSettings

ROUNDS = 3
GROWTH_MB = 0.4
"""A candidate's workers gain more memory than live's in one round; idle workers differ by less than this."""
STEADY = 0.5
"""The last round of a leak gains at least this share of the first; that of a cache does not."""
SLOWER, SLOWER_MS = 3.0, 25.0
"""A candidate is slower if its p99 exceeds live's by this factor and by these milliseconds."""
CROWDED, CROWDED_MS = 1.35, 3.0
"""A crowd takes longer than expected by this factor and by these milliseconds."""
ENOUGH = 20
"""Requests that a release needs before its load is judged."""
NO_LOAD = "no request was sent as load, because no safe or idempotent one gets a 2xx: add `smoke` or `idempotent`"
"""Nothing is known of a candidate that has routes; a release without any is only started."""
LOST = 0.1
"""Beyond this share of failed requests the figures of the load say nothing."""


class Percentiles(msgspec.Struct, frozen=True):
    """Latency of complete responses, in milliseconds; None if there was none."""

    p50: float | None
    p99: float | None


class Measured(msgspec.Struct, frozen=True, kw_only=True, rename={"growth_mb": "memory_growth_mb"}):
    """One release under load. Memory is that of its workers together, in MiB."""

    startup_s: float
    requests: int
    failed: int
    unsent: int = 0
    """Failed requests that were due but never sent, which is the sender's fault."""
    latency_ms: Percentiles
    memory_mb: float
    growth_mb: float
    failures: Mapping[str, int]

    @property
    def lost(self) -> bool:
        """Whether so much of it failed that its figures say nothing."""
        return self.failed > LOST * self.requests

    def rounded(self) -> Measured:
        """A copy with rounded figures, for people."""
        return replace(self, memory_mb=round(self.memory_mb, 1), growth_mb=round(self.growth_mb, 1))

    def followed_by(self, later: Measured) -> Measured:
        """Two rounds as one: sums, and the percentiles of the better round."""
        failures = {name: self.failures.get(name, 0) + later.failures.get(name, 0) for name in self.failures}
        latencies = [one.latency_ms for one in (self, later) if one.latency_ms.p99 is not None]
        return replace(
            later,
            requests=self.requests + later.requests,
            failed=self.failed + later.failed,
            latency_ms=min(latencies, key=lambda one: one.p99 or 0.0, default=self.latency_ms),
            growth_mb=self.growth_mb + later.growth_mb,
            failures={**later.failures, **failures},
            unsent=self.unsent + later.unsent,
        )


Pair = tuple[Measured, Measured]
"""Live's and the candidate's."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """The shortest milliseconds of one request alone, and of several at once together."""

    alone_ms: float
    crowd_ms: float


def unheard(asked: int, unanswered: int) -> str:
    """The doubt if live's copy did not respond to at least half of the single requests."""
    if not asked or 2 * unanswered < asked:
        return ""
    return f"live's copy did not answer {unanswered} of {asked} single requests"


def too_little(live: Measured, candidate: Measured) -> str:
    """The doubt if the load says nothing of the candidate: hardly sent, or lost on live's copy as well."""
    for whose, one in (("live's copy", live), ("the candidate", candidate)):
        sent = one.requests - one.unsent
        if sent < ENOUGH or one.unsent > LOST * one.requests:
            return f"{sent} of {one.requests} requests were sent to {whose}; at least {ENOUGH} are needed"
    if live.lost and candidate.lost:
        return (
            f"{candidate.failed} of {candidate.requests} requests failed on the candidate, and"
            f" {live.failed} of {live.requests} on live's copy beside it"
        )
    return ""


def of_rollout(outcome: str, reason: str | None, live: SideCounts | None, alarms: AlarmSettings) -> tuple[str, str]:
    """(objection, doubt) on how the candidate's rollout over live's copy ended. An alarm counts against the candidate
    only if live did not fail more than the alarm allows in the same time.
    """
    if outcome in ("live", "unchanged"):
        return "", ""
    said = f"the rollout would have been {outcome.replace('_', ' ')}: {reason}"
    if live and is_above(live.failed, live.requests, alarms.error_rate_percent):
        return "", f"{said}; but live's copy failed {live.failed} of {live.requests} requests in the same time"
    return said, ""


def totals(rounds: Sequence[Pair]) -> Pair:
    """All rounds as one."""
    live, candidate = rounds[0]
    for later in rounds[1:]:
        live, candidate = live.followed_by(later[0]), candidate.followed_by(later[1])
    return live, candidate


def in_doubt(rounds: Sequence[Pair], alarms: AlarmSettings) -> bool:
    """Whether another round is needed, because every one so far shows a leak or a slower candidate."""
    return len(rounds) < ROUNDS and bool(_leak(rounds) or _slower(rounds, alarms))


def of_load(rounds: Sequence[Pair], alarms: AlarmSettings) -> list[str]:
    """Objections from the load beside live."""
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
    """The objection if every try shows that requests wait for each other on the candidate but not on live.

    A handler that is merely slower is slower alone, too: `of_load` and the stage's alarms find that.
    """
    if not tries or not all(_waits(size / workers, *one) for one in tries):
        return []
    live, candidate = min(tries, key=lambda one: one[1].crowd_ms)
    return [
        f"{route}: {size} at once take {candidate.crowd_ms:.1f} ms, live's {live.crowd_ms:.1f} ms, and one alone"
        f" {candidate.alone_ms:.1f} ms, live's {live.alone_ms:.1f} ms: they wait for each other (a lock?)"
    ]


def _waits(turns: float, live: Crowd, candidate: Crowd) -> bool:
    """`turns`: the requests of each worker. So many times the time of one alone is expected without a lock."""
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
        f" kept growing, live's {live.growth_mb:.1f} MiB: it leaks memory"
    )


def _slower(rounds: Sequence[Pair], alarms: AlarmSettings) -> str:
    found = [_slower_once(live, candidate, alarms) for live, candidate in rounds]
    return found[-1] if all(found) else ""


def _slower_once(live: Measured, candidate: Measured, alarms: AlarmSettings) -> str:
    old, new = live.latency_ms.p99, candidate.latency_ms.p99
    if old is not None and new is not None and new > SLOWER * old and new - old > SLOWER_MS:
        return f"its p99 is {new:g} ms under the same load, live's {old:g} ms"
    if new is not None and alarms.p99_ms is not None and new > alarms.p99_ms and (old or 0) <= alarms.p99_ms:
        return f"its p99 is {new:g} ms, above the alarm's {alarms.p99_ms:g} ms; live's is {old:g} ms"
    return ""


def sentence(
    live: Measured | None, candidate: Measured | None, objections: Sequence[str], doubts: Sequence[str]
) -> str:
    """The result in one line for people."""
    if objections:
        return f"it may not ship: {'; '.join(objections)}"
    if doubts:
        return f"undecided: {'; '.join(doubts)}"
    if live is None or candidate is None:
        return "it may ship; it was not tested under load"
    return (
        f"it may ship: start-up {candidate.startup_s:.2f} s (live {live.startup_s:.2f} s),"
        f" p99 {candidate.latency_ms.p99} ms ({live.latency_ms.p99} ms),"
        f" memory {candidate.memory_mb:.0f} MiB ({live.memory_mb:.0f} MiB),"
        f" {candidate.requests + live.requests} requests"
    )
