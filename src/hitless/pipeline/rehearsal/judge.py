"""From what was measured to what is said of it: objections keep the candidate from shipping, notes do not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hitless.pipeline.rehearsal.compare import Difference
from hitless.service.model import AlarmSettings

GROWTH_MB = 8.0
GROWTH_SHARE = 0.25
"""Memory that a candidate gained under the same load beyond what live gained: more than both of these is a leak."""
SLOWER, SLOWER_MS = 3.0, 25.0
"""A candidate's p99 beside live's, at the same load at the same moment: both must be exceeded."""


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

    def to_json(self) -> dict[str, Any]:
        return {
            "startup_s": self.startup_s,
            "requests": self.requests,
            "failed": self.failed,
            "latency_ms": {"p50": self.p50_ms, "p99": self.p99_ms},
            "memory_mb": round(self.memory_mb, 1),
            "memory_growth_mb": round(self.growth_mb, 1),
            "failures": dict(self.failures),
        }


def of_answers(route: str, found: Sequence[Difference]) -> tuple[list[str], list[str]]:
    """(objections, notes) on one route's answers."""
    objections = [f"{route}: {one}" for one in found if one.breaks]
    return objections, [f"{route}: {one}" for one in found if not one.breaks]


def of_load(live: Measured, candidate: Measured, alarms: AlarmSettings) -> list[str]:
    """Objections to how the candidate bore the load beside live."""
    objections = []
    for name, count in candidate.failures.items():
        if count and not live.failures.get(name):
            objections.append(f"{name} failed {count} times under load, live's never")
    gained = candidate.growth_mb - live.growth_mb
    if gained > max(GROWTH_MB, GROWTH_SHARE * live.memory_mb):
        objections.append(
            f"its workers gained {candidate.growth_mb:.0f} MiB in {candidate.requests} requests, live's"
            f" {live.growth_mb:.0f} MiB: it leaks memory"
        )
    old, new = live.p99_ms, candidate.p99_ms
    if old is not None and new is not None and new > SLOWER * old and new - old > SLOWER_MS:
        objections.append(f"its p99 is {new:g} ms under the same load, live's {old:g} ms")
    elif new is not None and alarms.p99_ms is not None and new > alarms.p99_ms and (old or 0) <= alarms.p99_ms:
        objections.append(f"its p99 is {new:g} ms, above the alarm's {alarms.p99_ms:g} ms; live's is {old:g} ms")
    return objections


def sentence(live: Measured | None, candidate: Measured | None, objections: Sequence[str]) -> str:
    """The whole in a line for people."""
    if objections:
        return f"it may not ship: {'; '.join(objections)}"
    if live is None or candidate is None:
        return "it may ship"
    return (
        f"it may ship: start-up {candidate.startup_s:.2f} s (live {live.startup_s:.2f} s), p99 {candidate.p99_ms} ms"
        f" ({live.p99_ms} ms), memory {candidate.memory_mb:.0f} MiB ({live.memory_mb:.0f} MiB),"
        f" {candidate.requests + live.requests} requests"
    )
