"""Loads that a scaler must be good at: each with the limits of the function that bears it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.scaling.simulator import Rate, Workload
from hitless.scaling.bounds import Bounds


@dataclass(frozen=True, slots=True)
class LoadScenario:
    """A named load on a function that begins with so many workers."""

    name: str
    title: str
    workload: Workload
    bounds: Bounds
    workers: int


def steps(*changes: tuple[float, float]) -> Rate:
    """Rate by instant: each rate holds from its instant on; before the first it is 0."""

    def rate(at_s: float) -> float:
        return next((rate for since_s, rate in reversed(changes) if at_s >= since_s), 0.0)

    return rate


def ramp(low: float, high: float, since_s: float, until_s: float) -> Rate:
    """From one rate to another, evenly."""

    def rate(at_s: float) -> float:
        share = min(max((at_s - since_s) / (until_s - since_s), 0.0), 1.0)
        return low + share * (high - low)

    return rate


SCENARIOS: Final = (
    LoadScenario(
        *("constant", "400 requests/s of 10 ms, all the time"),
        Workload(steps((0, 400)), service_s=0.01, duration_s=180),
        Bounds(1, 32, 70),
        workers=1,
    ),
    LoadScenario(
        *("step", "100 → 1,000 requests/s of 10 ms, and back"),
        Workload(steps((0, 100), (20, 1000), (60, 100)), service_s=0.01, duration_s=180),
        Bounds(1, 32, 70),
        workers=2,
    ),
    LoadScenario(
        *("ramp", "50 → 2,000 requests/s of 5 ms within a minute"),
        Workload(ramp(50, 2000, 10, 70), service_s=0.005, duration_s=120),
        Bounds(1, 32, 70),
        workers=1,
    ),
    LoadScenario(
        *("flash-crowd", "50 → 3,000 requests/s of 5 ms at once, and back"),
        Workload(steps((0, 50), (10, 3000), (30, 50)), service_s=0.005, duration_s=150),
        Bounds(1, 32, 70),
        workers=1,
    ),
    LoadScenario(
        *("slow-handler", "10 → 40 requests/s of 0.8 s, and back"),
        Workload(steps((0, 10), (30, 40), (70, 10)), service_s=0.8, duration_s=200),
        Bounds(2, 64, 70),
        workers=16,
    ),
    LoadScenario(
        *("sleep", "a few requests, none for more than a minute, a few again"),
        Workload(steps((5, 2), (15, 0), (110, 2)), service_s=0.02, duration_s=130),
        Bounds(0, 8, 70),
        workers=0,
    ),
)
