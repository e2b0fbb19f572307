"""Alarms that hitless watches itself: all of them after AllAtOnce, composite ones at any time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from hitless.cloud.release.rollback import abort
from hitless.cloud.transform.guard import watched_s
from hitless.release.result import Outcome, Result
from hitless.service.model import AlarmSettings
from hitless.service.strategy import AllAtOnce
from tests.unit.cloud_fakes import NAMES, World

pytestmark = pytest.mark.unit

META = "MetaAlarm"


@dataclass
class Ringing:
    """Makes an alarm active from one kind of moment on, counted from the second release's first."""

    world: World
    alarm: str
    when: str
    nth: int = 1
    seen: list[str] = field(default_factory=list)

    def __call__(self, _: int, moment: str) -> None:
        self.seen.append(moment)
        if self.seen.count(self.when) == self.nth:
            self.world.ringing.add(self.alarm)


def shipped(world: World, strategy: str = "AllAtOnce") -> Result:
    """Ships the second release of a stage."""
    return world.deploy("b", strategy)


def own_alarm(world: World) -> str:
    """The alarm of the candidate's version of `meta`."""
    probe = World(alarms=world.alarms)
    probe.deploy("a")
    probe.deploy("b")
    (name,) = (one for one in probe.stack.live.resources if one.startswith(META) and one not in _first(world))
    return name


def _first(world: World) -> set[str]:
    return set(world.stack.live.resources)


def world_of(**alarms: object) -> World:
    world = World(alarms=AlarmSettings(**alarms))  # type: ignore[arg-type]
    assert world.deploy("a").outcome is Outcome.LIVE
    return world


@pytest.mark.parametrize("nth", [1, 5])
def test_an_alarm_of_the_new_version_after_an_all_at_once_shift_rolls_back(nth: int) -> None:
    world = world_of(guard_s=60)
    alarm = own_alarm(world)
    world.at = Ringing(world, alarm, "look at alarms", nth)
    result = shipped(world)
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, f"alarm {alarm} rings")
    assert world.serves() == "a"
    assert [step.state for step in result.steps][-2:] == ["guard", "ended"]


def test_a_users_own_alarm_rolls_back_a_release() -> None:
    world = world_of(guard_s=1, also=("disk", "queue"))
    world.at = Ringing(world, "queue", "look at alarms")
    result = shipped(world)
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "alarm queue rings")
    assert world.serves() == "a"


def test_a_users_alarm_that_is_active_before_the_shift_is_ignored() -> None:
    world = world_of(guard_s=60, also=("disk",))
    world.ringing.add("disk")
    assert shipped(world).outcome is Outcome.LIVE
    assert world.serves() == "b"


@pytest.mark.parametrize(
    ("requests_an_hour", "strategy", "few"),
    [
        (3600, "Canary10Percent5Minutes", None),
        (60, "Canary10Percent5Minutes", 0),
        (2000, "Canary10Percent5Minutes", 17),
        (2000, "Canary10Percent10Minutes", None),
        (480, "Linear10PercentEvery1Minute", None),
        (1000, "AllAtOnce", 17),
    ],
)
def test_traffic_that_is_too_low_for_a_verdict_is_reported_before_the_shift(
    requests_an_hour: int, strategy: str, few: int | None
) -> None:
    world = world_of(guard_s=60)
    world.requests_an_hour = requests_an_hour
    world.said.clear()
    assert shipped(world, strategy).outcome is Outcome.LIVE
    notes = [line for line in world.said if "the alarms judge a candidate from 20 requests on" in line]
    assert len(notes) == (few is not None)
    assert few is None or f"traffic {strategy} gives: worldclock-prod-convert {few}, " in notes[0]


def test_the_guard_lasts_whole_minutes_and_the_final_stack_update_follows_it() -> None:
    assert [watched_s(AlarmSettings(guard_s=seconds), AllAtOnce()) for seconds in (0, 1, 30, 60, 61)] == [
        0,
        60,
        60,
        60,
        120,
    ]
    world = world_of(guard_s=90)
    moments: list[str] = []
    world.at = lambda _, moment: moments.append(moment)
    assert shipped(world).outcome is Outcome.LIVE
    looks = [at for at, moment in enumerate(moments) if moment == "look at alarms"]
    assert len(looks) == 61, "every two seconds for two minutes"
    assert moments.index("update the stack") < looks[0]
    assert max(at for at, moment in enumerate(moments) if moment == "update the stack") > looks[-1]


@pytest.mark.parametrize(("guard_s", "strategy"), [(0, "AllAtOnce"), (60, "Canary10Percent5Minutes")])
def test_a_release_has_no_guard_if_it_is_off_or_after_a_bake(guard_s: int, strategy: str) -> None:
    world = world_of(guard_s=guard_s)
    result = shipped(world, strategy)
    assert "guard" not in [step.state for step in result.steps]


def test_an_abort_during_the_guard_rolls_back_the_release() -> None:
    world = world_of(guard_s=60)

    def stop(_: int, moment: str) -> None:
        if moment == "look at alarms":
            world.at = None
            abort(world.cloud(), stage="prod")

    world.at = stop
    result = shipped(world)
    assert result.outcome is Outcome.ABORTED
    assert world.serves() == "a"
    assert world.moments.count("look at alarms") == 1, "it does not wait for the minute's end"


def test_a_composite_alarm_is_not_given_to_codedeploy_but_ends_a_shift() -> None:
    world = world_of(also=("disk", "all"))
    world.composite.add("all")
    world.at = Ringing(world, "all", "look at a deployment")
    result = shipped(world, "Canary10Percent5Minutes")
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "alarm all rings")
    assert world.serves() == "a"
    assert world.ignored[-len(NAMES) :] == [("all",)] * len(NAMES)
