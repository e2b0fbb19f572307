"""How traffic moves to a candidate: CodeDeploy's names and meaning, with seconds as well as minutes.

One value has one name: `Canary10Percent60Seconds` and `Canary10Percent1Minute` are equal, and print as the latter, so
that whatever AWS can do is also spelt as AWS spells it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_SHIFT_S = 48 * 3600
"""CodeDeploy's own bound on one shift."""

EXAMPLES = "AllAtOnce, Canary10Percent5Minutes, Linear10PercentEvery1Minute, Canary5Percent30Seconds"

_FORM = re.compile(
    r"(?:Canary(?P<canary>[1-9]\d*)Percent|Linear(?P<linear>[1-9]\d*)PercentEvery)"
    r"(?P<count>[1-9]\d{0,6})(?P<unit>Minute|Second)s?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class AllAtOnce:
    """The whole traffic in one step."""

    def __str__(self) -> str:
        return "AllAtOnce"


@dataclass(frozen=True, slots=True)
class Canary:
    """`percent` of the traffic for `bake_s` seconds, then all of it."""

    percent: int
    bake_s: int

    def __str__(self) -> str:
        return f"Canary{self.percent}Percent{_duration(self.bake_s)}"


@dataclass(frozen=True, slots=True)
class Linear:
    """`percent` more of the traffic every `every_s` seconds."""

    percent: int
    every_s: int

    def __str__(self) -> str:
        return f"Linear{self.percent}PercentEvery{_duration(self.every_s)}"


Strategy = AllAtOnce | Canary | Linear


def parse(name: str) -> Strategy:
    """The strategy of that name, singular or plural unit; ValueError with a sentence that says what is wrong."""
    if name == "AllAtOnce":
        return AllAtOnce()
    form = _FORM.fullmatch(name)
    if form is None:
        raise ValueError(f"{name!r} is not a strategy")
    percent = int(form["canary"] or form["linear"])
    if not 1 <= percent <= 99:
        raise ValueError(f"{name!r} shifts {percent} percent; 1 to 99 are possible")
    seconds = int(form["count"]) * (60 if form["unit"] == "Minute" else 1)
    strategy: Strategy = Canary(percent, seconds) if form["canary"] else Linear(percent, seconds)
    if sum(bake_s for _, bake_s in weights(strategy)) > MAX_SHIFT_S:
        raise ValueError(f"{name!r} takes longer than 48 hours, CodeDeploy's limit")
    return strategy


def weights(strategy: Strategy) -> tuple[tuple[int, int], ...]:
    """The steps in order: (weight in percent, seconds to bake at it). The last one is always (100, 0)."""
    match strategy:
        case AllAtOnce():
            return ((100, 0),)
        case Canary(percent, bake_s):
            return ((percent, bake_s), (100, 0))
        case Linear(percent, every_s):
            return (*((weight, every_s) for weight in range(percent, 100, percent)), (100, 0))


def _duration(seconds: int) -> str:
    count, unit = (seconds // 60, "Minute") if seconds % 60 == 0 else (seconds, "Second")
    return f"{count}{unit}" if count == 1 else f"{count}{unit}s"
