"""The report of the benchmarks, of the simulated scaler and of the soak: one page that stands alone, and Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from benchmarks.contenders import ALL, HITLESS
from benchmarks.figures import Figure, Section
from benchmarks.plots import STYLE, bars, panels, stacked
from hitless.pages.page import MARKDOWN, environment_of, write_page

_PICTURED = (
    "Failed requests while releases ship",
    "Requests a second, keep-alive",
    "Processor time a request, keep-alive",
)


class Part(NamedTuple):
    """A section of the report; its plots are on the page only."""

    title: str
    note: str = ""
    plots: Sequence[str] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def render(
    headline: str, parts: Sequence[Part], *, lead: str = "", ok: bool | None = None, suffix: str = ".html"
) -> str:
    """The page's text, or Markdown for a comment. `ok` is None if nothing passes or fails."""
    environment = environment_of("benchmarks", style=Markup(STYLE))
    environment.tests["number_text"] = lambda cell: bool(re.match(r"[-+≤≥<>]?\s?\d|–$", cell))
    page = environment.get_template(f"report{suffix}")
    return page.render(headline=headline, parts=parts, lead=lead, ok=ok)


def write(page: Path, headline: str, parts: Sequence[Part], *, lead: str = "", ok: bool | None = None) -> None:
    """Write the page, and the Markdown beside it."""
    for file in (page, page.with_suffix(MARKDOWN)):
        write_page(file, lambda suffix: render(headline, parts, lead=lead, ok=ok, suffix=suffix))


def measured(at: str, machine: Mapping[str, Any], sections: Sequence[Section]) -> tuple[str, list[Part], str]:
    """Headline, parts and lead of a run of the benchmarks."""
    goals = [figure for section in sections for figure in section.figures if figure.goal]
    peers = "".join(f" · {name} {version}" for name, version in machine["peers"].items())
    lead = (
        f"{at} · {machine['cores_used']} of {machine['cores']} cores, load {machine['load_average_1min']} at the start"
        f" · {machine['system']} · Python {machine['python']} · {machine['haproxy']} · nginx {machine['nginx']}{peers}"
    )
    parts = [
        Part("Goals", rows=[_row(figure) for figure in goals]),
        Part("Plots", plots=plots(sections)),
        Part("How each takes a release", rows=[(one.title, one.way, one.page) for one in ALL]),
        *(Part(one.title, one.how, rows=[_row(figure) for figure in one.figures]) for one in sections),
    ]
    return headline(sections), [part for part in parts if part.rows or part.plots], lead


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


def _row(figure: Figure) -> tuple[str, str, str, str]:
    goal = f"{figure.goal.text()}: {figure.verdict}" if figure.goal else ""
    return figure.title, figure.spread.text(figure.digits), figure.unit, goal


def _curves(sections: Sequence[Section]) -> list[str]:
    found = []
    for section in sections:
        if charts := _charted([section], bars=False):
            named = {
                name: {"line": [(one.at or 0, one.spread.median) for one in figures]}
                for name, figures in charts.items()
            }
            found.append(panels(section.title, named, columns=4, seconds=False))
    return found


def _charted(sections: Sequence[Section], *, bars: bool = True) -> dict[str, list[Figure]]:
    """Title → figures of the plots that are bars, or of those that are curves."""
    charts: dict[str, list[Figure]] = {}
    for section in sections:
        for figure in section.figures:
            if figure.chart and (figure.at is None) == bars:
                charts.setdefault(figure.chart, []).append(figure)
    return charts
