"""The chart of a receipt's page: shares and failures over time, in per cent of the drawing's size. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hitless.charts import round_step
from hitless.receipts.words import seconds_between

FEWEST_REQUESTS = 20
"""A span with fewer requests is joined with the next, because its share says nothing."""

NAMES = ("requests", "failed", "shielded")


@dataclass(frozen=True, slots=True)
class Span:
    """The time between two readings, in seconds since the rollout's start, with its counts. `got`: the candidate's."""

    start_s: float
    end_s: float
    got: int
    requests: int
    failed: int
    shielded: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle in per cent of the drawing; `title` explains it."""

    x: float
    width: float
    y: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Plot:
    """The chart on a field of 100 × 100: `asked` is a path; `got`, `failed` and `shielded` are bars."""

    asked: str
    got: tuple[Bar, ...]
    failed: tuple[Bar, ...]
    shielded: tuple[Bar, ...]
    most_failed: int
    ticks: tuple[tuple[float, str], ...]


def plot(rollout: Mapping[str, Any]) -> Plot | None:
    """The plot; None if the rollout has no receipt, or ended before the first reading."""
    receipt = rollout["receipt"]
    if not receipt or not receipt["points"]:
        return None
    start = rollout["started_at"]
    end_s = max(seconds_between(start, receipt["points"][-1]["at"]), 0.001)
    if rollout["ended_at"]:
        end_s = max(end_s, seconds_between(start, rollout["ended_at"]))
    joined = list(spans(start, receipt["points"]))
    most = max((max(span.failed, span.shielded) for span in joined), default=0)
    shares = [(span, 100 * span.got / span.requests) for span in joined if span.requests > 0]
    return Plot(
        asked=_asked(start, receipt["weights"], end_s),
        got=tuple(_bar(span, end_s, got, f"{got:.3g} % of {span.requests:,} requests") for span, got in shares),
        failed=tuple(
            _bar(span, end_s, 100 * span.failed / most, f"{span.failed:,} failed") for span in joined if span.failed
        ),
        shielded=tuple(
            _bar(span, end_s, 100 * span.shielded / most, f"{span.shielded:,} shielded")
            for span in joined
            if span.shielded
        ),
        most_failed=most,
        ticks=_ticks(end_s),
    )


def spans(start: str, points: Sequence[Mapping[str, Any]]) -> Iterator[Span]:
    """The spans between readings. Spans with few requests are joined, except the last."""
    nothing = dict.fromkeys(NAMES, 0)
    readings = [(seconds_between(start, p["at"]), p.get("candidate", nothing), p.get("live", nothing)) for p in points]
    since = readings[0]
    for _, reading in pairwise(readings):
        candidate, live = (
            {name: max(0, now[name] - before[name]) for name in NAMES}
            for now, before in zip(reading[1:], since[1:], strict=True)
        )
        requests, failed = (candidate[name] + live[name] for name in ("requests", "failed"))
        span = Span(since[0], reading[0], candidate["requests"], requests, failed, candidate["shielded"])
        if span.requests >= FEWEST_REQUESTS or reading is readings[-1]:
            yield span
            since = reading


def _asked(start: str, weights: Sequence[Mapping[str, Any]], end_s: float) -> str:
    """The weight as steps, from 0 at the start."""
    path = ["M0 100"]
    for each in weights:
        x = _x(seconds_between(start, each["from"]), end_s)
        path.append(f"H{x:.2f}V{100 - each['asked_percent']:.2f}")
    return "".join([*path, "H100"])


def _bar(span: Span, end_s: float, height: float, said: str) -> Bar:
    left, right = _x(span.start_s, end_s), _x(span.end_s, end_s)
    title = f"{span.start_s:.1f} s to {span.end_s:.1f} s: {said}"
    return Bar(round(left, 2), round(max(right - left, 0.4), 2), round(100 - height, 2), round(height, 2), title)


def _x(at_s: float, end_s: float) -> float:
    return 100 * min(at_s / end_s, 1.0)


def _ticks(end_s: float) -> tuple[tuple[float, str], ...]:
    """Two to six instants at round seconds or minutes."""
    unit, name = (60, "min") if end_s >= 240 else (1, "s")
    step = round_step(end_s / unit / 5)
    numbers = range(int(end_s / (step * unit) + 1e-9) + 1)
    return tuple((round(_x(number * step * unit, end_s), 2), f"{number * step:g} {name}") for number in numbers)
