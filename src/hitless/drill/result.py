"""The result of a drill: its document, the exit code and the headline."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hdrh.histogram import HdrHistogram

from hitless.clock import timestamp
from hitless.documents import to_plain
from hitless.drill.document import (
    DrillDocument,
    DrilledRelease,
    DrilledStep,
    FailureRow,
    FaultRow,
    LeftOut,
    MomentRow,
    RequestRow,
)
from hitless.drill.pace import Pace
from hitless.drill.plan import DrillPlan
from hitless.drill.tally import LAG_STEP_US, MAX_LATENCY_US, MOMENT_US, Tally, percentiles_ms
from hitless.drill.timeline import Window, WorkerSample
from hitless.drill.wire import FailureKind, FailureSample
from hitless.release.result import whole

POINTS = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("max", 100.0))
SHORT_POINTS = (("p50", 50.0), ("p99", 99.0), ("max", 100.0))
LATE_MS = 10.0
SEEN_LATE_US = 1_000_000
"""How long a busy sender may still use a connection whose other end has gone."""


@dataclass(frozen=True, slots=True)
class ShippedRelease:
    """One release of the drill: its scenario and its outcome. `candidate` is the gateway's count of its requests."""

    scenario: str
    expected: str
    outcome: str
    release: int | None
    reason: str | None
    candidate: Mapping[str, Any] | None
    window: Window
    interrupted: bool = False
    new: bool = True  # made by this drill, so all responses with its number are its own

    @property
    def as_expected(self) -> bool:
        """Whether the rollout ended as its scenario says, or a fault struck it after which it may end in any way."""
        return self.interrupted or self.outcome == self.expected

    @property
    def duration_s(self) -> float:
        """The time from the command's start to its end."""
        return ((self.window.end_us or self.window.start_us) - self.window.start_us) / 1e6


