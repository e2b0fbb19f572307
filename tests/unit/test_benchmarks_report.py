"""The benchmarks' plots and page, made from given figures."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from benchmarks.contenders import ALL, HITLESS, PEERS
from benchmarks.figures import Bound, Figure, Goal, Section, Spread
from benchmarks.growth import section as grown
from benchmarks.load import Client
from benchmarks.plots import bars, stacked
from benchmarks.report import Part, headline, measured, render
from benchmarks.shipping import Shipped

pytestmark = pytest.mark.unit

MACHINE = {
    "cores_used": 2, "cores": 2, "load_average_1min": 0, "system": "x", "python": "3", "haproxy": "h", "nginx": "n",
    "peers": {"granian": "9.9"},
}  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


def charted(failed: dict[str, int]) -> Section:
    """The section of failed requests, with these counts by contender's key."""
    chart = "Failed requests while releases ship"
    figures = [
        Figure(
            f"{one.key}_failed",
            f"failed: {one.title}",
            "of 100",
            Spread.of([failed[one.key]]),
            0,
            None,
            chart,
            one.title,
        )
        for one in ALL
    ]
    return Section("failed requests", "20 releases <each>", tuple(figures))


def widths(svg: str) -> list[float]:
    """The widths of the bars, top to bottom."""
    return [float(bar.attrib["width"]) for bar in tree(svg).iter(f"{SVG}rect")][1:]


def tree(svg: str) -> ET.Element:
    return ET.fromstring(stacked([svg]))


def figure(label: str, *rounds: float) -> Figure:
    return Figure(label, label, "requests/s", Spread.of(rounds), 0, chart="Rates", label=label)


def test_a_bar_is_as_long_as_its_median_and_the_whisker_reaches_its_extremes() -> None:
    svg = bars("Rates", [figure("a", 50, 100, 60), figure("b", 30)])
    long, short = widths(svg)
    assert long / short == pytest.approx(2)
    whisker = next(line for line in tree(svg).iter(f"{SVG}line") if line.attrib["class"] == "whisker")
    room = (float(whisker.attrib["x2"]) - float(whisker.attrib["x1"])) / long
    assert room == pytest.approx((100 - 50) / 60, rel=0.01)


def test_bars_that_differ_by_a_factor_over_30_get_a_logarithmic_axis() -> None:
    svg = bars("Failed", [figure("none", 0), figure("few", 4), figure("many", 100_000)])
    none, few, many = widths(svg)
    assert none < few < many < few * 20
    assert "logarithmic" in svg
    assert "logarithmic" not in bars("Rates", [figure("a", 10), figure("b", 20)])


def test_several_plots_in_one_file_do_not_overlap_and_have_both_colour_schemes() -> None:
    plots = [bars("Rates", [figure("a", 1), figure("b", 2)]), bars("More", [figure("c", 1)])]
    whole = ET.fromstring(stacked(plots))
    first, second = whole.findall(f"{SVG}svg")
    assert float(first.attrib["y"]) + float(first.attrib["height"]) < float(second.attrib["y"])
    assert float(second.attrib["y"]) + float(second.attrib["height"]) <= float(whole.attrib["height"])
    assert "prefers-color-scheme: dark" in (whole.findtext(f"{SVG}style") or "")


def test_the_headline_counts_the_requests_lost_by_hitless_and_its_peers() -> None:
    counts = {one.key: 10 * place for place, one in enumerate(PEERS, start=1)}
    assert headline([charted({**counts, HITLESS.key: 3})]).startswith("3 requests lost by hitless")
    assert headline([charted({**counts, HITLESS.key: 0})]).endswith("10 to 40 by its peers")


def test_without_a_comparison_the_headline_counts_the_goals_met() -> None:
    goal = Goal(Bound.AT_MOST, 1)
    figures = tuple(Figure(str(n), str(n), "s", Spread.of([n]), goal=goal) for n in (0, 1, 2))
    assert headline([Section("deploy", "how", figures)]) == "2 of 3 goals met"


def page_of(section: Section, suffix: str = ".html") -> str:
    title, parts, lead = measured("now", MACHINE, [section])
    return render(title, parts, lead=lead, suffix=suffix)


def test_the_page_describes_every_contender_and_loads_nothing() -> None:
    page = page_of(charted({one.key: 1 for one in ALL}))
    for one in ALL:
        assert one.title in page
        assert one.page in page
    assert "granian 9.9" in page
    assert "20 releases &lt;each&gt;" in page
    assert "<script" not in page
    assert 'src="' not in page


def test_failures_of_all_clients_are_added_up_by_kind() -> None:
    def drill(**counts: int) -> dict[str, object]:
        return {"failures": [{"kind": kind, "count": count} for kind, count in counts.items()]}

    shipped = Shipped(
        (1.0,),
        {
            Client.KEEP_ALIVE: drill(connection_reset=2, timeout=0),
            Client.NEW_CONNECTIONS: drill(connection_reset=1, connection_refused=5),
            Client.POST: drill(connection_reset=0),
        },
    )
    assert shipped.failures() == {"connection_reset": 3, "connection_refused": 5}


def test_the_page_shows_a_curve_for_each_cost_of_growth() -> None:
    costs = {size: {"deploy_s": 0.5 + size / 1000, "memory_mib": 90.0} for size in (50, 350, 1000)}
    page = page_of(grown("routes", costs))
    assert page.count("<polyline") == 2
    assert "a deploy, s of CPU" in page
    assert "each further 100 routes" in page


def test_the_markdown_has_the_headline_and_all_tables_but_no_plot() -> None:
    text = page_of(charted({one.key: 10 for one in ALL}), ".md")
    assert text.startswith("## 10 requests lost by hitless while releases ship, 10 to 10 by its peers\n")
    assert "20 releases \\<each\\>" in text
    assert f"| failed: {PEERS[0].title} | 10 | of 100 |  |" in text
    assert "svg" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table[:3]} == {4}, "name, way and page of each contender"


def test_a_report_says_by_a_sign_whether_it_passed() -> None:
    parts = [Part("Processes", head=("process", "growth"), rows=[("daemon", "+4.7 %")])]
    passed, failed = (render("soak", parts, ok=ok, suffix=".md") for ok in (True, False))
    assert passed.startswith("## ✅ soak\n\n### Processes\n\n| process | growth |\n|---|---:|\n| daemon | +4.7 % |\n")
    assert failed.startswith("## ❌ soak")
    assert '<h1 class="not-ok">soak</h1>' in render("soak", parts, ok=False)
