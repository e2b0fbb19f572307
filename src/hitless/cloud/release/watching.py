"""Alarms that the tool watches itself, because CodeDeploy does not: composite ones, and all of them after AllAtOnce.

CodeDeploy asks CloudWatch for the alarms of a group by their names alone, and by a name alone CloudWatch tells of
metric alarms (DescribeAlarms, `AlarmTypes`). So composite alarms never stand in a deployment's list. An alarm that
rings as the shift begins cannot tell anything of the release and is watched by nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from hitless.aws.codedeploy import Move
from hitless.cloud.records.rollouts import Counter
from hitless.cloud.stage.settling import Cloud
from hitless.cloud.transform.model import FunctionIds, Template

MINUTE_S = 60
"""Lambda publishes its metrics by the minute: less is no time to see anything in."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The person's own alarms during one shift."""

    counter: Counter
    metric: tuple[str, ...] = ()
    composite: tuple[str, ...] = ()
    ringing_before: tuple[str, ...] = ()

    @classmethod
    def begin(cls, cloud: Cloud, names: Collection[str]) -> Watch:
        """As they stand now; says which ring already. UsageError where one is not there."""
        found = cloud.traffic.alarms(names)
        for one in found:
            if one.rings:
                cloud.say(f"{one.name} rings already: it cannot tell anything of this release, and is not watched")
        return cls(
            cloud.traffic,
            tuple(one.name for one in found if not one.rings and not one.composite),
            tuple(one.name for one in found if not one.rings and one.composite),
            tuple(one.name for one in found if one.rings),
        )

    @property
    def not_for_codedeploy(self) -> tuple[str, ...]:
        """What a deployment's list leaves out."""
        return (*self.ringing_before, *self.composite)

    def beside_codedeploy(self) -> list[str]:
        """Those that ring now, of the alarms that CodeDeploy does not watch during the shift."""
        return self.counter.ringing(self.composite)

    def after(self, candidates: Collection[str]) -> list[str]:
        """Those that ring now, of all that are watched after the shift: `candidates` are the new versions' own."""
        return self.counter.ringing([*candidates, *self.metric, *self.composite])


def guard_seconds(guard_s: int) -> int:
    """`guard_s` in whole minutes, rounded up."""
    return -(-guard_s // MINUTE_S) * MINUTE_S


def alarms_of(wanted: Template, moves: Iterable[Move]) -> list[str]:
    """The logical ids of the alarms of the versions that these moves lead to."""
    groups = (wanted["Resources"][FunctionIds(move.group).group]["Properties"] for move in moves)
    named = [one["Name"] for group in groups for one in group["AlarmConfiguration"]["Alarms"]]
    return [name["Ref"] for name in named if isinstance(name, dict)]
