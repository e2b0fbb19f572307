"""Words and figures of the dashboard's pages, made from the documents of `status`, `releases` and `pipeline`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from hitless.charts import Axes, Point, nice_ticks
from hitless.receipts.words import seconds_between
from hitless.release.history import RolloutDocument
from hitless.release.receipt import Sums
from hitless.release.status import FunctionStatus, StageStatus, Status

UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
TONES = {
    **dict.fromkeys(("live", "succeeded", "ok"), "good"),
    **dict.fromkeys(("rolled_back", "failed", "rejected", "alarm"), "bad"),
    **dict.fromkeys(("waiting_for_approval", "waiting", "interrupted", "not_enough_data"), "warn"),
    **dict.fromkeys(("running", "queued"), "busy"),
}
"""State or outcome → CSS class. The macro `state` adds a sign, for people who do not tell the colours apart."""


@dataclass(frozen=True, slots=True)
class ErrorPlot:
    """The candidate's failed requests in per cent of its own since the start, and the alarm's limit. `steps` are drawn
    on `axes`, whose heights are `ticks`.
    """

    axes: Axes
    ticks: tuple[float, ...]
    steps: list[Point]
    limit: float | None


def ago(at: str | None, now: datetime) -> str:
    """`3 min`, `2 h`, `5 d`; `-` if it is unknown."""
    if not at:
        return "-"
    seconds = max(0, int((now - datetime.fromisoformat(at)).total_seconds()))
    return next((f"{seconds // unit} {name}" for unit, name in UNITS if seconds >= unit), f"{seconds} s")


def requests_of(status: Status) -> dict[str, int]:
    """Each stage's requests so far, at its workers."""
    return {stage.stage: sum(one.requests or 0 for one in stage.functions) for stage in status.stages}


def functions_of(status: Status | None, stage: str | None) -> Iterator[tuple[StageStatus, FunctionStatus]]:
    for one in (*status.stages, *status.previews) if status else ():
        if not stage or one.stage == stage:
            yield from ((one, function) for function in one.functions)


def error_plot(rollout: RolloutDocument, limit: float | None) -> ErrorPlot | None:
    """None before the first two readings. A shielded request counts as failed, as it does for the alarm."""
    receipt = rollout.receipt
    seen = [
        (seconds_between(rollout.started_at, point.at), 100 * (point.candidate.failed + point.candidate.shielded) / of)
        for point in (receipt.points if receipt else ())
        if isinstance(point.candidate, Sums) and (of := point.candidate.requests)
    ]
    if receipt is None or len(seen) < 2:
        return None
    span_s = max(seconds_between(rollout.started_at, receipt.points[-1].at), 1.0)
    ticks = nice_ticks(max([limit or 0.5, *(value for _, value in seen)]) * 1.25, 4)
    axes = Axes(span_s, ticks[-1], height=220)
    return ErrorPlot(
        axes, ticks, axes.steps([(x, end, value) for (x, value), (end, _) in pairwise([*seen, (span_s, 0.0)])]), limit
    )
