"""The report's plots as SVG, drawn here so that the page needs no script and nothing from elsewhere.

Colours are CSS classes, so that light and dark follow the reader's setting. Every mark has a title, which browsers show
under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from hitless.drill.columns import Column, log_ticks, nice_ticks, time_step_s
from hitless.drill.tally import FAILED
from hitless.drill.watch import WorkerSample
from hitless.drill.wire import Failure

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1120, 64, 20, 28, 28
COLOURS = 8  # classes c0 … c7 of the page's style, and k0 … k11 for the kinds of failure


@dataclass(frozen=True, slots=True)
class Band:
    """A rollout or a fault on the time axis. `tone` is a class: good, broken, surprise, fault or back."""

    start_s: float
    end_s: float
    label: str
    title: str
    tone: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The axes of one plot: seconds to the right, `y_of` upwards."""

    span_s: float
    height: int
    y_of: Callable[[float], float]

    def x(self, at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(at_s / self.span_s, 0.0), 1.0)

    @property
    def floor(self) -> float:
        return self.height - BOTTOM


def linear(height: int, most: float) -> Callable[[float], float]:
    """Values from 0 to `most` as heights."""
    return lambda value: height - BOTTOM - (height - TOP - BOTTOM) * value / most


def logarithmic(height: int, least: float, most: float) -> Callable[[float], float]:
    """Values from `least` to `most` as heights, each power of ten as high as the next."""
    span = math.log10(most / least)

    def y_of(value: float) -> float:
        return height - BOTTOM - (height - TOP - BOTTOM) * math.log10(max(value, least) / least) / span

    return y_of


def requests_plot(columns: Sequence[Column], bands: Sequence[Band]) -> str:
    """Requests a second, stacked by the release that answered."""
    height = 280
    most = max((sum(column.by_release.values()) for column in columns), default=1.0)
    ticks = nice_ticks(most)
    frame = Frame(_span_s(columns), height, linear(height, ticks[-1]))
    releases = sorted({release for column in columns for release in column.by_release})
    classes = release_classes(columns)
    floor = [0.0] * len(columns)
    marks: list[str] = []
    for release in releases:
        roof = [base + column.by_release.get(release, 0.0) for base, column in zip(floor, columns, strict=True)]
        for first, last in _runs([release in column.by_release for column in columns]):
            marks.append(_area(frame, columns, floor, roof, first, last, release, classes[release]))
        floor = roof
    grid = _grid(frame, ticks, "{:g}".format)
    return _plot(frame, grid, [], marks, _bands(frame, bands, strip=True), "Requests a second by release")


def latency_plot(columns: Sequence[Column], bands: Sequence[Band]) -> str:
    """p50, p99 and maximum on a logarithmic axis, in milliseconds."""
    height = 280
    values = [v for c in columns for v in (c.p50_ms, c.p99_ms, c.max_ms) if v is not None and v > 0] or [1.0]
    ticks = log_ticks(min(values), max(values))
    frame = Frame(_span_s(columns), height, logarithmic(height, ticks[0], ticks[-1]))
    series: tuple[tuple[str, Callable[[Column], float | None]], ...] = (
        ("max", lambda column: column.max_ms),
        ("p99", lambda column: column.p99_ms),
        ("p50", lambda column: column.p50_ms),
    )
    marks = [_line(frame, columns, name, of) for name, of in series]
    marks += [_hover(frame, column) for column in columns if column.p50_ms is not None]
    return _plot(frame, _grid(frame, ticks, duration), _bands(frame, bands), marks, [], "Latency over time")


def failures_plot(columns: Sequence[Column], bands: Sequence[Band]) -> str:
    """Failed requests by kind and moment."""
    height = 200
    ticks = nice_ticks(float(max((sum(column.failures.values()) for column in columns), default=1)), 4)
    frame = Frame(_span_s(columns), height, linear(height, ticks[-1]))
    marks: list[str] = []
    for column in columns:
        base = 0
        for kind, count in sorted(column.failures.items()):
            top, bottom = frame.y_of(base + count), frame.y_of(base)
            left, right = frame.x(column.at_s), frame.x(column.at_s + column.width_s)
            marks.append(
                f'<rect class="{kind_class(kind)}" x="{left:.1f}" y="{top:.1f}" width="{max(2.0, right - left):.1f}"'
                f' height="{bottom - top:.1f}"><title>{_clock(column.at_s)}: {count} {kind}</title></rect>'
            )
            base += count
    return _plot(frame, _grid(frame, ticks, "{:g}".format), _bands(frame, bands), marks, [], "Failed requests by kind")


