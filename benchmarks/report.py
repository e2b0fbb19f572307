"""One HTML page that stands alone: the answer in its first line, the goals, the plots, every table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from benchmarks.contenders import ALL, HITLESS
from benchmarks.figures import Figure, Section
from benchmarks.plots import STYLE, bars, curves, stacked
from hitless.pages.page import environment_of

_PICTURED = (
    "Failed requests while releases ship",
    "Requests a second, keep-alive",
    "Processor time a request, keep-alive",
)


def render(at: str, machine: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """The page's text."""
    return (
        environment_of("benchmarks")
        .get_template("report.html")
        .render(
            at=at,
            headline=headline(sections),
            machine=machine,
            sections=sections,
            goals=[figure for section in sections for figure in section.figures if figure.goal],
            plots=[Markup(plot) for plot in plots(sections)],
            contenders=ALL,
            style=Markup(STYLE),
        )
    )


def headline(sections: Sequence[Section]) -> str:
    """`hitless lost 0 requests in 20 releases, its peers 4 to 113,886`, or what there is to say."""
    failed = _charted(sections).get("Failed requests while releases ship")
    if failed:
        ours = next(figure for figure in failed if figure.label == HITLESS.title)
        theirs = [figure.spread.median for figure in failed if figure is not ours]
        lost = f"{ours.spread.median:,.0f} requests lost by hitless while releases ship"
        return f"{lost}, {min(theirs):,.0f} to {max(theirs):,.0f} by its peers"
    goals = [figure for section in sections for figure in section.figures if figure.goal]
    return f"{sum(figure.verdict == 'met' for figure in goals)} of {len(goals)} goals met"


def plots(sections: Sequence[Section]) -> list[str]:
    """Each chart as an `svg` element, the failed requests first."""
    charts = _charted(sections)
    order = sorted(charts, key=lambda title: not title.startswith("Failed"))
    return [bars(title, charts[title]) for title in order] + _curves(sections)


def picture(sections: Sequence[Section]) -> str:
    """What the documentation shows, as one SVG file: the failed requests, the keep-alive client, and growth."""
    charts = _charted(sections)
    return stacked([bars(title, charts[title]) for title in _PICTURED if title in charts] + _curves(sections))


def _curves(sections: Sequence[Section]) -> list[str]:
    found = []
    for section in sections:
        if panels := _charted([section], bars=False):
            found.append(curves(section.title, panels))
    return found


def _charted(sections: Sequence[Section], *, bars: bool = True) -> dict[str, list[Figure]]:
    """Title → figures of the plots that are bars, or of those that are curves."""
    charts: dict[str, list[Figure]] = {}
    for section in sections:
        for figure in section.figures:
            if figure.chart and (figure.at is None) == bars:
                charts.setdefault(figure.chart, []).append(figure)
    return charts
