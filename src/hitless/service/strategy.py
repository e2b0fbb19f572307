"""Strategies that move traffic to a candidate, with CodeDeploy's names and meaning, and with seconds besides minutes.

Equal strategies have one name: `Canary10Percent60Seconds` is printed as `Canary10Percent1Minute`, so
that AWS's strategies have AWS's names.
"""

from __future__ import annotations

import re

from hitless.errors import UsageError

MAX_SHIFT_S = 48 * 3600
"""CodeDeploy's limit for one shift."""

EXAMPLES = "AllAtOnce, Canary10Percent5Minutes, Linear10PercentEvery1Minute, Canary5Percent30Seconds"

_FORM = re.compile(
    r"(?:Canary(?P<canary>[1-9]\d*)Percent|Linear(?P<linear>[1-9]\d*)PercentEvery)"
    r"(?P<count>[1-9]\d{0,6})(?P<unit>Minute|Second)s?",
    re.ASCII,
)
PATTERN = f"AllAtOnce|{_FORM.pattern}"


class Strategy(str):
    """A strategy is its name: `Strategy("Canary10Percent60Seconds")` is `Canary(10, 60)`. ValueError for other text."""

    __slots__ = ()

    def __new__(cls, name: str) -> Strategy:
        return parse(name)

    def __reduce__(self) -> tuple[type[Strategy], tuple[str]]:
        return Strategy, (str(self),)


class AllAtOnce(Strategy):
    """The whole traffic in one step."""

    __slots__ = ()

    def __new__(cls) -> AllAtOnce:
        return str.__new__(cls, "AllAtOnce")


class Canary(Strategy):
    """`percent` of the traffic for `bake_s` seconds, then all of it."""

    __slots__ = __match_args__ = ("percent", "bake_s")
    percent: int
    bake_s: int

    def __new__(cls, percent: int, bake_s: int) -> Canary:
        self = str.__new__(cls, f"Canary{percent}Percent{_duration(bake_s)}")
        self.percent, self.bake_s = percent, bake_s
        return self


class Linear(Strategy):
    """`percent` more of the traffic every `every_s` seconds."""

    __slots__ = __match_args__ = ("percent", "every_s")
    percent: int
    every_s: int

    def __new__(cls, percent: int, every_s: int) -> Linear:
        self = str.__new__(cls, f"Linear{percent}PercentEvery{_duration(every_s)}")
        self.percent, self.every_s = percent, every_s
        return self


def parse_option(name: str) -> Strategy:
    """The strategy that `--strategy` names. UsageError."""
    try:
        return parse(name)
    except ValueError as error:
        raise UsageError(f"--strategy: {error}", hint=f"for example {EXAMPLES}") from error


def parse(name: str) -> Strategy:
    """The strategy of that name, singular or plural unit; ValueError with a sentence about the mistake."""
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
        case Canary(percent, bake_s):
            return ((percent, bake_s), (100, 0))
        case Linear(percent, every_s):
            return (*((weight, every_s) for weight in range(percent, 100, percent)), (100, 0))
        case _:
            return ((100, 0),)


def _duration(seconds: int) -> str:
    count, unit = (seconds // 60, "Minute") if seconds % 60 == 0 else (seconds, "Second")
    return f"{count}{unit}" if count == 1 else f"{count}{unit}s"
