"""The plots of a receipt's page: shares, and failures, over time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hitless.charts import Axes, element, nice_ticks, points
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


def plots(rollout: Mapping[str, Any]) -> tuple[str, str] | None:
    """The candidate's share asked for and got, and the failed and shielded requests, as `svg` elements; None if the
    rollout has no receipt, or ended before the first reading.
    """
    receipt = rollout["receipt"]
    if not receipt or not receipt["points"]:
        return None
    start = rollout["started_at"]
    last = max(receipt["points"][-1]["at"], rollout["ended_at"] or start)
    end_s = max(0.001, seconds_between(start, last))
    found = list(spans(start, receipt["points"]))
    most = nice_ticks(max([2, *(max(span.failed, span.shielded) for span in found)]), 2)  # one point makes no span
    share, count = (Axes(end_s, top, width=820, height=high, top=10) for top, high in ((100, 200), (most[-1], 120)))

    def bar(axes: Axes, class_: str, span: Span, height: float, said: str) -> str:
        title = f"{span.start_s:.1f} s to {span.end_s:.1f} s: {said}"
        return axes.column(class_, span.start_s, span.end_s, 0, height, title) if height else ""

    shares = [(one, 100 * one.got / one.requests, f"{one.requests:,} requests") for one in found if one.requests]
    got = [bar(share, "got", one, percent, f"{percent:.3g} % of {of}") for one, percent, of in shares]
    counts = [(name, one, getattr(one, name)) for name in ("shielded", "failed") for one in found]
    bad = [bar(count, name, one, number, f"{number:,} {name}") for name, one, number in counts]
    weights = [(seconds_between(start, each["from"]), each["asked_percent"]) for each in receipt["weights"]]
    edges = pairwise([(0, 0), *weights, (end_s, 0)])
    steps = points(share.steps((at, until, weight) for (at, weight), (until, _) in edges))
    asked = element("polyline", class_="asked", points=steps)
    drawn = [*share.grid((0, 50, 100), "{:g} %".format), *share.times(), *got, asked]
    return (
        share.svg("Share of requests asked for and got", drawn),
        count.svg("Failed and shielded requests", [*count.grid(most), *count.times(), *bad]),
    )


def spans(start: str, seen: Sequence[Mapping[str, Any]]) -> Iterator[Span]:
    """The spans between readings. Spans with few requests are joined, except the last."""
    nothing = dict.fromkeys(NAMES, 0)
    readings = [(seconds_between(start, p["at"]), p.get("candidate", nothing), p.get("live", nothing)) for p in seen]
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
