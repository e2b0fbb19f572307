"""The figures of a pool's stats page: counts, latency, busy workers. Read without a system call."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add, sub
from typing import Final

from hitless.worker.layout import BUCKETS, BUCKETS_AT, SLOT_BYTES, SlotField, StatsPage, WorkerState, bucket_bounds


@dataclass(frozen=True, slots=True)
class Histogram:
    """Latencies in log-linear buckets of microseconds (width at most 6.25 %): `layout.bucket_of`."""

    buckets: tuple[int, ...]
    sum_us: int

    @property
    def count(self) -> int:
        return sum(self.buckets)

    @property
    def mean_us(self) -> float:
        """Their mean, 0 if there are none."""
        count = self.count
        return self.sum_us / count if count else 0.0

    def percentile_us(self, percent: float) -> float | None:
        """The latency that this percentage does not exceed (a bucket's middle); None if there are none."""
        count = self.count
        if not count:
            return None
        wanted = max(count * percent / 100, 1)
        seen = 0
        for index, number in enumerate(self.buckets):
            seen += number
            if seen >= wanted:
                low, high = bucket_bounds(index)
                return (low + high) / 2
        return None

    def count_below(self, bound_us: int) -> int:
        """How many latencies were shorter; exact if a bucket begins at the bound, as at each power of two."""
        pairs = enumerate(self.buckets)
        return sum(number for index, number in pairs if number and bucket_bounds(index)[1] < bound_us)

    def count_above(self, limit_us: float) -> int:
        """How many latencies exceed it: those in buckets that begin there or later."""
        return sum(n for index, n in enumerate(self.buckets) if n and bucket_bounds(index)[0] >= limit_us)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(tuple(map(add, self.buckets, other.buckets)), self.sum_us + other.sum_us)

    def __sub__(self, earlier: Histogram) -> Histogram:
        """The difference to an earlier reading of the same page."""
        return Histogram(tuple(map(sub, self.buckets, earlier.buckets)), self.sum_us - earlier.sum_us)


EMPTY: Final = Histogram((0,) * BUCKETS, 0)


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One worker now; `busy` while it runs a request."""

    pid: int
    state: WorkerState
    busy: bool


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool's counts since it was made, over all its generations. Counters only grow.

    `requests` are those whose worker lived to respond, including the retry guard's refusals; `by_class` maps 2 to 2xx
    …; `errors` are 502 responses because the handler raised or returned a malformed result.
    """

    workers: tuple[WorkerStats, ...]
    requests: int
    by_class: dict[int, int]
    errors: int
    refused: int
    restarts: int
    timeouts: int
    latency: Histogram

    @property
    def failed(self) -> int:
        return self.by_class[5]


@dataclass(frozen=True, slots=True)
class Pulse:
    """A pool at one instant, over all its generations: cheap enough to read many times a second.

    `work_ns` is all time that workers have spent in requests so far, current ones included: its growth over a period is
    the exact mean of busy workers. `ended_us` is that of ended requests alone.
    """

    at_ns: int
    work_ns: int
    ended: int
    ended_us: int
    busy: int


def read_pulse(page: StatsPage, now_ns: int) -> Pulse:
    """The page's current pulse. `now_ns`: CLOCK_MONOTONIC."""
    begun = [since for since in page.column(SlotField.BUSY_SINCE) if since]
    ended_us = sum(page.column(SlotField.LATENCY_SUM_US))
    work_ns = ended_us * 1000 + sum(max(now_ns - since, 0) for since in begun)
    return Pulse(now_ns, work_ns, sum(page.column(SlotField.REQUESTS)), ended_us, len(begun))


def read_stats(page: StatsPage, generation: int) -> PoolStats:
    """The page's current counts; `workers` are those that `generation` wants."""
    used = [index for index, number in enumerate(page.column(SlotField.GENERATION)) if number]
    slots = [page.slot(index).tolist() for index in used]
    total = list(map(sum, zip(*slots, strict=True))) if slots else [0] * (SLOT_BYTES // 8)
    workers = []
    for index in range(page.size(generation)):
        fields = page.slot(page.slot_index(generation, index))
        state, busy = WorkerState(fields[SlotField.STATE]), fields[SlotField.BUSY_SINCE] > 0
        workers.append(WorkerStats(fields[SlotField.PID], state, busy))
    return PoolStats(
        workers=tuple(workers),
        requests=total[SlotField.REQUESTS],
        by_class={number: total[SlotField.CLASS_1XX - 1 + number] for number in range(1, 6)},
        errors=total[SlotField.ERRORS],
        refused=total[SlotField.REFUSED],
        restarts=total[SlotField.RESTARTS],
        timeouts=total[SlotField.TIMEOUTS],
        latency=Histogram(tuple(total[BUCKETS_AT : BUCKETS_AT + BUCKETS]), total[SlotField.LATENCY_SUM_US]),
    )