def workers_plot(columns: Sequence[Column], samples: Sequence[WorkerSample], bands: Sequence[Band]) -> str:
    """Workers of the live release as a line of steps, before the load as an area with an axis of its own (right)."""
    height = 220
    loads = [sum(column.by_release.values()) for column in columns]
    ticks, load_ticks = (
        nice_ticks(float(max(values, default=1)), 4) for values in ([one.workers for one in samples], loads)
    )
    frame = Frame(_span_s(columns), height, linear(height, ticks[-1]))
    load_y = linear(height, load_ticks[-1])
    stairs = " ".join(
        f"{frame.x(column.at_s):.1f},{load_y(load):.1f} {frame.x(column.at_s + column.width_s):.1f},{load_y(load):.1f}"
        for column, load in zip(columns, loads, strict=True)
    )
    marks = [
        f'<polygon class="load" points="{LEFT},{frame.floor} {stairs} {frame.x(frame.span_s):.1f},{frame.floor}"/>'
    ]
    marks += [
        f'<text class="axis" x="{WIDTH - RIGHT - 4}" y="{load_y(tick) - 4:.1f}" text-anchor="end">{tick:g}/s</text>'
        for tick in load_ticks[1:]
    ]
    points: list[str] = []
    for before, one in zip((None, *samples), samples, strict=False):
        if before is not None and before.workers != one.workers:
            points.append(f"{frame.x(one.at_s):.1f},{frame.y_of(before.workers):.1f}")
        if before is None or before.workers != one.workers or one is samples[-1]:
            points.append(f"{frame.x(one.at_s):.1f},{frame.y_of(one.workers):.1f}")
    marks.append(f'<polyline class="line workers" points="{" ".join(points)}"/>')
    over = _bands(frame, bands, strip=True)
    return _plot(frame, _grid(frame, ticks, "{:g}".format), [], marks, over, "Workers against the load")


def kind_class(kind: Failure) -> str:
    """The colour of a kind of failure."""
    return f"k{list(Failure).index(kind)}"


def release_classes(columns: Sequence[Column]) -> dict[int, str]:
    """The colour of each release, by the order in which they came; grey where none is named, red where it failed so."""
    seen = dict.fromkeys(release for column in columns for release in sorted(column.by_release) if release > 0)
    return {0: "none", FAILED: "lost", **{release: f"c{place % COLOURS}" for place, release in enumerate(seen)}}


def _span_s(columns: Sequence[Column]) -> float:
    return columns[-1].at_s + columns[-1].width_s if columns else 1.0


def _runs(flags: Sequence[bool]) -> Iterable[tuple[int, int]]:
    """First and last index of each stretch of True."""
    first: int | None = None
    for index, flag in enumerate([*flags, False]):
        if flag and first is None:
            first = index
        elif not flag and first is not None:
            yield first, index - 1
            first = None


def _area(
    frame: Frame,
    columns: Sequence[Column],
    floor: Sequence[float],
    roof: Sequence[float],
    first: int,
    last: int,
    release: int,
    colour: str,
) -> str:
    """One release's share as stairs: a column is as wide as its time."""
    upper: list[str] = []
    lower: list[str] = []
    for index in range(first, last + 1):
        left, right = frame.x(columns[index].at_s), frame.x(columns[index].at_s + columns[index].width_s)
        upper += [f"{left:.1f},{frame.y_of(roof[index]):.1f}", f"{right:.1f},{frame.y_of(roof[index]):.1f}"]
        lower += [f"{left:.1f},{frame.y_of(floor[index]):.1f}", f"{right:.1f},{frame.y_of(floor[index]):.1f}"]
    name = {0: "no release named", FAILED: "failed"}.get(release, f"release {release}")
    area = f'<polygon class="{colour}" points="{" ".join(upper + lower[::-1])}"><title>{name}</title></polygon>'
    left, right = frame.x(columns[first].at_s), frame.x(columns[last].at_s + columns[last].width_s)
    middle = (first + last) // 2
    tall = frame.y_of(floor[middle]) - frame.y_of(roof[middle])
    if release > 0 and right - left > 9 * len(str(release)) + 4 and tall > 16:
        y = (frame.y_of(floor[middle]) + frame.y_of(roof[middle])) / 2 + 4
        area += f'<text class="inside" x="{(left + right) / 2:.1f}" y="{y:.1f}">{release}</text>'
    return area


