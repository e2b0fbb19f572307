"""The charts of a drill's report, and its time axis: the tally's slots joined to as many columns as fit. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from hitless.charts import Axes, clock, element, log_ticks, nice_ticks, points
from hitless.drill.tally import FAILED, Slot
from hitless.drill.timeline import MICROSECONDS, WorkerSample
from hitless.drill.wire import FailureKind

MAX_COLUMNS = 320
COLOURS = 8  # classes c0 … c7 of the page's style, and k0 … k12 for the kinds of failure
_UNNAMED = {0: "no release named", FAILED: "failed"}


@dataclass(frozen=True, slots=True)
class Column:
    """A time span. Counts are per second; latencies the worst of the slots (p50: their mean), in milliseconds."""

    at_s: float
    width_s: float
    by_release: dict[int, float]
    failures: dict[FailureKind, int]
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    @property
    def end_s(self) -> float:
        return self.at_s + self.width_s

    @property
    def per_s(self) -> float:
        return sum(self.by_release.values())


@dataclass(frozen=True, slots=True)
class Band:
    """A rollout or a fault on the time axis. `tone` is a class: good, broken, surprise, fault or back."""

    start_s: float
    end_s: float
    label: str
    title: str
    tone: str


def columns(slots: Sequence[Slot], slot_us: int, end_s: float) -> tuple[Column, ...]:
    """At most MAX_COLUMNS columns of equal width, except for the last, which ends with the load."""
    each = -(-len(slots) // MAX_COLUMNS) or 1
    width_s = each * slot_us / MICROSECONDS
    starts = [(first, first * slot_us / MICROSECONDS) for first in range(0, len(slots), each)]
    return tuple(
        _column(slots[first : first + each], at_s, min(width_s, max(end_s - at_s, width_s / 20)))
        for first, at_s in starts
    )


def _column(slots: Sequence[Slot], at_s: float, width_s: float) -> Column:
    by_release: Counter[int] = Counter()
    failures: Counter[FailureKind] = Counter()
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


def requests_plot(columns: Sequence[Column], bands: Sequence[Band]) -> str:
    """Requests per second, stacked by the release that responded."""
    ticks = nice_ticks(max((column.per_s for column in columns), default=1.0))
    axes = Axes(_span_s(columns), ticks[-1])
    classes = release_classes(columns)
    floor = [0.0] * len(columns)
    marks = _plain_grid(axes, ticks)
    for release in sorted({release for column in columns for release in column.by_release}):
        roof = [base + column.by_release.get(release, 0.0) for base, column in zip(floor, columns, strict=True)]
        for served, part in groupby(zip(columns, floor, roof, strict=True), lambda each: each[1] < each[2]):
            marks += _area(axes, [*part], release, classes[release]) if served else []
        floor = roof
    return axes.svg("Requests a second by release", [*marks, *_strip(axes, bands)])


def latency_plot(columns: Sequence[Column], bands: Sequence[Band]) -> str:
    """p50, p99 and maximum on a logarithmic axis, in milliseconds."""
    values = [v for c in columns for v in (c.p50_ms, c.p99_ms, c.max_ms) if v is not None and v > 0] or [1.0]
    ticks = log_ticks(min(values), max(values))
    axes = Axes(_span_s(columns), ticks[-1], ticks[0])
    series: tuple[tuple[str, Callable[[Column], float | None]], ...] = (
        ("max", lambda column: column.max_ms),
        ("p99", lambda column: column.p99_ms),
        ("p50", lambda column: column.p50_ms),
    )
    marks = [*axes.grid(ticks, duration), *axes.times(), *_bands(axes, bands)]
    for name, of in series:
        known = [(axes.x(column.at_s + column.width_s / 2), of(column)) for column in columns]
        line = points((x, axes.y(value)) for x, value in known if value is not None)
        marks.append(element("polyline", class_=f"line {name}", points=line))
    for column in columns:
        if column.p50_ms is not None:
            title = (
                f"{clock(column.at_s)}: p50 {column.p50_ms:.2f}, p99 {column.p99_ms:.2f}, max {column.max_ms:.2f} ms"
            )
            marks.append(axes.column("hover", column.at_s, column.end_s, axes.least, axes.most, title))
    return axes.svg("Latency over time", marks)


def failures_plot(columns: Sequence[Column], bands: Sequence[Band]) -> str:
    """Failed requests by kind and moment."""
    ticks = nice_ticks(float(max((sum(column.failures.values()) for column in columns), default=1)), 4)
    axes = Axes(_span_s(columns), ticks[-1], height=200)
    marks = [*_plain_grid(axes, ticks), *_bands(axes, bands)]
    for column in columns:
        base = 0
        for kind, count in sorted(column.failures.items()):
            title = f"{clock(column.at_s)}: {count} {kind}"
            marks.append(axes.column(kind_class(kind), column.at_s, column.end_s, base, base + count, title))
            base += count
    return axes.svg("Failed requests by kind", marks)


def workers_plot(columns: Sequence[Column], samples: Sequence[WorkerSample], bands: Sequence[Band]) -> str:
    """Workers of the live release as a step line, in front of the load as an area with an axis of its own (right)."""
    ticks = nice_ticks(float(max((one.workers for one in samples), default=1)), 4)
    load_ticks = nice_ticks(float(max((column.per_s for column in columns), default=1)), 4)
    axes = Axes(_span_s(columns), ticks[-1], height=220)
    load = replace(axes, most=load_ticks[-1])
    outline = load.steps((column.at_s, column.end_s, column.per_s) for column in columns)
    around = points([(axes.left, axes.floor), *outline, (axes.x(axes.span), axes.floor)])
    marks = [*_plain_grid(axes, ticks), element("polygon", class_="load", points=around)]
    marks += [
        element("text", f"{tick:g}/s", class_="axis", x=axes.end - 4, y=load.y(tick) - 4, text_anchor="end")
        for tick in load_ticks[1:]
    ]
    line = axes.steps((one.at_s, after.at_s, one.workers) for one, after in pairwise([*samples, samples[-1]]))
    marks.append(element("polyline", class_="line workers", points=points(line)))
    return axes.svg("Workers against the load", [*marks, *_strip(axes, bands)])


def kind_class(kind: FailureKind) -> str:
    """The colour of a kind of failure."""
    return f"k{list(FailureKind).index(kind)}"


def release_classes(columns: Sequence[Column]) -> dict[int, str]:
    """The colour of each release, by the order in which they came; grey if none is named, red if that failed."""
    seen = dict.fromkeys(release for column in columns for release in sorted(column.by_release) if release > 0)
    return {0: "none", FAILED: "lost", **{release: f"c{place % COLOURS}" for place, release in enumerate(seen)}}


def duration(ms: float) -> str:
    """A tick of the latency axis: `10 ms`, `100 s`."""
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"


def _span_s(columns: Sequence[Column]) -> float:
    return columns[-1].end_s if columns else 1.0


def _plain_grid(axes: Axes, ticks: Sequence[float]) -> list[str]:
    return [*axes.grid(ticks), *axes.times()]


def _area(axes: Axes, columns: Sequence[tuple[Column, float, float]], release: int, colour: str) -> list[str]:
    """One release's share: columns with their lower and upper end. Its number is inside if there is room."""
    lower = axes.steps((column.at_s, column.end_s, floor) for column, floor, _ in columns)
    upper = axes.steps((column.at_s, column.end_s, roof) for column, _, roof in columns)
    name = _UNNAMED.get(release, f"release {release}")
    marks = [element("polygon", title=name, class_=colour, points=points([*upper, *reversed(lower)]))]
    left, right = axes.x(columns[0][0].at_s), axes.x(columns[-1][0].end_s)
    bottom, top = map(axes.y, columns[(len(columns) - 1) // 2][1:])
    if release > 0 and right - left > 9 * len(str(release)) + 4 and bottom - top > 16:
        marks.append(element("text", str(release), class_="inside", x=(left + right) / 2, y=(top + bottom) / 2 + 4))
    return marks


def _bands(axes: Axes, bands: Sequence[Band]) -> list[str]:
    """Rollouts and faults as shades over the whole height."""
    marks = [axes.column(f"band {one.tone}", one.start_s, one.end_s, axes.least, axes.most, one.title) for one in bands]
    return [*marks, *_labels(axes, bands)]


def _strip(axes: Axes, bands: Sequence[Band]) -> list[str]:
    """Rollouts and faults as a strip above the chart, because a shade would change the colours of its areas."""
    marks = []
    for band in bands:
        left, right = axes.x(band.start_s), axes.x(band.end_s)
        class_, width = f"strip {band.tone}", max(1.5, right - left)
        marks.append(element("rect", title=band.title, class_=class_, x=left, y=axes.top - 6, width=width, height=5))
        marks += [element("line", class_="edge", x1=x, x2=x, y1=axes.top, y2=axes.floor) for x in (left, right)]
    return [*marks, *_labels(axes, bands)]


def _labels(axes: Axes, bands: Sequence[Band]) -> list[str]:
    """The labels above the chart, without those that would overlap the previous label."""
    marks, free_from = [], 0.0
    for band in bands:
        half = 3.4 * len(band.label) + 2
        middle = max((axes.x(band.start_s) + axes.x(band.end_s)) / 2, axes.left + half)
        if middle - half >= free_from:
            marks.append(element("text", band.label, class_=f"mark {band.tone}", x=middle, y=axes.top - 10))
            free_from = middle + half + 4
    return marks
