"""Words and figures of the dashboard's pages, made from the documents of `status`, `releases` and `pipeline`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from hitless.charts import Axes, Point, nice_ticks
from hitless.receipts.words import seconds_between
from hitless.release.history import RolloutDocument
from hitless.release.receipt import Sums
from hitless.release.status import CandidateStatus, FunctionStatus, StageStatus, Status
from hitless.service.model import Home

UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
TONES = {
    **dict.fromkeys(("live", "succeeded", "ok"), "good"),
    **dict.fromkeys(("rolled_back", "failed", "rejected", "alarm"), "bad"),
    **dict.fromkeys(("waiting_for_approval", "waiting", "interrupted", "not_enough_data"), "warn"),
    **dict.fromkeys(("running", "queued"), "busy"),
}
"""State or outcome → CSS class. The macro `state` adds a sign, for people who do not tell the colours apart."""


@dataclass(frozen=True, slots=True)
class RolloutPlot:
    """Values over the seconds since a rollout's start: lines by CSS class, on `axes` whose heights are `ticks`, and the
    limit of an alarm.
    """

    axes: Axes
    ticks: tuple[float, ...]
    lines: dict[str, list[Point]]
    limit: float | None


def ago(at: str | None, now: datetime) -> str:
    """`3 min`, `2 h`, `5 d`; `-` if it is unknown."""
    if not at:
        return "-"
    seconds = max(0, int((now - datetime.fromisoformat(at)).total_seconds()))
    return next((f"{seconds // unit} {name}" for unit, name in UNITS if seconds >= unit), f"{seconds} s")


def requests_of(status: Status) -> dict[str, int]:
    """Each stage's requests so far, at its workers. Stages on AWS have no count."""
    here = (stage for stage in status.stages if stage.home is not Home.AWS)
    return {stage.stage: sum(one.requests or 0 for one in stage.functions) for stage in here}


def functions_of(status: Status | None, stage: str | None) -> Iterator[tuple[StageStatus, FunctionStatus]]:
    for one in (*status.stages, *status.previews) if status else ():
        if not stage or one.stage == stage:
            yield from ((one, function) for function in one.functions)


def error_plot(rollout: RolloutDocument, limit: float | None) -> RolloutPlot | None:
    """The failed requests of both releases in per cent of their own since the start; None before two readings. A
    shielded request counts as failed, as it does for the alarm.
    """
    points = rollout.receipt.points if rollout.receipt else ()
    lines = {
        side: [
            (seconds_between(rollout.started_at, point.at), 100 * (sums.failed + sums.shielded) / sums.requests)
            for point in points
            if isinstance(sums := getattr(point, side), Sums) and sums.requests
        ]
        for side in ("live", "candidate")
    }
    return _plot(lines, limit) if len(lines["candidate"]) > 1 else None


def latency_plot(
    rollout: RolloutDocument, seen: Sequence[tuple[str, CandidateStatus]], limit_ms: float | None
) -> RolloutPlot | None:
    """p50 and p99 of both releases since their workers started; None before two readings. A limit far above all of
    them is not drawn, because the lines would be flat.
    """
    lines: dict[str, list[tuple[float, float]]] = {
        name: [] for name in ("live", "live p50", "candidate", "candidate p50")
    }
    for at, one in seen:
        at_s = seconds_between(rollout.started_at, at)
        for side, latency in (("live", one.live_latency_ms), ("candidate", one.latency_ms)):
            if latency and at_s >= 0:
                lines[side].append((at_s, latency.p99))
                lines[f"{side} p50"].append((at_s, latency.p50))
    if len(lines["candidate"]) < 2:
        return None
    most = max(value for _, value in lines["candidate"] + lines["live"])
    return _plot(lines, limit_ms if limit_ms and limit_ms < 4 * most else None)


def _plot(lines: Mapping[str, Sequence[tuple[float, float]]], limit: float | None) -> RolloutPlot:
    span_s = max(1.0, *(at_s for seen in lines.values() for at_s, _ in seen))
    ticks = nice_ticks(max([limit or 0.5, *(value for seen in lines.values() for _, value in seen)]) * 1.25, 4)
    axes = Axes(span_s, ticks[-1], height=220)
    drawn = {
        name: axes.steps([(start, end, value) for (start, value), (end, _) in pairwise([*seen, (span_s, 0.0)])])
        for name, seen in lines.items()
    }
    return RolloutPlot(axes, ticks, drawn, limit)
