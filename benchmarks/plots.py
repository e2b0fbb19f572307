"""Bars as SVG: the median of each contender, with its least and greatest round; and curves over a size. Pure.

Colours are CSS classes and variables, so that light and dark follow the reader's setting, in a page as in a file alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from benchmarks.figures import Figure
from hitless.charts import element, nice_ticks, points

STYLE = """
:root { --ink: #16202c; --soft: #5a6878; --rule: #dde3ea; --bar: #9fb4cc; --ours: #12805c; --page: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7edf4; --soft: #97a5b5; --rule: #2b3643; --bar: #4d6580; --ours: #3fc490; --page: #151c25; }
}
svg { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.title { fill: var(--ink); font-weight: 650; font-size: 15px; } .label, .value { fill: var(--ink); }
.value.soft { fill: var(--soft); } .bar { fill: var(--bar); } .bar.ours { fill: var(--ours); }
.whisker { stroke: var(--ink); stroke-opacity: .55; stroke-width: 1.5; } .floor { stroke: var(--rule); }
.small { font-size: 11px; } .curve { fill: none; stroke: var(--ours); stroke-width: 2; } .dot { fill: var(--ours); }
"""
WIDTH, LEFT, RIGHT, ROW, TOP = 820, 200, 190, 30, 40
_ORDERS_BEFORE_LOG = 30
_COLUMNS, _PANEL, _CURVE, _EDGE = 4, 152, 96, 44


def bars(title: str, figures: Sequence[Figure]) -> str:
    """A plot as an `svg` element without a style; logarithmic where the bars differ by more than thirty times."""
    values = [figure.spread.greatest for figure in figures]
    most = max(*values, 1e-9)
    least = min((value for figure in figures if (value := figure.spread.median) > 0), default=most)
    logarithmic = most / least > _ORDERS_BEFORE_LOG
    room = WIDTH - LEFT - RIGHT

    def length(value: float) -> float:
        if logarithmic:
            return room * math.log1p(value / least) / math.log1p(most / least)
        return room * value / most

    heading = title + (" (logarithmic)" if logarithmic else "")
    marks = [element("text", heading, class_="title", x=0, y=20)]
    for row, figure in enumerate(figures):
        marks += _row(figure, TOP + row * ROW, length, ours=figure.label == figures[0].label)
    height = TOP + len(figures) * ROW + 4
    marks.append(element("line", class_="floor", x1=LEFT, x2=LEFT, y1=TOP - 4, y2=height - 4))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
    return "\n".join([f'{head} aria-label="{escape(heading)}">', *marks, "</svg>"])


def curves(title: str, panels: Mapping[str, Sequence[Figure]]) -> str:
    """A plot of several small curves over the same sizes, each from 0 on, as an `svg` element without a style."""
    marks = [element("text", title, class_="title", x=0, y=20)]
    for number, (name, figures) in enumerate(panels.items()):
        row, column = divmod(number, _COLUMNS)
        marks += _curve(name, figures, column * WIDTH / _COLUMNS, TOP + row * _PANEL)
    height = TOP + math.ceil(len(panels) / _COLUMNS) * _PANEL
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
    return "\n".join([f'{head} aria-label="{escape(title)}">', *marks, "</svg>"])


def _curve(name: str, figures: Sequence[Figure], x: float, y: float) -> list[str]:
    span = max(figure.at or 0 for figure in figures) or 1
    most = nice_ticks(max(figure.spread.median for figure in figures), 2)[-1]
    left, right, top, floor = x + _EDGE, x + WIDTH / _COLUMNS - 16, y + 16, y + 16 + _CURVE
    places = [
        (left + (right - left) * (figure.at or 0) / span, floor - _CURVE * figure.spread.median / most)
        for figure in figures
    ]
    marks = [element("text", name, class_="label small", x=x + 8, y=y + 6)]
    for value, at in ((most, top), (0, floor)):
        marks.append(element("line", class_="floor", x1=left, x2=right, y1=at, y2=at))
        marks.append(element("text", f"{value:g}", class_="value soft small", x=left - 6, y=at + 4, text_anchor="end"))
    marks.append(element("text", f"{span:,.0f}", class_="value soft small", x=right, y=floor + 15, text_anchor="end"))
    marks.append(element("polyline", class_="curve", points=points(places)))
    for figure, (across, up) in zip(figures, places, strict=True):
        marks.append(element("circle", title=figure.line(), class_="dot", cx=across, cy=up, r=3))
    return marks


def stacked(plots: Sequence[str]) -> str:
    """Several plots as one file that stands alone, each below the other."""
    inside, y = [], 12
    for plot in plots:
        height = int(plot.partition(f"0 0 {WIDTH} ")[2].partition('"')[0])
        inside.append(plot.replace("<svg ", f'<svg x="16" y="{y}" width="{WIDTH}" height="{height}" ', 1))
        y += height + 20
    box = f'width="{WIDTH + 32}" height="{y}" viewBox="0 0 {WIDTH + 32} {y}"'
    page = f'<rect width="{WIDTH + 32}" height="{y}" rx="10" fill="var(--page)"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n<style>{STYLE}</style>\n{page}'
    return "\n".join([head, *inside, "</svg>", ""])


def _row(figure: Figure, y: int, length: Callable[[float], float], *, ours: bool) -> list[str]:
    spread, middle = figure.spread, y + ROW / 2 - 2
    wide = max(1.0, length(spread.median))
    shape = "bar ours" if ours else "bar"
    marks = [
        element("text", figure.label, class_="label", x=LEFT - 10, y=middle + 5, text_anchor="end"),
        element("rect", title=figure.line(), class_=shape, x=LEFT, y=y, width=wide, height=ROW - 8, rx=2),
    ]
    reach = wide
    if spread.greatest > spread.least:
        low, high = LEFT + length(spread.least), LEFT + length(spread.greatest)
        marks.append(element("line", class_="whisker", x1=low, x2=high, y1=middle, y2=middle))
        reach = high - LEFT
    value = f"{spread.median:,.{figure.digits}f}"
    marks.append(
        f'<text class="value" x="{LEFT + reach + 8:.1f}" y="{middle + 5:.1f}">{value}'
        f'<tspan class="value soft"> {escape(figure.unit)}</tspan></text>'
    )
    return marks
