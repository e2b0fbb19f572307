"""Worldclock on the emulated AWS by the command line alone: a release, a canary, a rollback, and a fix."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.aws.emulated import EmulatedAws
from tests.aws.front.faults import Fault
from tests.aws.release_support import REGION, Client, Worldclock
from tests.support import eventually

pytestmark = pytest.mark.aws

NAMES = ("zones", "convert", "meetings", "meta", "gate")
GATE = """
import boto3


def handler(event, context):
    boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status="Succeeded",
    )
"""


def with_a_hook(service: Worldclock) -> None:
    """Makes a function of the service the hook of each shift."""
    (service.folder / "worldclock" / "handlers" / "gate.py").write_text(GATE)
    service.edit(
        "serverless.yml", "functions:\n", "functions:\n  gate:\n    handler: worldclock/handlers/gate.handler\n"
    )
    service.edit("serverless.yml", "  zones:\n", "  zones:\n    provisionedConcurrency: 1\n")
    service.edit("serverless.yml", "    workers: 2\n", "    workers: 2\n    provisioned: {zones: {max: 3}}\n")
    canary = "strategy: Canary10Percent5Minutes"
    service.edit(
        "serverless.yml", canary, f"{canary}\n        hooks: {{pre_traffic: gate}}\n        alarms: {{also: [disk]}}"
    )


def with_an_active_alarm(aws: EmulatedAws) -> None:
    """Creates an alarm that is active from the start; it would stop each shift before it began."""
    cloudwatch = aws.client("cloudwatch", REGION)
    cloudwatch.put_metric_alarm(
        AlarmName="disk", Namespace="Disk", MetricName="Full", Statistic="Maximum", Period=60, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
    )  # fmt: skip
    cloudwatch.set_alarm_state(AlarmName="disk", StateValue="ALARM", StateReason="a test")


def test_canary_releases_and_a_rollback_fail_no_request(aws: EmulatedAws, tmp_path: Path) -> None:
    service = Worldclock.new(aws, tmp_path)
    with_a_hook(service)
    with_an_active_alarm(aws)
    first = service.run("deploy", "--message", "the first")
    assert first.code == 0, first.err
    assert (first.json["outcome"], first.json["release"], first.json["live"]) == ("live", 1, None)
    status, answer = service.get("/version")
    assert (status, answer["release"], answer["stage"]) == (200, 1, "prod")

    again = service.run("deploy")
    assert (again.code, again.json["outcome"], again.json["release"]) == (0, "unchanged", 1), again.err

    service.mark("second")
    with Client(service.url + "/version") as client:
        with with_throttled_and_lost_calls(aws):
            second = service.run("deploy")
            assert second.code == 0, second.err
        assert "disk rings already" in second.err
        assert (second.json["outcome"], second.json["strategy"]) == ("live", "Canary10Percent5Minutes")
        asked = [one.events["BeforeAllowTraffic"] for one in aws.front.codedeploy.deployments.values()]
        assert asked == ["Succeeded"] * 4, "no traffic is shifted to the hook itself"
        assert {10, 100} <= {step["weight_percent"] for step in second.json["steps"]}
        assert service.get("/version")[1]["release"] == 2

        _logs_are_those_of_the_function_and_the_release(service)

        back = service.run("rollback")
        assert (back.code, back.json["release"], back.json["outcome"]) == (0, 1, "live"), back.err
        assert service.get("/version")[1]["release"] == 1
        assert service.run("status").json["versions"] == dict.fromkeys(NAMES, "1")

        third = service.run("deploy")
        assert (third.code, third.json["release"]) == (0, 3), third.err
        assert service.get("/version")[1]["release"] == 2, "the same bytes are published but once"
    assert client.asked > 50
    assert client.failed == 0, client.statuses

    state = service.run("status").json
    assert state["release"] == 3
    assert state["weights"]["meta"] == {"2": 100}
    assert state["url"].startswith("https://")
    listed = service.run("releases").json
    assert [(each["release"], each["outcome"], each["live"]) for each in listed] == [
        (3, "live", True),
        (2, "live", False),
        (1, "live", False),
    ]
    assert listed[-1]["message"] == "the first"
    _stack_is_correct(service)


@contextlib.contextmanager
def with_throttled_and_lost_calls(aws: EmulatedAws) -> Iterator[None]:
    """AWS throttles, or loses, a call of each kind; the release succeeds anyway."""
    faults = [Fault("throttle", kind, 2) for kind in ("cloudformation:DescribeStacks", "codedeploy:Create*")]
    faults += [Fault("cut", "codedeploy:GetDeployment", 2), Fault("cut", "s3:ListObjectsV2", 1)]
    aws.front.faults.extend(faults)
    yield
    aws.front.faults.clear()
    assert all(fault.struck == fault.times for fault in faults), faults


def _logs_are_those_of_the_function_and_the_release(service: Worldclock) -> None:
    service.get("/health")
    lines = eventually(lambda: service.run("logs", "meta", "--release", "2").json, deadline_s=60, what="the logs")
    assert {line["function"] for line in lines} == {"worldclock-prod-meta"}
    begun = [line["line"] for line in lines if line["line"].startswith("START ")]
    assert begun
    assert all(line.rstrip().endswith("Version: 2") for line in begun)
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    with service.start("logs", "meta", "-f") as following:
        assert following.stdout is not None
        first = json.loads(following.stdout.readline())
        following.send_signal(signal.SIGINT)
        following.communicate()
    assert (set(first), following.returncode) == ({"at", "function", "line"}, 130)
    unknown = service.run("logs", "nobody")
    assert (unknown.code, "known: convert, gate, meetings, meta, zones" in unknown.err) == (2, True)


def _stack_is_correct(service: Worldclock) -> None:
    lambdas, zones = service.aws.client("lambda", REGION), "worldclock-prod-zones"
    ready = lambdas.get_provisioned_concurrency_config(FunctionName=zones, Qualifier="2")
    assert ready["RequestedProvisionedConcurrentExecutions"] == 1
    scaling = service.aws.front.autoscaling
    assert scaling.targets == {(REGION, f"function:{zones}:2"): (1, 3)}
    assert scaling.policies.keys() == scaling.targets.keys()
    with pytest.raises(ClientError, match="No Provisioned"):
        lambdas.get_provisioned_concurrency_config(FunctionName=zones, Qualifier="1")
    cloudformation = service.aws.client("cloudformation", REGION)
    policy = json.loads(cloudformation.get_stack_policy(StackName="worldclock-prod")["StackPolicyBody"])
    assert [each["Effect"] for each in policy["Statement"]] == ["Allow", "Deny"]
    for name in ("zones", "meta"):
        alias = service.aws.client("lambda", REGION).get_alias(FunctionName=f"worldclock-prod-{name}", Name="live")
        assert alias["FunctionVersion"] == "2"
