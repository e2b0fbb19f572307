"""The time axis of the report: the tally's slots, put together into as many columns as a plot can show. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hitless.drill.tally import Slot
from hitless.drill.timeline import MICROSECONDS
from hitless.drill.wire import Failure

MAX_COLUMNS = 320


@dataclass(frozen=True, slots=True)
class Column:
    """A stretch of time. Counts are per second; latencies the worst of the slots (p50: their mean), in milliseconds."""

    at_s: float
    width_s: float
    by_release: dict[int, float]
    failures: dict[Failure, int]
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


def columns(slots: Sequence[Slot], slot_us: int, end_s: float) -> tuple[Column, ...]:
    """At most MAX_COLUMNS columns of equal width but for the last, which ends where the load ended."""
    each = -(-len(slots) // MAX_COLUMNS) or 1
    width_s = each * slot_us / MICROSECONDS
    starts = [(first, first * slot_us / MICROSECONDS) for first in range(0, len(slots), each)]
    return tuple(
        _column(slots[first : first + each], at_s, min(width_s, max(end_s - at_s, width_s / 20)))
        for first, at_s in starts
    )


def _column(slots: Sequence[Slot], at_s: float, width_s: float) -> Column:
    by_release: Counter[int] = Counter()
    failures: Counter[Failure] = Counter()
    for slot in slots:
        by_release += slot.by_release
        failures += slot.failures
    halves = [slot.p50_ms for slot in slots if slot.p50_ms is not None]
    return Column(
        at_s,
        width_s,
        {release: count / width_s for release, count in by_release.items()},
        dict(failures),
        sum(halves) / len(halves) if halves else None,
        max((slot.p99_ms for slot in slots if slot.p99_ms is not None), default=None),
        max((slot.max_ms for slot in slots if slot.max_ms is not None), default=None),
    )


def nice_ticks(most: float, count: int = 5) -> tuple[float, ...]:
    """About `count` round values from 0 to at least `most`."""
    if most <= 0:
        return (0.0, 1.0)
    power = 10.0 ** math.floor(math.log10(most / count))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * count >= most * 0.999)
    return tuple(round(step * number, 9) for number in range(math.ceil(most / step - 0.001) + 1))


def time_step_s(span_s: float, count: int = 12) -> float:
    """A round distance of the time axis's ticks."""
    for step in (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800):
        if span_s / step <= count:
            return step
    return 21_600


def log_ticks(least: float, most: float) -> tuple[float, ...]:
    """1, 10, 100 … around the values, and the 2s and 5s where that gives few."""
    powers = [10.0**exponent for exponent in range(-3, 7)]
    low = max((power for power in powers if power <= least), default=powers[0])
    high = min((power for power in powers if power >= most), default=powers[-1])
    return tuple(power for power in powers if low <= power <= max(high, low * 10))
