"""Elements, axes and ticks of the SVG charts."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from hitless.charts import Axes, clock, element, log_ticks, nice_ticks, points, round_step, time_step_s

pytestmark = pytest.mark.unit


def test_an_element_escapes_its_text_title_and_attributes() -> None:
    drawn = element("text", "<b>", title="a & b", class_='"', text_anchor="end", x=1.25, y=3)
    assert drawn == '<text class="&quot;" text-anchor="end" x="1.2" y="3"><title>a &amp; b</title>&lt;b&gt;</text>'
    assert element("line", x1=0.0) == '<line x1="0.0"/>'


def test_axes_place_values_between_their_edges() -> None:
    axes = Axes(span=10, most=100)
    assert (axes.x(0), axes.x(10), axes.x(11)) == (axes.left, axes.end, axes.end)
    assert (axes.y(0), axes.y(100)) == (axes.floor, axes.top)
    assert axes.y(50) == (axes.floor + axes.top) / 2


def test_a_logarithmic_axis_gives_each_power_of_ten_the_same_height() -> None:
    axes = Axes(span=10, most=100, least=1)
    assert axes.y(10) == pytest.approx((axes.floor + axes.top) / 2)
    assert axes.y(0) == axes.floor, "a value below the least stands on the floor"


def test_a_chart_is_well_formed_and_its_columns_are_at_least_two_pixels_wide() -> None:
    axes = Axes(span=10, most=4)
    marks = [*axes.grid([0, 4]), *axes.times(), axes.column("bar", 1, 1, 0, 4, "1 s: 4")]
    chart = ET.fromstring(axes.svg("Bars & more", marks))
    (bar,) = chart.iter("rect")
    assert (bar.attrib["width"], bar.attrib["height"]) == ("2.0", f"{axes.floor - axes.top:.1f}")
    assert [label.text for label in chart.iter("text")][:3] == ["0", "4", "0 s"]


def test_a_step_line_has_both_corners_of_each_column() -> None:
    axes = Axes(span=10, most=4)
    assert points(axes.steps([(0, 5, 4), (5, 10, 0)])) == "64.0,28.0 582.0,28.0 582.0,252.0 1100.0,252.0"


def test_columns_of_one_height_that_touch_are_one_step() -> None:
    axes = Axes(span=10, most=4)
    joined = axes.steps([(0, 2, 4), (2, 5, 4), (5, 10, 0)])
    assert joined == axes.steps([(0, 5, 4), (5, 10, 0)])
    assert len(axes.steps([(0, 2, 4), (3, 5, 4)])) == 4, "not over a gap"


@pytest.mark.parametrize(("least", "step"), [(1, 1), (1.1, 2), (0.03, 0.05), (7, 10), (400, 500)])
def test_an_axis_step_is_a_round_number(least: float, step: float) -> None:
    assert round_step(least) == pytest.approx(step)


@pytest.mark.parametrize(("at_s", "said"), [(0.5, "0.5 s"), (119, "119 s"), (125, "2:05"), (3725, "1:02:05")])
def test_times_on_an_axis_are_short(at_s: float, said: str) -> None:
    assert clock(at_s) == said


@pytest.mark.parametrize(
    ("most", "ticks"),
    [(0, (0, 1)), (1, (0, 0.2, 0.4, 0.6, 0.8, 1.0)), (400, (0, 100, 200, 300, 400)), (7, (0, 2, 4, 6, 8))],
)
def test_ticks_are_round_numbers_that_reach_the_greatest_value(most: float, ticks: tuple[float, ...]) -> None:
    assert nice_ticks(most) == ticks


@pytest.mark.parametrize("span_s", [0.01, 1, 30, 60, 3_600, 86_400])
def test_the_time_axis_has_2_to_14_ticks(span_s: float) -> None:
    assert 2 <= span_s / time_step_s(span_s) <= 14


@pytest.mark.parametrize(("least", "most"), [(0.2, 300), (1, 1), (5, 20_000), (0.0001, 0.0002)])
def test_the_logarithmic_axis_holds_all_values(least: float, most: float) -> None:
    ticks = log_ticks(least, most)
    assert len(ticks) >= 2
    assert ticks[0] <= max(least, 0.001)
    assert ticks[-1] >= most
