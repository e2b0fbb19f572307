"""Kills a command on emulated AWS at one of its calls and repeats it: lists the calls and checks the result."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.aws.emulated import emulated_aws
from tests.aws.front.faults import Death
from tests.aws.release_support import Worldclock

CHANGES = re.compile(
    r":(Add|Continue|Copy|Create|Delete|Execute|Invoke|Put|Remove|Rollback|Set|Stop|Tag|Untag|Update|Upload)(?!.*Template)"
)


@dataclass(frozen=True)
class Point:
    """The `nth` call of an operation, before or after it takes effect."""

    operation: str
    nth: int
    after: bool = False

    @property
    def changes(self) -> bool:
        return CHANGES.search(self.operation) is not None

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.operation} #{self.nth}"


def points(calls: list[str]) -> list[Point]:
    """Where a command that made these calls may be killed: before each that differs from the one before it (between two
    of the same kind nothing else happens), and after each that changes something.
    """
    found: list[Point] = []
    seen: dict[str, int] = {}
    last = ""
    for name in calls:
        seen[name] = seen.get(name, 0) + 1
        point = Point(name, seen[name])
        if name != last or point.changes:
            found.append(point)
        if point.changes:
            found.append(Point(name, seen[name], after=True))
        last = name
    return found


@dataclass
class Killed:
    """Worldclock whose commands are killed. `world` has at least one release."""

    world: Worldclock
    marks: int = 0
    live_marker: str = ""
    """What /version answered when all was well last."""
    reached: list[Point] = field(default_factory=list)
    missed: list[Point] = field(default_factory=list)

    def change(self) -> str:
        """Changes the code so that /version responds with a new `marker`, which it returns."""
        self.marks += 1
        meta = self.world.folder / "worldclock" / "handlers" / "meta.py"
        text = re.sub(r'\n        "marker": "\w+",', "", meta.read_text())
        marker = f"m{self.marks}"
        meta.write_text(text.replace("    return {\n", f'    return {{\n        "marker": "{marker}",\n'))
        self.world.mark(marker)
        return marker

    def calls_of(self, *words: str) -> list[str]:
        """The calls that the command makes if it is not interrupted."""
        self.world.aws.front.death = death = Death()
        done = self.world.run(*words)
        self.world.aws.front.death = None
        assert done.code == 0, done.err
        return death.calls

    def kill(self, point: Point, *words: str) -> bool:
        """Starts the command and kills it at that point; False if it ended before it reached the point."""
        front = self.world.aws.front
        with self.world.start(*words) as process:
            front.death = Death(point.operation, point.nth, point.after, process.kill)
            _, err = process.communicate()
            struck, front.death = front.death.struck, None
        (self.reached if struck else self.missed).append(point)
        assert struck or process.returncode == 0, f"{point}: {err}"
        return struck


@contextlib.contextmanager
def killed_world(place: Path, packages: Path, *, clock_factor: float = 600.0) -> Iterator[Killed]:
    """An emulator of its own, so that several commands can be killed at the same time."""
    place.mkdir(parents=True)
    with emulated_aws(place, clock_factor=clock_factor) as aws:
        world = Worldclock.new(aws, place, packages=packages)
        strategy = "strategy: Canary10Percent5Minutes"
        world.edit("serverless.yml", strategy, f"{strategy}\n        alarms: {{guard_s: 0}}")  # a real minute
        yield Killed(world)
