"""What guards a shift: an alarm for each version, and the CodeDeploy application, groups and role.

An alarm's name is new with each version, so it begins in INSUFFICIENT_DATA: an old one that still rings cannot hold
up the release that mends it. It reads the version's own traffic (`ExecutedVersion`) through the alias, and only above
the stage's minimum of requests.
"""

from __future__ import annotations

from typing import Any

from hitless.cloud.transform.model import ALIAS, APPLICATION_ID, FunctionIds, ReleaseInput, Resource
from hitless.errors import ServiceFileError
from hitless.service.strategy import AllAtOnce, Canary, Linear, Strategy

ROLE_ID = "CodeDeployRole"
_PREDEFINED = {
    "AllAtOnce",
    *(f"Canary10Percent{minutes}Minutes" for minutes in (5, 10, 15, 30)),
    "Linear10PercentEvery1Minute",
    *(f"Linear10PercentEvery{minutes}Minutes" for minutes in (2, 3, 10)),
}
DETECTION_PERIOD_S = 60


def whole_minutes(strategy: Strategy) -> Strategy:
    """The strategy in whole minutes, rounded up: CodeDeploy's configurations know no seconds."""
    match strategy:
        case Canary(percent, bake_s):
            return Canary(percent, -(-bake_s // 60) * 60)
        case Linear(percent, every_s):
            return Linear(percent, -(-every_s // 60) * 60)
        case AllAtOnce():
            return strategy


def configuration_name(strategy: Strategy, release: ReleaseInput) -> str:
    """CodeDeploy's name of the strategy: its own where it has one, else that of a configuration in our stack."""
    if str(strategy) in _PREDEFINED:
        return f"CodeDeployDefault.Lambda{strategy}"
    return f"{release.service}-{release.stage}-{strategy}"


def add_application(resources: dict[str, Resource], functions: list[str], release: ReleaseInput) -> None:
    """The application, the role that may move these functions' aliases and no other, and the strategy."""
    resources[APPLICATION_ID] = {
        "Type": "AWS::CodeDeploy::Application",
        "Properties": {"ApplicationName": f"{release.service}-{release.stage}", "ComputePlatform": "Lambda"},
    }
    arns = [{"Fn::GetAtt": [function, "Arn"]} for function in functions]
    aliases = [{"Fn::Sub": f"${{{function}.Arn}}:{ALIAS}"} for function in functions]
    statements = [
        {"Effect": "Allow", "Action": ["lambda:GetAlias", "lambda:UpdateAlias"], "Resource": [*arns, *aliases]},
        {"Effect": "Allow", "Action": ["lambda:GetProvisionedConcurrencyConfig"], "Resource": aliases},
        {"Effect": "Allow", "Action": ["cloudwatch:DescribeAlarms"], "Resource": "*"},
    ]
    trust = {"Effect": "Allow", "Principal": {"Service": "codedeploy.amazonaws.com"}, "Action": "sts:AssumeRole"}
    resources[ROLE_ID] = {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [{"PolicyName": "shift", "PolicyDocument": {"Version": "2012-10-17", "Statement": statements}}],
        },
    }
    _add_configuration(resources, release)


def _add_configuration(resources: dict[str, Resource], release: ReleaseInput) -> None:
    strategy = whole_minutes(release.strategy)
    if str(strategy) in _PREDEFINED:
        return
    match strategy:
        case Canary(percent, seconds):
            routing: dict[str, Any] = {
                "Type": "TimeBasedCanary",
                "TimeBasedCanary": {"CanaryPercentage": percent, "CanaryInterval": seconds // 60},
            }
        case Linear(percent, seconds):
            routing = {
                "Type": "TimeBasedLinear",
                "TimeBasedLinear": {"LinearPercentage": percent, "LinearInterval": seconds // 60},
            }
        case _:
            raise ServiceFileError(f"{strategy} is no strategy of CodeDeploy's", hint="see docs/aws-releases.md")
    resources[f"CodeDeployConfig{strategy}"] = {
        "Type": "AWS::CodeDeploy::DeploymentConfig",
        "Properties": {
            "DeploymentConfigName": configuration_name(strategy, release),
            "ComputePlatform": "Lambda",
            "TrafficRoutingConfig": routing,
        },
    }


def add_guard(resources: dict[str, Resource], ids: FunctionIds, digest: str, release: ReleaseInput) -> None:
    """The version's alarm and the function's deployment group, whose alarm it is."""
    alarm = ids.alarm(digest)
    resources[alarm] = _alarm(resources, ids, digest, release)
    strategy = whole_minutes(release.strategy)
    configuration: Any = configuration_name(strategy, release)
    if str(strategy) not in _PREDEFINED:
        configuration = {"Ref": f"CodeDeployConfig{strategy}"}
    resources[ids.group] = {
        "Type": "AWS::CodeDeploy::DeploymentGroup",
        "Properties": {
            "ApplicationName": {"Ref": APPLICATION_ID},
            "DeploymentGroupName": ids.base,
            "ServiceRoleArn": {"Fn::GetAtt": [ROLE_ID, "Arn"]},
            "DeploymentConfigName": configuration,
            "DeploymentStyle": {"DeploymentType": "BLUE_GREEN", "DeploymentOption": "WITH_TRAFFIC_CONTROL"},
            "AutoRollbackConfiguration": {
                "Enabled": True,
                "Events": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM", "DEPLOYMENT_STOP_ON_REQUEST"],
            },
            "AlarmConfiguration": {"Enabled": True, "Alarms": [{"Name": {"Ref": alarm}}]},
        },
    }


def _alarm(resources: dict[str, Resource], ids: FunctionIds, digest: str, release: ReleaseInput) -> Resource:
    name = resources[ids.function]["Properties"]["FunctionName"]
    dimensions = [
        {"Name": "FunctionName", "Value": name},
        {"Name": "Resource", "Value": f"{name}:{ALIAS}"},
        {"Name": "ExecutedVersion", "Value": {"Fn::GetAtt": [ids.version(digest), "Version"]}},
    ]
    least = release.alarms.minimum_requests
    percent = f"IF(FILL(n,0)>={least},100*FILL(e,0)/n,0)"
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmDescription": f"{name}: failed share of one version's requests",
            "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": release.alarms.error_rate_percent,
            "EvaluationPeriods": 1,
            "TreatMissingData": "notBreaching",
            "Metrics": [
                {"Id": "failed", "Expression": percent, "Label": "failed percent", "ReturnData": True},
                _metric("e", "Errors", dimensions),
                _metric("n", "Invocations", dimensions),
            ],
        },
    }


def _metric(name: str, metric: str, dimensions: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "Id": name,
        "ReturnData": False,
        "MetricStat": {
            "Metric": {"Namespace": "AWS/Lambda", "MetricName": metric, "Dimensions": dimensions},
            "Period": DETECTION_PERIOD_S,
            "Stat": "Sum",
        },
    }
