"""SVG charts for reports: elements, axes, ticks and step lines. A page that contains them needs no script.

Colours are CSS classes, so that light and dark follow the reader's setting. A mark's title is shown under the pointer.
Imports nothing of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]


def element(name: str, text: str = "", *, title: str = "", **attributes: str | float) -> str:
    """One SVG element. `class_` and `text_anchor` become `class` and `text-anchor`; floats get one decimal."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{f"{value:.1f}" if isinstance(value, float) else escape(str(value))}"'
        for key, value in attributes.items()
    )
    inside = (f"<title>{escape(title)}</title>" if title else "") + escape(text)
    return f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>"


def points(of: Iterable[Point]) -> str:
    """Points as the attribute of a polygon or polyline."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in of)


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of one chart: 0 to `span` to the right, 0 to `most` upwards; logarithmic from `least` if that is set."""

    span: float
    most: float
    least: float = 0.0
    width: int = 1120
    height: int = 280
    left: int = 64
    right: int = 20
    top: int = 28
    bottom: int = 28

    @property
    def floor(self) -> int:
        """Where the horizontal axis is drawn."""
        return self.height - self.bottom

    @property
    def end(self) -> int:
        """Where the horizontal axis ends."""
        return self.width - self.right

    def x(self, value: float) -> float:
        return self.left + (self.end - self.left) * min(max(value / self.span, 0.0), 1.0)

    def y(self, value: float) -> float:
        share = value / self.most
        if self.least:
            share = math.log10(max(value, self.least) / self.least) / math.log10(self.most / self.least)
        return self.floor - (self.floor - self.top) * share

    def steps(self, values: Iterable[tuple[float, float, float]]) -> list[Point]:
        """The outline of columns, each from, to and height; neighbours of one height are one step."""
        line: list[Point] = []
        for start, end, value in values:
            begin, y = self.x(start), self.y(value)
            if line[-1:] == [(begin, y)]:
                line[-1] = self.x(end), y
            else:
                line += [(begin, y), (self.x(end), y)]
        return line

    def column(self, class_: str, start: float, end: float, low: float, high: float, title: str) -> str:
        """A rectangle, at least two pixels wide."""
        left, top = self.x(start), self.y(high)
        width, height = max(2.0, self.x(end) - left), self.y(low) - top
        return element("rect", title=title, class_=class_, x=left, y=top, width=width, height=height)

    def grid(self, ticks: Sequence[float], name: Callable[[float], str] = "{:,g}".format) -> list[str]:
        """A line and a label at each height."""
        marks = []
        for tick in ticks:
            y, label = self.y(tick), name(tick)
            marks.append(element("line", class_="grid", x1=self.left, x2=self.end, y1=y, y2=y))
            marks.append(element("text", label, class_="axis", x=self.left - 8, y=y + 4, text_anchor="end"))
        return marks

    def times(self, name: Callable[[float], str] | None = None) -> list[str]:
        """The horizontal axis in seconds, named by `clock` or by `name`."""
        marks, step = [], time_step_s(self.span)
        for number in range(int(self.span / step + 1e-9) + 1):
            x, label = self.x(number * step), (name or clock)(number * step)
            marks.append(element("text", label, class_="axis", x=x, y=self.height - 8, text_anchor="middle"))
            marks.append(element("line", class_="tick", x1=x, x2=x, y1=self.floor, y2=self.floor + 4))
        return marks

    def svg(self, label: str, marks: Iterable[str]) -> str:
        """The chart of these marks, later ones in front."""
        inside = "\n".join(marks)
        box = f'viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(label)}"'
        return f'<svg class="plot" {box} preserveAspectRatio="xMidYMid meet">\n{inside}\n</svg>'


def round_step(least: float, factors: Sequence[float] = (1, 2, 5, 10)) -> float:
    """The first round number, one of `factors` times a power of ten, that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in factors if power * factor >= least * 0.999)


def nice_ticks(most: float, count: int = 5) -> tuple[float, ...]:
    """About `count` round values from 0 to at least `most`."""
    if most <= 0:
        return (0.0, 1.0)
    step = round_step(most / count, (1, 2, 2.5, 5, 10))
    return tuple(round(step * number, 9) for number in range(math.ceil(most / step - 0.001) + 1))


def log_ticks(least: float, most: float) -> tuple[float, ...]:
    """Powers of ten, from at most `least` to at least `most`; two of them or more."""
    powers = [10.0**exponent for exponent in range(-3, 7)]
    low = max((power for power in powers if power <= least), default=powers[0])
    high = min((power for power in powers if power >= most), default=powers[-1])
    return tuple(power for power in powers if low <= power <= max(high, low * 10))


def time_step_s(span_s: float) -> float:
    """A round distance of the time axis's ticks, so that there are at most about 12."""
    if span_s < 6:
        return round_step(span_s / 12)
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800)
    return next((step for step in steps if span_s / step <= 12), 21_600)


def clock(at_s: float) -> str:
    """`12 s`, `2:05`, `1:02:05`."""
    if at_s < 120:
        return f"{at_s:g} s"
    minutes, seconds = divmod(int(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
