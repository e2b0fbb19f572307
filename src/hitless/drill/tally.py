"""Adds up the senders' records, in limited memory, while the drill runs.

Every record falls into one slot of time (for the plots), one phase (steady or releasing) and, by its header, one
release. A slot keeps its latencies until no more can arrive. Then its percentiles are computed and they go into
the histograms. Invariant: requests = answered + failed, at every moment.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

from hitless.drill.timeline import MICROSECONDS, Timeline, Window
from hitless.drill.wire import FAILURES, RECORD, SEVERED, FailureKind, Flag

FAILED = -1  # in place of a release's number: failed, and no release named
MOMENT_US = 20_000
MAX_MOMENTS = 100_000
MAX_LATENCY_US = 120 * MICROSECONDS
LAG_STEP_US = 50
MAX_LAG_STEPS = 20 * MICROSECONDS // LAG_STEP_US
_AMENDED, _COMPLETE, _SHIELDED = Flag.AMENDED.value, Flag.COMPLETE.value, Flag.SHIELDED.value
_NEW, _REUSED = Flag.NEW_CONNECTION.value, Flag.REUSED.value


@dataclass(slots=True)
class Slot:
    """One interval of the time axis. Latencies are those of complete responses, in milliseconds; None without any."""

    by_release: Counter[int] = field(default_factory=Counter)  # 0: a response without a release; or FAILED
    failures: Counter[FailureKind] = field(default_factory=Counter)
    steady_us: array[int] = field(default_factory=lambda: array("L"))
    releasing_us: array[int] = field(default_factory=lambda: array("L"))
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    closed: bool = False


@dataclass(slots=True)
class FailureCount:
    """The number of failures of a kind, and the time of the first."""

    count: int = 0
    first_us: int = 0
    during: Window | None = None


class Tally:
    """The sums over all records. `add` adds a sender's records; `finish` closes the open slots."""

    def __init__(self, *, slot_s: float, deadline_s: float, timeline: Timeline) -> None:
        self.slot_us = int(slot_s * MICROSECONDS)
        self._grace_us = int(deadline_s * MICROSECONDS) + 2 * MICROSECONDS
        self.timeline = timeline
        self._oldest_open = 0
        self.slots: list[Slot] = []
        self.requests = 0
        self.failed = 0
        self.shielded = 0
        self.new_connections = 0
        self.reused_connections = 0
        self.first_sent_us: int | None = None
        self.last_sent_us = 0
        self.statuses: Counter[tuple[int, int]] = Counter()  # (request's index, status) of complete responses
        self.failed_by_request: Counter[int] = Counter()
        self.failures: dict[FailureKind, FailureCount] = {}
        # failures by (kind, window's number, moment of sending in steps of MOMENT_US); (kind, 0, 0) without a window
        self.moments: Counter[tuple[FailureKind, int, int]] = Counter()
        # requests whose connection ended early: the kind; the times of the dial, the request and the failure, in µs
        self.severed: list[tuple[FailureKind, int, int, int]] = []
        self.answers: Counter[tuple[int, int]] = Counter()  # (release, epoch) of responses that named a release
        self.failed_answers: Counter[tuple[int, int]] = Counter()
        self.lags: Counter[int] = Counter()  # in steps of LAG_STEP_US
        self.steady: Any = HdrHistogram(1, MAX_LATENCY_US, 3)
        self.releasing: Any = HdrHistogram(1, MAX_LATENCY_US, 3)

    @property
    def answered(self) -> int:
        """Requests that did not fail."""
        return self.requests - self.failed

    def add(self, records: bytes) -> None:
        """Count one or more complete records."""
        newest = 0
        for due, latency, lag, age, release, index, status, failure, flags in RECORD.iter_unpack(records):
            if flags & _AMENDED:
                self._fail(FAILURES[failure - 1], due, latency, release, index)
                continue
            slot = self._slot(due)
            window = self.timeline.find(due, due + latency)
            self.requests += 1
            slot.by_release[release or (FAILED if failure else 0)] += 1
            if release:
                self.answers[release, self.timeline.epoch(due)] += 1
            if flags & _COMPLETE:
                self._time(slot, latency, steady=window is None)
                self.statuses[index, status] += 1
            if flags & _SHIELDED:
                self.shielded += 1
                if window is not None:
                    window.shielded += 1
            if flags & _NEW:
                self.new_connections += 1
            elif flags & _REUSED:
                self.reused_connections += 1
            self.lags[min(lag // LAG_STEP_US, MAX_LAG_STEPS)] += 1
            sent = due + lag
            if self.first_sent_us is None or sent < self.first_sent_us:
                self.first_sent_us = sent
            self.last_sent_us = max(self.last_sent_us, sent)
            newest = max(newest, sent)
            if failure:
                if FAILURES[failure - 1] in SEVERED and len(self.severed) < MAX_MOMENTS:
                    self.severed.append((FAILURES[failure - 1], sent - age, sent, due + latency))
                self._fail(FAILURES[failure - 1], due, latency, release, index)
        self._close_before(newest - self._grace_us)

    def add_unsent(self, due_us: int, count: int) -> None:
        """Count requests that were due but have no record, because their sender died."""
        for _ in range(count):
            self.requests += 1
            self._slot(due_us).by_release[FAILED] += 1
            self._fail(FailureKind.NOT_SENT, due_us, 0, 0, -1)

    def recent_p99_ms(self) -> float | None:
        """The 99th percentile of about the last second, for the live line."""
        for slot in reversed(self.slots[-8:]):
            latencies = sorted([*slot.steady_us, *slot.releasing_us])
            if len(latencies) >= 20:
                return latencies[int(len(latencies) * 0.99)] / 1000
        return None

    def finish(self) -> None:
        """Close every slot: no more records come."""
        self._close_before(len(self.slots) * self.slot_us)

    def _fail(self, failure: FailureKind, due: int, latency: int, release: int, index: int) -> None:
        window = self.timeline.find(due, due + latency)
        self.failed += 1
        self._slot(due).failures[failure] += 1
        self.failed_by_request[index] += 1
        if window is not None:
            window.failed += 1
            window.failed_without_release += not release
        moment = (failure, window.number, due // MOMENT_US) if window is not None else (failure, 0, 0)
        if moment in self.moments or len(self.moments) < MAX_MOMENTS:
            self.moments[moment] += 1
        if release:
            self.failed_answers[release, self.timeline.epoch(due)] += 1
        seen = self.failures.setdefault(failure, FailureCount())
        if seen.count == 0 or due < seen.first_us:
            seen.first_us = due
            seen.during = window
        seen.count += 1

    def _time(self, slot: Slot, latency_us: int, *, steady: bool) -> None:
        if slot.closed:  # a sender is far behind: only the histogram still counts it
            (self.steady if steady else self.releasing).record_value(min(max(1, latency_us), MAX_LATENCY_US))
        else:
            (slot.steady_us if steady else slot.releasing_us).append(latency_us)

    def _slot(self, due_us: int) -> Slot:
        number = due_us // self.slot_us
        while number >= len(self.slots):
            self.slots.append(Slot())
        return self.slots[number]

    def _close_before(self, instant_us: int) -> None:
        while self._oldest_open < len(self.slots) and (self._oldest_open + 1) * self.slot_us <= instant_us:
            self._close(self.slots[self._oldest_open])
            self._oldest_open += 1

    def _close(self, slot: Slot) -> None:
        for latencies, histogram in ((slot.steady_us, self.steady), (slot.releasing_us, self.releasing)):
            for latency, count in Counter(latencies).items():
                histogram.record_value(min(max(1, latency), MAX_LATENCY_US), count)
        both = sorted([*slot.steady_us, *slot.releasing_us])
        if both:
            slot.p50_ms, slot.p99_ms, slot.max_ms = (
                both[min(len(both) - 1, int(len(both) * share))] / 1000 for share in (0.5, 0.99, 1.0)
            )
        slot.steady_us, slot.releasing_us = array("L"), array("L")
        slot.closed = True


def slot_s(duration_s: float) -> float:
    """The width of a slot: a second, finer for short drills, coarser for those of hours (at most 3,600 slots)."""
    for width, up_to_s in ((0.25, 30), (0.5, 120), (1.0, 3_600), (5.0, 18_000)):
        if duration_s <= up_to_s:
            return width
    return 30.0


def percentiles_ms(histogram: Any, points: Sequence[tuple[str, float]]) -> dict[str, float | None]:
    """Named percentiles in milliseconds; None if nothing was recorded."""
    if histogram.get_total_count() == 0:
        return {name: None for name, _ in points}
    return {name: round(histogram.get_value_at_percentile(point) / 1000, 3) for name, point in points}
