"""Alarms of the live stage, which watch it between releases too."""

from __future__ import annotations

from typing import Any

import pytest

from hitless.aws.template import load_template
from hitless.cloud.setup.stacks import core_stack
from hitless.cloud.transform.desired import desired
from hitless.service.model import AlarmSettings
from tests.aws.front.alarms import evaluate_metrics
from tests.unit.aws_services import make_service
from tests.unit.release_support import RememberedStack, packaged, release

pytestmark = pytest.mark.unit

TOPIC = "arn:aws:sns:us-east-1:123456789012:worldclock-prod-alarms"


def standing(**limits: Any) -> dict[str, dict[str, Any]]:
    wanted = desired(packaged().template, release(alarm_topic=TOPIC, alarms=AlarmSettings(**limits)))
    alarms = {
        name: one["Properties"]
        for name, one in wanted["Resources"].items()
        if one["Type"] == "AWS::CloudWatch::Alarm" and "AlarmActions" in one["Properties"]
    }
    assert all(one["AlarmActions"] == one["OKActions"] == [TOPIC] for one in alarms.values())
    return alarms


def test_the_live_stage_has_alarms_on_its_api_and_on_each_function() -> None:
    alarms = standing()
    throttled = {f"{name}ThrottledAlarm" for name in ("Zones", "Convert", "Meetings", "Meta")}
    assert set(alarms) == {"ApiFailingAlarm", "ApiSlowAlarm", *throttled}
    names = [one["Dimensions"] for name, one in alarms.items() if name in throttled]
    assert [{"Name": "FunctionName", "Value": "worldclock-prod-zones"}] in names
    api = [{"Name": "ApiName", "Value": "prod-worldclock"}, {"Name": "Stage", "Value": "prod"}]
    assert alarms["ApiSlowAlarm"]["Dimensions"] == api


def test_the_limits_are_those_of_the_stages_releases() -> None:
    alarms = standing(error_rate_percent=2, p99_ms=300)
    assert (alarms["ApiFailingAlarm"]["Threshold"], alarms["ApiSlowAlarm"]["Threshold"]) == (2, 300)
    # CloudWatch User Guide, "Recommended alarms", API Gateway, Latency: "Recommended threshold: 2500.0"
    assert standing()["ApiSlowAlarm"]["Threshold"] == 2500


@pytest.mark.parametrize(
    ("requests", "failed", "rings"),
    [(19, 19, False), (20, 1, True), (1000, 10, False), (1000, 11, True), (None, None, False), (1000, None, False)],
)
def test_responses_of_5xx_ring_from_the_minimum_of_requests_on(
    requests: float | None, failed: float | None, *, rings: bool
) -> None:
    alarm = standing()["ApiFailingAlarm"]
    assert (evaluate_metrics(alarm["Metrics"], {"n": requests, "e": failed}) > alarm["Threshold"]) is rings


def test_a_core_stack_without_a_topic_gets_no_alarms() -> None:
    assert not [name for name in desired(packaged().template, release())["Resources"] if "Throttled" in name]


def test_releases_keep_and_change_the_alarms_in_place() -> None:
    stack = RememberedStack()
    for number, limit in ((1, 1), (2, 3)):
        wanted = release(number, alarm_topic=TOPIC, alarms=AlarmSettings(error_rate_percent=limit))
        stack.ship(packaged().template, wanted)
        assert stack.live.resources["ApiFailingAlarm"]["Properties"]["Threshold"] == limit


def test_the_accounts_concurrency_rings_at_nine_tenths_of_its_limit() -> None:
    spec = core_stack(make_service(), cidr=None, zone_id=None, concurrency=1000, notify_email="team@example.com")
    assert (spec.parameters["ConcurrencyAlarmAt"], spec.parameters["NotifyEmail"]) == ("900", "team@example.com")
    alarm = load_template("core")["Resources"]["ConcurrencyAlarm"]["Properties"]
    # AWS Lambda Developer Guide, "Monitoring concurrency": "View this metric using MAX"
    assert (alarm["MetricName"], alarm["Statistic"]) == ("ClaimedAccountConcurrency", "Maximum")
