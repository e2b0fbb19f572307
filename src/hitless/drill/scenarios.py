"""What a release of a drill is like, and how its rollout must end. One table: a new scenario is one entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hitless.drill import breaking
from hitless.drill.breaking import Alteration
from hitless.errors import UsageError
from hitless.release.result import Outcome

CANARY = "Canary10Percent5Seconds"
LINEAR = "Linear25PercentEvery2Seconds"
LONG_CANARY = "Canary10Percent30Seconds"
"""For what is broken: as long as a verdict may take where requests are few. The alarm ends it earlier."""


class Verb(StrEnum):
    """What ships it."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of release. `alter` changes the copy of the service before it is shipped, by `strategy` if it has one
    (else by the drill's, or the stage's own).
    """

    name: str
    summary: str
    expected: Outcome = Outcome.LIVE
    verb: Verb = Verb.DEPLOY
    alter: Alteration | None = None
    strategy: str | None = None

    @property
    def broken(self) -> bool:
        """Whether the release is meant to fail: a stage named prod takes one only with --yes."""
        return self.expected is not Outcome.LIVE


def _broken(name: str, summary: str, alter: Alteration, strategy: str | None = None) -> Scenario:
    return Scenario(name, summary, Outcome.ROLLED_BACK, alter=alter, strategy=strategy)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("good", "a healthy release"),
        Scenario("canary", "a healthy release, a tenth of the traffic first", strategy=CANARY),
        Scenario("linear", "a healthy release, a quarter of the traffic after the other", strategy=LINEAR),
        Scenario("rollback", "the release before this one, again", verb=Verb.ROLLBACK),
        _broken("import-crash", "its handlers' modules raise at import", breaking.import_crash),
        _broken("never-ready", "its import hangs", breaking.never_ready),
        _broken("raises-on-route", "one of its routes raises", breaking.raises_on_route, LONG_CANARY),
        _broken("slow", "it takes ten times as long", breaking.slow, LONG_CANARY),
        _broken("leaks", "each request leaks memory, until the process is killed", breaking.leaks, LONG_CANARY),
        _broken("exits", "one of its routes ends the process in mid-request", breaking.exits, LONG_CANARY),
    )
}


def choose(names: Sequence[str], releases: int) -> tuple[Scenario, ...]:
    """The scenario of each of `releases` releases: the names in turn, over and over; `good` without any.

    Raises UsageError for an unknown name.
    """
    for name in names:
        if name not in SCENARIOS:
            raise UsageError(f"--scenarios: {name!r} is unknown", hint=f"known are {', '.join(SCENARIOS)}")
    turns = [SCENARIOS[name] for name in names] or [SCENARIOS["good"]]
    return tuple(turns[index % len(turns)] for index in range(releases))