def _line(frame: Frame, columns: Sequence[Column], name: str, of: Callable[[Column], float | None]) -> str:
    known = [(frame.x(column.at_s + column.width_s / 2), of(column)) for column in columns]
    points = " ".join(f"{x:.1f},{frame.y_of(value):.1f}" for x, value in known if value is not None)
    return f'<polyline class="line {name}" points="{points}"/>'


def _hover(frame: Frame, column: Column) -> str:
    left, right = frame.x(column.at_s), frame.x(column.at_s + column.width_s)
    title = f"{_clock(column.at_s)}: p50 {column.p50_ms:.2f}, p99 {column.p99_ms:.2f}, max {column.max_ms:.2f} ms"
    return (
        f'<rect class="hover" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{frame.floor - TOP}">'
        f"<title>{title}</title></rect>"
    )


def duration(ms: float) -> str:
    """A tick of the latency axis, short enough to stand beside it: `10 ms`, `100 s`."""
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"


def _grid(frame: Frame, ticks: Sequence[float], form: Callable[[float], str]) -> list[str]:
    marks = []
    for tick in ticks:
        y = frame.y_of(tick)
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{form(tick)}</text>')
    step = time_step_s(frame.span_s)
    for number in range(int(frame.span_s / step + 1e-9) + 1):
        x = frame.x(number * step)
        marks.append(
            f'<text class="axis" x="{x:.1f}" y="{frame.height - 8}" text-anchor="middle">{_clock(number * step)}</text>'
        )
        marks.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.floor}" y2="{frame.floor + 4}"/>')
    return marks


def _bands(frame: Frame, bands: Sequence[Band], *, strip: bool = False) -> list[str]:
    """Rollouts as shades over the whole height, or as a strip above it where colours below must stay true."""
    marks = []
    free_from = 0.0
    for band in bands:
        left, right = frame.x(band.start_s), frame.x(band.end_s)
        top, bottom = (TOP - 6, TOP - 1) if strip else (TOP, frame.floor)
        shape = "strip" if strip else "band"
        marks.append(
            f'<rect class="{shape} {band.tone}" x="{left:.1f}" y="{top}" width="{max(1.5, right - left):.1f}"'
            f' height="{bottom - top}"><title>{escape(band.title)}</title></rect>'
        )
        if strip:
            marks.append(
                f'<line class="edge" x1="{left:.1f}" x2="{left:.1f}" y1="{TOP}" y2="{frame.floor}"/>'
                f'<line class="edge" x1="{right:.1f}" x2="{right:.1f}" y1="{TOP}" y2="{frame.floor}"/>'
            )
        half = 3.4 * len(band.label) + 2
        middle = max((left + right) / 2, LEFT + half)
        if middle - half >= free_from:
            marks.append(f'<text class="mark {band.tone}" x="{middle:.1f}" y="{TOP - 10}">{escape(band.label)}</text>')
            free_from = middle + half + 4
    return marks


def _plot(
    frame: Frame, grid: Iterable[str], under: Iterable[str], marks: Iterable[str], over: Iterable[str], label: str
) -> str:
    inside = "\n".join([*grid, *under, *marks, *over])
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {frame.height}" role="img" aria-label="{escape(label)}"'
        f' preserveAspectRatio="xMidYMid meet">\n{inside}\n</svg>'
    )


def _clock(at_s: float) -> str:
    """`12 s`, `2:05`, `1:02:05`."""
    if at_s < 120:
        return f"{at_s:g} s"
    minutes, seconds = divmod(int(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
