"""Bars as SVG: the median of each contender, with its least and greatest round. Pure.

Colours are CSS classes and variables, so that light and dark follow the reader's setting, in a page as in a file alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from benchmarks.figures import Figure
from hitless.charts import element

STYLE = """
:root { --ink: #16202c; --soft: #5a6878; --rule: #dde3ea; --bar: #9fb4cc; --ours: #12805c; --page: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7edf4; --soft: #97a5b5; --rule: #2b3643; --bar: #4d6580; --ours: #3fc490; --page: #151c25; }
}
svg { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.title { fill: var(--ink); font-weight: 650; font-size: 15px; } .label, .value { fill: var(--ink); }
.value.soft { fill: var(--soft); } .bar { fill: var(--bar); } .bar.ours { fill: var(--ours); }
.whisker { stroke: var(--ink); stroke-opacity: .55; stroke-width: 1.5; } .floor { stroke: var(--rule); }
"""
WIDTH, LEFT, RIGHT, ROW, TOP = 820, 200, 190, 30, 40
_ORDERS_BEFORE_LOG = 30


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
