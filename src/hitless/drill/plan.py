"""The plan of a drill, checked before anything is sent or shipped."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hitless.drill.faults import Fault
from hitless.drill.pace import MAX_DURATION_S, MAX_RATE_PER_S, Pace, Pieces, constant, total
from hitless.drill.requests import DrillRequest
from hitless.drill.scenarios import Scenario
from hitless.errors import UsageError

MAX_RELEASES = 10_000
DEADLINE_S = 10.0
LATEST_S = 3.0
"""With a seed, a fault strikes within this time after a release began."""


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """Rates in requests per second, instants and lengths in seconds. `command` reproduces the drill."""

    stage: str
    rate_per_s: float
    duration_s: float
    requests: tuple[DrillRequest, ...]
    scenarios: tuple[Scenario, ...] = ()
    faults: tuple[Fault, ...] = ()
    fault_seed: int | None = None  # faults strike during rollouts, at random; None: evenly spread, between rollouts
    faults_left_out: Mapping[str, str] = field(default_factory=dict)
    profile: str | None = None  # as written; `pieces` is its meaning
    pieces: Pieces = ()  # empty: `rate_per_s` all the time
    seed: int | None = None  # of Poisson arrivals; None: evenly spaced
    http2: bool = False
    report: Path = Path("drill.html")
    command: str = "hitless drill"
    new_connections_percent: float = 20.0
    connections: int = 50
    deadline_s: float = DEADLINE_S

    def check(self, *, yes: bool) -> None:
        """Raise UsageError if a value is out of range, or if the plan needs --yes."""
        _within("--rate", self.rate_per_s, MAX_RATE_PER_S)
        check_duration(self.duration_s)
        if not 0 <= self.new_connections_percent <= 100:
            raise UsageError(
                f"--new-connections: {self.new_connections_percent:g} is not a percentage",
                hint="give a number from 0 to 100",
            )
        if not 1 <= self.connections <= 10_000:
            raise UsageError("--connections must be from 1 to 10000", hint="50 is the default")
        if len(self.scenarios) > MAX_RELEASES:
            raise UsageError(f"--releases: more than {MAX_RELEASES}", hint="ship fewer")
        if not self.requests:
            raise UsageError(
                "there is nothing to send: the service has no route", hint="name requests with --requests FILE"
            )
        broken = [scenario.name for scenario in self.scenarios if scenario.broken]
        if self.stage == "prod" and broken and not yes:
            raise UsageError(
                f"the stage is prod, and {broken[0]} is a release that is meant to fail",
                hint="add --yes if that is what you want, or name another stage",
            )

    @property
    def pace(self) -> Pace:
        """When each request is due."""
        return Pace(self.pieces or constant(self.rate_per_s), self.seed)

    @property
    def asked_per_s(self) -> float:
        """The rate; if it changes, its mean over the planned duration."""
        if not self.pieces:
            return self.rate_per_s
        return round(total(self.pieces, self.duration_s) / self.duration_s, 3)

    def release_instants_s(self) -> tuple[float, ...]:
        """When each release is due, and last the return to the first one: evenly spread, quiet at both ends."""
        return _spread(len(self.scenarios) + 1, self.duration_s)

    def fault_instants_s(self) -> tuple[tuple[int, float], ...]:
        """When each fault is due: the number of releases that must have begun by then, and a time in seconds, after the
        start of the last of them or of the drill.
        """
        if self.fault_seed is None:
            return tuple((0, at_s) for at_s in _spread(len(self.faults), self.duration_s))
        dice, count = random.Random(self.fault_seed), len(self.scenarios)
        longest_s = min(LATEST_S, self.duration_s / (count + 1)) if count else self.duration_s
        return tuple(sorted((dice.randint(min(1, count), count), dice.uniform(0, longest_s)) for _ in self.faults))


def check_duration(duration_s: float) -> None:
    """Raise UsageError if a drill cannot last this long."""
    _within("--duration", duration_s, MAX_DURATION_S)


def _spread(count: int, duration_s: float) -> tuple[float, ...]:
    quiet = min(2.0, 0.1 * duration_s)
    step = (duration_s - 2 * quiet) / max(1, count)
    return tuple(quiet + step * index for index in range(count))


def _within(option: str, value: float, most: float) -> None:
    if not math.isfinite(value) or not 0 < value <= most:
        raise UsageError(f"{option}: {value:g} must be above 0 and at most {most}", hint="see `hitless drill --help`")
