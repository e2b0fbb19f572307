"""A simulated scenario as one self-contained SVG: load, workers at work, workers there, and what waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from benchmarks.scaling.scenarios import LoadScenario
from benchmarks.scaling.simulator import PoolSample, SimulatedRun

WIDTH: Final = 860
LEFT, RIGHT, TOP, PANEL, GAP = 64, 16, 56, 130, 34
_STYLE: Final = """
svg { background: #fff; color: #1c2430; font: 13px system-ui, sans-serif }
text { fill: currentColor } .dim { fill: #667085 } .grid { stroke: #d0d5dd; fill: none }
.load { fill: #98a2b3; opacity: .45 } .workers { stroke: #1570ef; fill: none; stroke-width: 2 }
.busy { stroke: #f79009; fill: none } .waiting { fill: #d92d20; opacity: .7 }
@media (prefers-color-scheme: dark) { svg { background: #12161d; color: #e4e7ec } .grid { stroke: #344054 } }
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure of each sample over time; `filled` down to 0."""

    style: str
    value: Callable[[PoolSample], float]
    filled: bool = False


PANELS: Final = (
    ("requests/s", (Curve("load", lambda one: one.rate, filled=True),)),
    ("workers", (Curve("busy", lambda one: one.busy), Curve("workers", lambda one: float(one.workers)))),
    ("waiting", (Curve("waiting", lambda one: float(one.waiting), filled=True),)),
)


def svg_of(scenario: LoadScenario, outcome: SimulatedRun) -> str:
    """Three panels over one axis of seconds."""
    samples = outcome.samples
    height = TOP + len(PANELS) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{_STYLE}</style>",
        f'<text x="{LEFT}" y="22" font-weight="600">{escape(scenario.title)}</text>',
        f'<text x="{LEFT}" y="42" class="dim">{escape(summary(outcome))}</text>',
    ]
    for index, (name, curves) in enumerate(PANELS):
        most = max(1.0, *(curve.value(one) for one in samples for curve in curves))
        top = TOP + index * (PANEL + GAP)
        parts += _frame(name, most, top, samples[-1].at_s)
        parts += [_drawn(samples, curve, most, top) for curve in curves]
    return "\n".join([*parts, "</svg>", ""])


def summary(outcome: SimulatedRun) -> str:
    """The figures in one line."""
    waits = ", ".join(f"p{percent:g} {outcome.wait_s(percent) * 1000:.0f} ms" for percent in (50, 99, 99.9))
    return (
        f"{outcome.requests} requests, {outcome.timed_out} timed out; up to {outcome.peak} workers (blue), "
        f"at work orange; waits {waits}"
    )


def _frame(name: str, most: float, top: int, until_s: float) -> list[str]:
    bottom, right = top + PANEL, WIDTH - RIGHT
    parts = [
        f'<path class="grid" d="M{LEFT} {top}V{bottom}H{right}"/>',
        f'<text x="{LEFT - 8}" y="{top + 10}" text-anchor="end" class="dim">{most:.0f}</text>',
        f'<text x="{LEFT - 8}" y="{bottom}" text-anchor="end" class="dim">0</text>',
        f'<text x="{LEFT + 6}" y="{top + 10}" class="dim">{name}</text>',
    ]
    every_s = next(step for step in (1, 5, 10, 20, 60, 300) if until_s / step <= 12)
    for at_s in range(0, int(until_s) + 1, every_s):
        x = LEFT + (right - LEFT) * at_s / until_s
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" class="dim">{at_s} s</text>')
    return parts


def _drawn(samples: Sequence[PoolSample], curve: Curve, most: float, top: int) -> str:
    until_s, bottom = samples[-1].at_s, top + PANEL
    points, last = [], None
    for one in samples:
        y = bottom - PANEL * curve.value(one) / most
        x = LEFT + (WIDTH - RIGHT - LEFT) * one.at_s / until_s
        if last is not None and abs(y - last) > 0.05:
            points.append(f"{x:.1f} {last:.1f}")  # it held until here
        if last is None or abs(y - last) > 0.05 or one is samples[-1]:
            points.append(f"{x:.1f} {y:.1f}")
            last = y
    closing = f" {WIDTH - RIGHT} {bottom} {LEFT} {bottom}" if curve.filled else ""
    kind = "polygon" if curve.filled else "polyline"
    return f'<{kind} class="{curve.style}" points="{" ".join(points)}{closing}"/>'
