"""Bars and panels as SVG, on the axes and with the style of all reports of hitless. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import resources

from benchmarks.figures import Figure
from hitless.charts import Axes, Point, element, nice_ticks, points

STYLE = """
.title { fill: var(--ink); font-size: 15px; font-weight: 650; } .label { fill: var(--ink); font-size: 13px; }
.bar { fill: var(--rest); } .bar.ours { fill: var(--good); }
.whisker { stroke: var(--ink); stroke-opacity: .55; stroke-width: 1.5; }
.line.busy { stroke: var(--warn); stroke-width: 1; } .area.waiting { fill: var(--bad); }
"""
"""The marks that only these plots have."""
WIDTH, ROW, TOP = 820, 30, 40
_ORDERS_BEFORE_LOG = 30

Lines = Mapping[str, Sequence[Point]]
"""CSS classes → points. A line of the class `area` is filled."""


def bars(title: str, figures: Sequence[Figure]) -> str:
    """The median of each contender with its least and greatest round; logarithmic above a factor of thirty."""
    most = max(*(figure.spread.greatest for figure in figures), 1e-9)
    least = min((value for figure in figures if (value := figure.spread.median) > 0), default=most)
    logarithmic = most / least > _ORDERS_BEFORE_LOG
    span = math.log1p(most / least) if logarithmic else most
    heading = title + (" (logarithmic)" if logarithmic else "")
    height = TOP + len(figures) * ROW + 4
    axes = Axes(span, 1, width=WIDTH, height=height, left=200, right=190, top=TOP - 4, bottom=4)
    marks = [element("text", heading, class_="title", x=0, y=20)]
    for row, figure in enumerate(figures):
        low, value, high = (
            axes.x(math.log1p(one / least) if logarithmic else one)
            for one in (figure.spread.least, figure.spread.median, figure.spread.greatest)
        )
        y, class_ = TOP + row * ROW, "bar" if row else "bar ours"
        wide, middle = max(1.0, value - axes.left), y + ROW / 2 - 2
        said = f"{figure.spread.median:,.{figure.digits}f} {figure.unit}"
        marks.append(element("text", figure.label, class_="label", x=190, y=middle + 5, text_anchor="end"))
        marks.append(
            element("rect", title=figure.line(), class_=class_, x=axes.left, y=y, width=wide, height=ROW - 8, rx=2)
        )
        if high > low:
            marks.append(element("line", class_="whisker", x1=low, x2=high, y1=middle, y2=middle))
        marks.append(element("text", said, class_="label", x=max(high, axes.left + wide) + 8, y=middle + 5))
    marks.append(element("line", class_="tick", x1=axes.left, x2=axes.left, y1=axes.top, y2=axes.floor))
    return axes.svg(heading, marks)


def panels(title: str, named: Mapping[str, Lines], *, columns: int = 1, seconds: bool = True) -> str:
    """A plot of several panels, each from 0 on; the horizontal axis has seconds, or sizes with a mark each."""
    marks = [element("text", title, class_="title", x=0, y=20)] if title else []
    top, wide = TOP if title else 8, WIDTH / columns
    for number, (name, lines) in enumerate(named.items()):
        row, column = divmod(number, columns)
        span = max(x for line in lines.values() for x, _ in line) or 1.0
        ticks = nice_ticks(max(y for line in lines.values() for _, y in line), 2)
        left, above = round(column * wide), top + row * 160
        axes = Axes(
            span, ticks[-1], width=round(left + wide), height=above + 152, left=left + 60, right=16, top=above + 24
        )
        marks.append(element("text", name, class_="name", x=left, y=above + 12))
        marks += axes.grid(ticks)
        size = element("text", f"{span:,.0f}", class_="axis", x=axes.end, y=axes.floor + 16, text_anchor="end")
        marks += axes.times() if seconds else [size]
        for class_, line in lines.items():
            places = [(axes.x(x), axes.y(y)) for x, y in line]
            shape = [*places, (places[-1][0], axes.floor), (places[0][0], axes.floor)] if "area" in class_ else places
            marks.append(
                element("polyline" if shape is places else "polygon", class_=class_ or "line", points=points(shape))
            )
            for (x, y), (across, up) in zip(line, places, strict=True) if not seconds else ():
                marks.append(element("circle", title=f"{x:,g}: {y:,g}", class_="dot", cx=across, cy=up, r=3))
    return Axes(1, 1, width=WIDTH, height=top + math.ceil(len(named) / columns) * 160).svg(title, marks)


def stacked(plots: Sequence[str]) -> str:
    """Several plots as one file that stands alone, each below the other."""
    inside, y = [], 12
    for plot in plots:
        height = int(plot.partition(f"0 0 {WIDTH} ")[2].partition('"')[0])
        inside.append(plot.replace("<svg ", f'<svg x="16" y="{y}" width="{WIDTH}" height="{height}" ', 1))
        y += height + 20
    box = f'width="{WIDTH + 32}" height="{y}" viewBox="0 0 {WIDTH + 32} {y}"'
    style = (resources.files("hitless.pages") / "theme.css").read_text("utf-8") + STYLE
    page = f'<rect width="{WIDTH + 32}" height="{y}" rx="10" fill="var(--card)"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n<style>{style}</style>\n{page}'
    return "\n".join([head, *inside, "</svg>", ""])
