"""Numbers of several rounds: median, extremes, ratios of the same round, goals and the table. Pure.

A ratio is taken round by round, then the median of the ratios: what else the machine does meanwhile hits both sides of
one round, but not two rounds alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of a figure over the rounds, and every round's own."""

    rounds: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError without a value."""
        if not values:
            raise ValueError("a spread needs a round")
        return cls(tuple(values))

    @classmethod
    def of_ratios(cls, ours: Sequence[float], theirs: Sequence[float]) -> Spread:
        """Ours ÷ theirs in each round. Raises ValueError where the numbers of rounds differ or theirs is 0."""
        if any(value == 0 for value in theirs):
            raise ValueError("nothing is a ratio of 0")
        return cls.of([a / b for a, b in zip(ours, theirs, strict=True)])

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def least(self) -> float:
        return min(self.rounds)

    @property
    def greatest(self) -> float:
        return max(self.rounds)

    def text(self, digits: int) -> str:
        """`0.62 (0.58-0.66)`, or the number alone where there was one round."""
        middle = f"{self.median:,.{digits}f}"
        if len(self.rounds) == 1:
            return middle
        return f"{middle} ({self.least:,.{digits}f}–{self.greatest:,.{digits}f})"

    def to_json(self) -> dict[str, Any]:
        return {
            "median": _short(self.median),
            "min": _short(self.least),
            "max": _short(self.greatest),
            "rounds": [_short(value) for value in self.rounds],
        }


class Bound(StrEnum):
    """Which side of a goal is the good one."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True)
class Goal:
    """What the project promises of a figure; the median decides."""

    bound: Bound
    value: float

    def met(self, figure: Spread) -> bool:
        return figure.median >= self.value if self.bound is Bound.AT_LEAST else figure.median <= self.value

    def text(self) -> str:
        return f"{self.bound} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the result. `key` is its name in the JSON document."""

    key: str
    title: str
    unit: str
    spread: Spread
    digits: int = 2
    goal: Goal | None = None
    chart: str = ""
    """The plot that shows it as a bar, if one does; its bar is named by `label`."""
    label: str = ""
    at: float | None = None
    """Its place on the horizontal axis, if the plot is a curve."""

    @property
    def verdict(self) -> str:
        """`met`, `MISSED`, or nothing where no goal is set."""
        if self.goal is None:
            return ""
        return "met" if self.goal.met(self.spread) else "MISSED"

    def line(self) -> str:
        """Title, value and goal in one line."""
        return f"{self.title.strip()}: {self.spread.text(self.digits)} {self.unit}" + (
            f" (goal {self.goal.text()})" if self.goal else ""
        )

    def to_json(self) -> dict[str, Any]:
        goal = {"goal": self.goal.text(), "met": self.goal.met(self.spread)} if self.goal else {}
        return {"title": self.title, "unit": self.unit, **self.spread.to_json(), **goal}


@dataclass(frozen=True, slots=True)
class Section:
    """A table: what was measured, and the sentence that says how."""

    title: str
    how: str
    figures: tuple[Figure, ...]

    def text(self) -> str:
        """For a terminal of 120 columns."""
        rows = [
            (figure.title, figure.spread.text(figure.digits), figure.unit, _goal_of(figure)) for figure in self.figures
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"  {title:<{widths[0]}}  {value:>{widths[1]}} {unit:<{widths[2]}}  {goal}".rstrip()
            for title, value, unit, goal in rows
        ]
        return "\n".join([self.title, f"  ({self.how})", *lines])

    def to_json(self) -> dict[str, Any]:
        return {"title": self.title, "how": self.how, **{figure.key: figure.to_json() for figure in self.figures}}


def timed(
    titles: Mapping[str, str], rounds: Sequence[Mapping[str, float]], digits: int, goals: Mapping[str, Goal]
) -> tuple[Figure, ...]:
    """A figure in seconds for each title, by its key in the rounds."""
    return tuple(
        Figure(key, title, "s", Spread.of([one[key] for one in rounds]), digits, goals.get(key))
        for key, title in titles.items()
    )


def missed(sections: Sequence[Section]) -> list[Figure]:
    """The figures whose goal is not met."""
    return [figure for section in sections for figure in section.figures if figure.verdict == "MISSED"]


def _goal_of(figure: Figure) -> str:
    return f"goal {figure.goal.text()}: {figure.verdict}" if figure.goal else ""


def _short(value: float) -> float:
    return float(f"{value:.4g}")
