"""Brings each alarm of a release to ALARM on emulated AWS and checks that the release is rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hitless.release.result import Outcome
from hitless.service.model import AlarmSettings
from tests.aws.emulated import EmulatedAws, emulated_aws
from tests.aws.load import Ask, Load
from tests.aws.transition_support import Demo
from tests.unit.definitions import REGION, Function
from tests.unit.transitions import BASE, ITEM, ITEMS, of

pytestmark = pytest.mark.aws

CANARY = "Canary50Percent5Minutes"
FAILS, SLOW, WELL = "x", "s", "b"
ANSWERS = frozenset({(200, "demo-prod-alpha", letter) for letter in ("a", SLOW, WELL)} | {(502, "", "")})
"""What clients may see while a broken version has half of the traffic."""


@pytest.fixture(scope="module")
def fast_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("emulators"), clock_factor=300) as running:
        yield running


@pytest.fixture
def demo(fast_aws: EmulatedAws, tmp_path: Path) -> Demo:
    fast_aws.front.reset()
    fast_aws.emulator.reset()
    return Demo.new(fast_aws, tmp_path)


def test_a_version_that_fails_after_an_all_at_once_shift_is_rolled_back(demo: Demo) -> None:
    _is_rolled_back(demo, FAILS, "AllAtOnce", "alarm demo-prod-AlphaAlarm", guard_s=3600)


@pytest.mark.long
@pytest.mark.parametrize(
    ("letter", "alarms", "named"),
    [
        (FAILS, {}, "demo-prod-AlphaAlarm"),
        (SLOW, {"p99_ms": 300}, "demo-prod-AlphaSlowAlarm"),
        (SLOW, {"p99_relative_percent": 150}, "demo-prod-AlphaSlowerAlarm"),
        (WELL, {"also": ("disk",)}, "disk"),
        (WELL, {"also": ("all",)}, "alarm all rings"),
    ],
    ids=["failing", "slow", "slower", "a metric alarm of one's own", "a composite one"],
)
def test_an_alarm_during_the_bake_rolls_back_the_release(
    demo: Demo, letter: str, alarms: dict[str, Any], named: str
) -> None:
    _is_rolled_back(demo, letter, CANARY, named, **alarms)


@pytest.mark.long
@pytest.mark.parametrize("alarm", ["disk", "all"])
def test_a_users_own_alarm_after_an_all_at_once_shift_rolls_back_the_release(demo: Demo, alarm: str) -> None:
    _is_rolled_back(demo, WELL, "AllAtOnce", f"alarm {alarm} rings", guard_s=3600, also=(alarm,))


def _is_rolled_back(demo: Demo, letter: str, strategy: str, named: str, **alarms: Any) -> None:
    cloudwatch = demo.aws.client("cloudwatch", REGION)
    cloudwatch.put_metric_alarm(
        AlarmName="disk", Namespace="Disk", MetricName="Full", Statistic="Maximum", Period=60, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
    )  # fmt: skip
    cloudwatch.put_composite_alarm(AlarmName="all", AlarmRule="ALARM(disk)")
    demo.alarms = AlarmSettings(minimum_requests=3, **alarms)
    assert demo.ship(BASE).outcome is Outcome.LIVE

    def hear(said: str) -> None:
        if alarms.get("also") and said.startswith(("baking", "guard")):
            cloudwatch.set_alarm_state(AlarmName="disk", StateValue="ALARM", StateReason="a test")

    demo.on_say = hear
    url = demo.url
    assert url is not None
    with Load(url) as load, demo.aws.front.codedeploy.held_bakes():
        load.change({Ask("GET", "items"): ANSWERS})
        load.complete_rounds()
        result = demo.ship(replace(of(alpha=Function((ITEMS, ITEM), letter)), strategy=strategy))
        assert result.outcome is Outcome.ROLLED_BACK, result
        assert named in str(result.reason)
        load.change({Ask("GET", "items"): frozenset({(200, "demo-prod-alpha", "a")})})
        load.complete_rounds()
    assert not load.failures, load.failures[:3]
