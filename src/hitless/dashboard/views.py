"""Words and figures of the dashboard's pages, made from the documents of `status`, `releases` and `pipeline`. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise

from hitless.charts import Axes, Point, nice_ticks
from hitless.engine.recent import RecentSample
from hitless.receipts.words import seconds_between
from hitless.release.history import RolloutDocument
from hitless.release.receipt import Sums

Value = tuple[float, float | None]
"""Seconds, and a figure; None is a gap."""
HOUR_S, COLUMN_S, COLUMNS = 3600, 20, 240
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
    """Values over time: the parts of each line by CSS class, on `axes` whose heights are `ticks`, and the limit of an
    alarm.
    """

    axes: Axes
    ticks: tuple[float, ...]
    lines: dict[str, list[list[Point]]]
    limit: float | None


def ago(at: str | None, now: datetime) -> str:
    """`3 min`, `2 h`, `5 d`; `-` if it is unknown."""
    if not at:
        return "-"
    seconds = max(0, int((now - datetime.fromisoformat(at)).total_seconds()))
    return next((f"{seconds // unit} {name}" for unit, name in UNITS if seconds >= unit), f"{seconds} s")


def error_plot(rollout: RolloutDocument, limit: float | None) -> RolloutPlot | None:
    """The failed requests of both releases in per cent of their own since the start; None before two readings. A
    shielded request counts as failed, as it does for the alarm.
    """
    points = rollout.receipt.points if rollout.receipt else ()
    lines: dict[str, list[Value]] = {
        side: [
            (seconds_between(rollout.started_at, point.at), 100 * (sums.failed + sums.shielded) / sums.requests)
            for point in points
            if isinstance(sums := getattr(point, side), Sums) and sums.requests
        ]
        for side in ("live", "candidate")
    }
    return _plot(lines, limit) if len(lines["candidate"]) > 1 else None


def latency_plot(
    rollout: RolloutDocument, release: int, samples: Sequence[RecentSample], now: datetime, limit_ms: float | None
) -> RolloutPlot | None:
    """p50 and p99 of both releases during the rollout; None without a sample of the candidate. A limit far above all
    of them is not drawn, because the lines would be flat.
    """
    start_s, end_s = (
        datetime.fromisoformat(at or now.isoformat()).timestamp() for at in (rollout.started_at, rollout.ended_at)
    )
    lines: dict[str, list[Value]] = {}
    for side, number in (("live", rollout.previous_release), ("candidate", release)):
        own = [one for one in samples if one.release == number]
        lines |= _latency(side, _columns(own, start_s, end_s - start_s, least_s=4))
    most = max((value or 0.0 for line in lines.values() for _, value in line), default=0.0)
    limit = limit_ms if limit_ms and limit_ms < 4 * most else None
    return _plot(lines, limit, end_s - start_s) if any(value for _, value in lines["candidate"]) else None


def hour_plots(samples: Sequence[RecentSample], now: datetime) -> tuple[RolloutPlot, RolloutPlot] | None:
    """Requests and failures a second, and the latency, of the last hour; None without a sample."""
    start_s = now.timestamp() // COLUMN_S * COLUMN_S - HOUR_S  # whole columns only: a part would look like a fall
    columns = _columns(samples, start_s, HOUR_S, least_s=COLUMN_S)
    rates: dict[str, list[Value]] = {
        name: [(at_s, sum(getattr(one, name) for one in seen) / COLUMN_S) for at_s, seen in columns]
        for name in ("requests", "failed")
    }
    latency, found = _latency("all", columns), any(value for _, value in rates["requests"])
    return (_plot(rates, None, HOUR_S), _plot(latency, None, HOUR_S)) if found else None


def before_now(at_s: float) -> str:
    """An instant of the last hour."""
    return f"−{(HOUR_S - at_s) / 60:g} min" if at_s < HOUR_S else "now"


def _columns(
    samples: Sequence[RecentSample], start_s: float, span_s: float, *, least_s: float
) -> list[tuple[float, list[RecentSample]]]:
    """At most `COLUMNS` columns of `least_s` or more: the begin and the samples of each."""
    width_s, found = max(least_s, span_s / COLUMNS), defaultdict[int, list[RecentSample]](list)
    for one in samples:
        found[int((one.at_s - start_s) // width_s)].append(one)
    return [(column * width_s, found[column]) for column in range(math.ceil(span_s / width_s) or 1)]


def _latency(side: str, columns: Sequence[tuple[float, list[RecentSample]]]) -> dict[str, list[Value]]:
    """p99 and p50 of the slowest release of each column; None if it has no sample."""
    return {
        name: [(at_s, max((getattr(one, of) for one in seen), default=None)) for at_s, seen in columns]
        for name, of in ((side, "p99_ms"), (f"{side} p50", "p50_ms"))
    }


def _plot(lines: Mapping[str, Sequence[Value]], limit: float | None, span_s: float = 0.0) -> RolloutPlot:
    """Each value holds until the next."""
    span_s = max(1.0, span_s, *(at_s for seen in lines.values() for at_s, _ in seen))
    ticks = nice_ticks(max([limit or 0.5, *(value or 0 for seen in lines.values() for _, value in seen)]) * 1.25, 4)
    axes = Axes(span_s, ticks[-1], height=220)
    drawn = {
        name: [
            axes.steps([(start, end, value or 0.0) for (start, value), (end, _) in held])
            for known, held in groupby(pairwise([*seen, (span_s, None)]), key=lambda pair: pair[0][1] is not None)
            if known
        ]
        for name, seen in lines.items()
    }
    return RolloutPlot(axes, ticks, drawn, limit)
