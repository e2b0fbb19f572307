"""The emulated CodeDeploy follows AWS's rules: hooks, alarms, stop and rollback, one deployment per group."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from tests.aws.emulated import EmulatedAws
from tests.aws.front.alarms import evaluate
from tests.aws.front.standins import REFUSED
from tests.aws.test_front_stacks import deploy, package
from tests.support import eventually

pytestmark = pytest.mark.aws

DEADLINE_S = 120.0
"""For what takes seconds on a quiet machine."""

HOOK = """
import boto3

def handler(event, context):
    boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status="STATUS",
    )
"""


def two_versions(aws: EmulatedAws) -> None:
    deploy(aws)
    lambdas = aws.session_client("lambda")
    lambdas.update_function_code(FunctionName="shop-dev-api", ZipFile=package("two"))
    assert lambdas.publish_version(FunctionName="shop-dev-api")["Version"] == "2"


def start(aws: EmulatedAws, *, current: str = "1", hooks: dict[str, str] | None = None, **more: Any) -> str:
    properties = {"Name": "shop-dev-api", "Alias": "live", "CurrentVersion": current, "TargetVersion": "2"}
    appspec = {
        "version": 0.0,
        "Resources": [{"api": {"Type": "AWS::Lambda::Function", "Properties": properties}}],
        "Hooks": [{event: name} for event, name in (hooks or {}).items()],
    }
    revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": json.dumps(appspec)}}
    given = {"applicationName": "shop-dev-app", "deploymentGroupName": "api", "revision": revision, **more}
    return str(aws.session_client("codedeploy").create_deployment(**given)["deploymentId"])


def ended(aws: EmulatedAws, deployment: str) -> dict[str, Any]:
    client = aws.session_client("codedeploy")

    def info() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get_deployment(deploymentId=deployment)["deploymentInfo"]
        return found if found["status"] in ("Succeeded", "Failed", "Stopped") else None

    found = eventually(info, deadline_s=DEADLINE_S)
    assert found is not None
    return found


def live(aws: EmulatedAws) -> tuple[str, dict[str, float]]:
    alias = aws.client("lambda").get_alias(FunctionName="shop-dev-api", Name="live")
    return alias["FunctionVersion"], alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})


def hook(aws: EmulatedAws, name: str, status: str) -> str:
    """A function that reports `status` for a lifecycle event."""
    roles = aws.client("iam").list_roles()["Roles"]
    aws.session_client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.11",
        Handler="app.handler",
        Role=roles[0]["Arn"],
        Code={"ZipFile": package("", source=HOOK.replace("STATUS", status))},
        Timeout=30,
    )
    return name


def test_a_group_with_an_active_deployment_refuses_a_second_one(aws: EmulatedAws) -> None:
    two_versions(aws)
    with aws.front.codedeploy.held_bakes():
        start(aws)
        with pytest.raises(botocore.exceptions.ClientError, match="already has an active Deployment"):
            start(aws)


def test_an_appspec_whose_current_version_is_not_live_fails_without_moving_traffic(aws: EmulatedAws) -> None:
    two_versions(aws)
    info = ended(aws, start(aws, current="7"))
    assert (info["status"], live(aws)) == ("Failed", ("1", {}))


def test_a_hook_that_reports_failure_fails_the_deployment_before_any_traffic(aws: EmulatedAws) -> None:
    two_versions(aws)
    good = hook(aws, "before", "Succeeded")
    bad = hook(aws, "wrong", "Failed")
    failed = ended(aws, start(aws, hooks={"BeforeAllowTraffic": bad}))
    assert (failed["status"], failed["errorInformation"]["code"]) == ("Failed", "HOOK_EXECUTION_FAILURE")
    assert live(aws) == ("1", {})
    assert ended(aws, start(aws, hooks={"BeforeAllowTraffic": good}))["status"] == "Succeeded"
    assert live(aws) == ("2", {})


def test_a_stop_with_rollback_moves_all_traffic_back_in_a_deployment_of_its_own(aws: EmulatedAws) -> None:
    two_versions(aws)
    client = aws.session_client("codedeploy")
    with aws.front.codedeploy.held_bakes():
        started = start(aws)
        eventually(lambda: live(aws)[1] == {"2": 0.1}, deadline_s=DEADLINE_S)
        client.stop_deployment(deploymentId=started, autoRollbackEnabled=True)
        info = ended(aws, started)
    assert (info["status"], info["errorInformation"]["code"]) == ("Stopped", "MANUAL_STOP")
    back = ended(aws, info["rollbackInfo"]["rollbackDeploymentId"])
    assert (back["creator"], back["status"], live(aws)) == ("codeDeployRollback", "Succeeded", ("1", {}))


def test_an_alarm_during_a_shift_stops_it_and_rolls_it_back(aws: EmulatedAws) -> None:
    two_versions(aws)
    alarms = aws.session_client("cloudwatch")
    alarms.put_metric_alarm(
        AlarmName="errors",
        Namespace="Test",
        MetricName="Errors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )
    rules: dict[str, Any] = {
        "overrideAlarmConfiguration": {"enabled": True, "alarms": [{"name": "errors"}]},
        "autoRollbackConfiguration": {"enabled": True, "events": ["DEPLOYMENT_STOP_ON_ALARM"]},
    }
    with aws.front.codedeploy.held_bakes():
        started = start(aws, **rules)
        eventually(lambda: live(aws)[1] == {"2": 0.1}, deadline_s=DEADLINE_S)
        alarms.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="a test")
        info = ended(aws, started)
    assert (info["status"], info["errorInformation"]["code"]) == ("Stopped", "ALARM_ACTIVE")
    assert ended(aws, info["rollbackInfo"]["rollbackDeploymentId"])["status"] == "Succeeded"
    assert live(aws) == ("1", {})


def test_an_error_rate_in_metric_math_needs_minimum_traffic() -> None:
    rate = "IF(FILL(n,0)>=20,100*FILL(e,0)/n,0)"
    assert evaluate(rate, {"n": 19.0, "e": 19.0}) == 0
    assert evaluate(rate, {"n": 40.0, "e": 10.0}) == 25
    assert evaluate(rate, {"n": None, "e": None}) == 0
    with pytest.raises(ValueError, match="metric math"):
        evaluate("SEARCH(n)", {"n": 1.0})


def test_the_documentation_lists_the_types_that_are_emulated_by_a_stand_in() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "aws-emulation.md").read_text("utf-8")
    assert re.findall(r"^\| `(AWS::\w+::\w+)` \|", page, re.MULTILINE) == sorted(REFUSED)