@dataclass(frozen=True, slots=True)
class DrillResult:
    """Everything that a drill measured. `started_at` is when the first request was due."""

    plan: DrillPlan
    target: str
    started_at: datetime
    tally: Tally
    releases: tuple[ShippedRelease, ...]
    restored: ShippedRelease | None
    faults: tuple[Window, ...]
    left_out: tuple[LeftOut, ...]
    samples: tuple[FailureSample, ...]
    connections: Mapping[str, int]
    notices: tuple[str, ...]
    interrupted: bool
    workers: tuple[WorkerSample, ...] = ()
    receipts: tuple[Mapping[str, Any], ...] = ()
    """The engine's receipts of this drill's rollouts: `{release, rollout}`, as `hitless releases N` has them."""

    @property
    def shipped(self) -> int:
        """Releases that went live."""
        return sum(one.outcome == "live" for one in self.releases)

    @property
    def surprises(self) -> tuple[str, ...]:
        """Unexpected outcomes other than failed requests, a sentence each."""
        found = [
            f"{one.scenario} ended {one.outcome}, expected {one.expected}" + (f": {one.reason}" if one.reason else "")
            for one in self._all_releases()
            if not one.as_expected
        ]
        found += [
            f"{one.label} at {one.start_us / 1e6:.1f} s: no recovery" for one in self.faults if one.recovered_ms is None
        ]
        done, planned = len(self.releases) + len(self.faults), len(self.plan.scenarios) + len(self.plan.faults)
        if self.interrupted and done < planned:
            found.append(f"interrupted after {done} of {planned} releases and faults")
        return tuple(found)

    @property
    def exit_code(self) -> int:
        """6 if a request failed that is not excused, else 1 if an outcome was unexpected, else 0."""
        if self.tally.failed > self.excused().total():
            return 6
        return 1 if self.surprises else 0

    @property
    def loss(self) -> str:
        """The most frequent kind of failure, and everything that may have distorted the figures."""
        worst = max(self.tally.failures.items(), key=lambda item: item[1].count)[0]
        return "; ".join((f"most of them: {worst}", *self.notices))

    @property
    def headline(self) -> str:
        """`0 of 120,000 requests failed while 30 releases shipped`."""
        noun = "release" if self.shipped == 1 else "releases"
        while_ = f" while {self.shipped:,} {noun} shipped" if self.plan.scenarios else ""
        excused = self.excused().total()
        but = f", {excused:,} of them excused" if excused else ""
        return f"{self.tally.failed:,} of {self.tally.requests:,} requests failed{but}{while_}"

    def excused(self, *faults: Window) -> Counter[FailureKind]:
        """Requests whose connection was open on a gateway when one of these faults (all by default) killed it.

        A connection dialled before the kill is the killed process's, even if its sender sees the end later. One dialled
        while the gateway ended may be the next one's, so its request must have been sent by then.
        """
        ends = [end for fault in faults or self.faults for end in fault.gateway_ends]
        return Counter(
            failure
            for failure, dialled_us, sent_us, done_us in self.tally.severed
            if any(
                done_us >= since_us and sent_us <= gone_us + (SEEN_LATE_US if dialled_us <= since_us else 0)
                for since_us, gone_us in ends
            )
        )

    @property
    def duration_s(self) -> float:
        """The time during which requests were due: longer than planned if the rollouts took longer."""
        return round(Pace(self.plan.pace.pieces).due_ns(self.tally.requests) / 1e9, 3)

    @property
    def lag_ms(self) -> dict[str, float]:
        """How late the generator sent requests."""
        return {name: _lag_ms(self.tally, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}

    def failed_of(self, one: ShippedRelease) -> int:
        """Failures of a release: those whose response names it, and those without a name during its rollout."""
        return self._sum(self.tally.failed_answers, one) + one.window.failed_without_release

    def _sum(self, counts: Mapping[tuple[int, int], int], one: ShippedRelease) -> int:
        """Responses that named the release, from this rollout of it until the next one of the same number."""
        since = 0 if one.new else one.window.number
        again = [
            o.window.number
            for o in self._all_releases()
            if o.release == one.release and o.window.number > one.window.number
        ]
        until = min(again, default=sys.maxsize)
        return sum(
            count for (release, epoch), count in counts.items() if release == one.release and since <= epoch < until
        )

    def to_json(self) -> dict[str, Any]:
        """The document as the command line prints it."""
        return dict(to_plain(self.document()))

    def document(self) -> DrillDocument:
        """All results of the drill."""
        tally = self.tally
        sent_s = max(1e-9, (tally.last_sent_us - (tally.first_sent_us or 0)) / 1e6)
        statuses: Counter[int] = Counter()
        for (_, status), count in tally.statuses.items():
            statuses[status] += count
        both: Any = HdrHistogram(1, MAX_LATENCY_US, 3)
        both.add(tally.steady)
        both.add(tally.releasing)
        return DrillDocument(
            target=self.target,
            requests=tally.requests,
            answered=tally.answered,
            failed=tally.failed,
            excused=self.excused().total(),
            failures=self._failures(),
            failures_by_moment=self.failures_by_moment(),
            rate_asked_per_s=whole(self.plan.asked_per_s),
            profile=self.plan.profile,
            arrivals="even" if self.plan.seed is None else "poisson",
            protocol="h2" if self.plan.http2 else "h1",
            rate_sent_per_s=round((tally.requests - 1) / sent_s, 1) if tally.requests > 1 else None,
            duration_s=self.duration_s,
            latency_ms=percentiles_ms(both, POINTS),
            latency_steady_ms=percentiles_ms(tally.steady, SHORT_POINTS),
            latency_releasing_ms=percentiles_ms(tally.releasing, SHORT_POINTS),
            releases=[self._release(one) for one in self.releases],
            restored=self._release(self.restored) if self.restored else None,
            faults=[self._fault(one) for one in self.faults],
            faults_left_out=self.plan.faults_left_out,
            shielded=tally.shielded,
            report=str(self.plan.report),
            started_at=timestamp(self.started_at),
            statuses={str(status): count for status, count in sorted(statuses.items())},
            unexpected_statuses=self.unexpected_statuses(),
            by_request=self._by_request(),
            left_out=self.left_out,
            connections={"new": tally.new_connections, "reused": tally.reused_connections, **self.connections},
            sender_lag_ms=self.lag_ms,
            samples=self.samples,
            workers=self.workers,
            receipts=self.receipts,
            notices=self.notices,
            surprises=self.surprises,
            interrupted=self.interrupted,
            command=self.plan.command,
        )

    def unexpected_statuses(self) -> int:
        """Responses below 500 with another status than the request expects or the probe got: counted, not failed."""
        wanted = [request.status for request in self.plan.requests]
        return sum(
            count for (index, status), count in self.tally.statuses.items() if status < 500 and status != wanted[index]
        )

    def _failures(self) -> list[FailureRow]:
        rows = {kind: FailureRow(kind, 0, 0, None, None) for kind in FailureKind}
        excused = self.excused()
        for kind, seen in self.tally.failures.items():
            first_at = timestamp(self.started_at + timedelta(microseconds=seen.first_us))
            rows[kind] = FailureRow(
                kind, seen.count, excused[kind], first_at, seen.during.label if seen.during else None
            )
        return [*rows.values()]

    def failures_by_moment(self) -> list[MomentRow]:
        """Failures by kind, and by the rollout or fault during which they were sent, most first."""
        windows = {one.number: one for one in self.tally.timeline.windows}
        sums: Counter[tuple[str | None, str | None, FailureKind]] = Counter()
        for (kind, number, moment), count in self.tally.moments.items():
            window = windows.get(number)
            state = window.state_at(moment * MOMENT_US + MOMENT_US // 2) if window else None
            sums[window.label if window else None, state, kind] += count
        return [MomentRow(during, state, kind, count) for (during, state, kind), count in sums.most_common()]

    def _all_releases(self) -> tuple[ShippedRelease, ...]:
        return (*self.releases, *((self.restored,) if self.restored else ()))

    def _release(self, one: ShippedRelease) -> DrilledRelease:
        return DrilledRelease(
            release=one.release,
            scenario=one.scenario,
            expected=one.expected,
            outcome=one.outcome,
            reason=one.reason,
            at_s=round(one.window.start_us / 1e6, 3),
            duration_s=round(one.duration_s, 3),
            requests=self._sum(self.tally.answers, one),
            failed=self.failed_of(one),
            failed_meanwhile=one.window.failed,
            shielded=one.window.shielded,
            gateway=one.candidate or None,
            steps=[
                DrilledStep(round(step.start_us / 1e6, 3), step.state, step.weight_percent)
                for step in one.window.phases
            ],
        )

    def _fault(self, one: Window) -> FaultRow:
        at_s, recovered = round(one.start_us / 1e6, 3), one.recovered_ms is not None
        return FaultRow(one.label, at_s, one.failed, self.excused(one).total(), one.recovered_ms, recovered)

    def _by_request(self) -> list[RequestRow]:
        statuses: list[dict[str, int]] = [{} for _ in self.plan.requests]
        for (index, status), count in sorted(self.tally.statuses.items()):
            statuses[index][str(status)] = count
        return [
            RequestRow(request.name, self.tally.failed_by_request.get(index, 0), statuses[index])
            for index, request in enumerate(self.plan.requests)
        ]


def _lag_ms(tally: Tally, share: float) -> float:
    """A percentile of the lag: the upper edge of its step; 0 without any request."""
    wanted = share * sum(tally.lags.values())
    seen = 0
    for step, count in sorted(tally.lags.items()):
        seen += count
        if seen >= wanted:
            return round((step + 1) * LAG_STEP_US / 1000, 2)
    return 0.0
