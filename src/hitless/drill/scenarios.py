"""What a release of a drill is like, and how its rollout must end. One table: a new scenario is one entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hitless.drill.workspace import Workspace
from hitless.errors import UsageError

READY_TIMEOUT_S = 3


class Expected(StrEnum):
    """How a rollout may end, in the words of the command line's contract."""

    LIVE = "live"
    ROLLED_BACK = "rolled_back"


class Verb(StrEnum):
    """What ships it."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of release. `alter` changes the copy of the service before it is shipped."""

    name: str
    summary: str
    expected: Expected = Expected.LIVE
    verb: Verb = Verb.DEPLOY
    alter: Callable[[Workspace], None] | None = None

    @property
    def broken(self) -> bool:
        """Whether the release is meant to fail: a stage named prod takes one only with --yes."""
        return self.expected is not Expected.LIVE


def _import_crash(workspace: Workspace) -> None:
    workspace.append('raise RuntimeError("broken on purpose by a drill: scenario import-crash")\n')


def _never_ready(workspace: Workspace) -> None:
    workspace.append("import time\n\ntime.sleep(3600)  # broken on purpose by a drill: scenario never-ready\n")
    workspace.set_stage("ready_timeout_s", READY_TIMEOUT_S)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("good", "a healthy release"),
        Scenario("import-crash", "its handlers' modules raise at import", Expected.ROLLED_BACK, alter=_import_crash),
        Scenario("never-ready", "its import hangs", Expected.ROLLED_BACK, alter=_never_ready),
        Scenario("rollback", "the release before this one, again", verb=Verb.ROLLBACK),
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
