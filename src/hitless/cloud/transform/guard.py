"""Resources that guard a shift: alarms for each version, hooks, and CodeDeploy's application, groups and role.

Each version has an alarm with a new name, which begins in INSUFFICIENT_DATA: an old alarm that still rings cannot block
the release that fixes it. It reads the version's own traffic (`ExecutedVersion`) through the alias, from the stage's
minimum of requests on. Its period is as long as the shift, and CloudWatch moves that window forward each minute (Amazon
CloudWatch User Guide, "Alarm evaluation windows"): so it judges all requests since the shift began, as the engine does.
The wrapper counts what Lambda does not count as an error: responses of 5xx and shielded requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hitless.aws.layer.hitless_wrapper import FAILED, NAMESPACE, SHIELDED
from hitless.cloud.transform.functions import is_wrapped, named
from hitless.cloud.transform.model import ALIAS, APPLICATION_ID, FunctionIds, ReleaseInput, Resource, of_type
from hitless.errors import ServiceFileError
from hitless.service.model import ALARM_DEVIATIONS, ALARM_FLOOR_MS, AlarmSettings, Hooks
from hitless.service.strategy import Canary, Linear, Strategy, weights

ROLE_ID = "CodeDeployRole"
NAMED_AT_MOST = 20
"""A role's inline policies have room for 10,240 characters (IAM quotas), and a function takes up to 400. A role for
more functions names their common prefix.
"""
_PREDEFINED = {
    "AllAtOnce",
    *(f"Canary10Percent{minutes}Minutes" for minutes in (5, 10, 15, 30)),
    "Linear10PercentEvery1Minute",
    *(f"Linear10PercentEvery{minutes}Minutes" for minutes in (2, 3, 10)),
}
MINUTE_S = 60
LONGEST_PERIOD_S = 1800
"""A longer shift is judged by its last half hour, so that a late failure is not lost among earlier successes."""

LIVE = "live version"
"""Placeholder for the version that is live when the release expands."""


def watched_s(alarms: AlarmSettings, strategy: Strategy) -> int:
    """As long as the strategy bakes, in seconds; for AllAtOnce `guard_s`, in whole minutes."""
    return sum(bake_s for _, bake_s in weights(whole_minutes(strategy))) or -(-alarms.guard_s // MINUTE_S) * MINUTE_S


def alarm_period_s(release: ReleaseInput) -> int:
    """The window over which alarms judge a shift, in seconds."""
    return max(MINUTE_S, min(LONGEST_PERIOD_S, watched_s(release.alarms, release.strategy)))


def whole_minutes(strategy: Strategy) -> Strategy:
    """The strategy with its times rounded up to whole minutes: CodeDeploy has no seconds."""
    match strategy:
        case Canary(percent, bake_s):
            return Canary(percent, -(-bake_s // 60) * 60)
        case Linear(percent, every_s):
            return Linear(percent, -(-every_s // 60) * 60)
        case _:
            return strategy


def configuration_name(strategy: Strategy, release: ReleaseInput) -> str:
    """CodeDeploy's name of the strategy: its own if there is one, else that of a configuration in our stack."""
    if str(strategy) in _PREDEFINED:
        return f"CodeDeployDefault.Lambda{strategy}"
    return f"{release.service}-{release.stage}-{strategy}"


def add_application(
    resources: dict[str, Resource], functions: list[str], hooks: list[str], release: ReleaseInput
) -> None:
    """Add the application, the strategy, and the role that may move the functions' aliases and invoke the hooks."""
    resources[APPLICATION_ID] = {
        "Type": "AWS::CodeDeploy::Application",
        "Properties": {"ApplicationName": f"{release.service}-{release.stage}", "ComputePlatform": "Lambda"},
    }
    prefix, told = f"{release.service}-{release.stage}-", functions
    if len(functions) > NAMED_AT_MOST:
        told = [one for one in functions if not resources[one]["Properties"]["FunctionName"].startswith(prefix)]
    arns: list[Any] = [{"Fn::GetAtt": [function, "Arn"]} for function in told]
    aliases: list[Any] = [{"Fn::Sub": f"${{{function}.Arn}}:{ALIAS}"} for function in told]
    if len(told) < len(functions):
        others = f"arn:${{AWS::Partition}}:lambda:${{AWS::Region}}:${{AWS::AccountId}}:function:{prefix}*"
        arns.append({"Fn::Sub": others})
        aliases.append({"Fn::Sub": f"{others}:{ALIAS}"})
    statements = [
        {"Effect": "Allow", "Action": ["lambda:GetAlias", "lambda:UpdateAlias"], "Resource": [*arns, *aliases]},
        {"Effect": "Allow", "Action": ["lambda:GetProvisionedConcurrencyConfig"], "Resource": aliases},
        {"Effect": "Allow", "Action": ["cloudwatch:DescribeAlarms"], "Resource": "*"},
    ]
    if hooks:
        asked = [{"Fn::GetAtt": [hook, "Arn"]} for hook in hooks]
        statements.append({"Effect": "Allow", "Action": ["lambda:InvokeFunction"], "Resource": asked})
    groups = "arn:${AWS::Partition}:codedeploy:${AWS::Region}:${AWS::AccountId}:deploymentgroup:"
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "codedeploy.amazonaws.com"},
        "Action": "sts:AssumeRole",
        # CodeDeploy User Guide, "Cross-service confused deputy prevention"
        "Condition": {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
            "ArnLike": {"aws:SourceArn": {"Fn::Sub": f"{groups}{release.service}-{release.stage}/*"}},
        },
    }
    role = {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [{"PolicyName": "shift", "PolicyDocument": {"Version": "2012-10-17", "Statement": statements}}],
        },
    }
    resources[ROLE_ID] = named(role, ROLE_ID, release)
    _add_configuration(resources, release)


def _add_configuration(resources: dict[str, Resource], release: ReleaseInput) -> None:
    strategy = whole_minutes(release.strategy)
    if str(strategy) in _PREDEFINED:
        return
    match strategy:
        case Canary(percent, seconds):
            kind = "Canary"
        case Linear(percent, seconds):
            kind = "Linear"
        case _:
            raise ServiceFileError(f"{strategy} is not a strategy of CodeDeploy", hint="see docs/aws-releases.md")
    steps = {f"{kind}Percentage": percent, f"{kind}Interval": seconds // 60}
    resources[f"CodeDeployConfig{strategy}"] = {
        "Type": "AWS::CodeDeploy::DeploymentConfig",
        "Properties": {
            "DeploymentConfigName": configuration_name(strategy, release),
            "ComputePlatform": "Lambda",
            "TrafficRoutingConfig": {"Type": f"TimeBased{kind}", f"TimeBased{kind}": steps},
        },
    }


def hooks_of(release_hooks: Hooks, lambda_names: Mapping[str, str]) -> dict[str, str]:
    """The hooks of an AppSpec: lifecycle event → Lambda's name. `lambda_names` is by the name in serverless.yml.

    A name without a version makes CodeDeploy invoke the newest code, which is the candidate's.
    """
    asked = {"BeforeAllowTraffic": release_hooks.pre_traffic, "AfterAllowTraffic": release_hooks.post_traffic}
    return {event: lambda_names[name] for event, name in asked.items() if name}


def add_guard(resources: dict[str, Resource], ids: FunctionIds, digest: str, release: ReleaseInput) -> None:
    """Add the version's alarms and the function's deployment group, which watches them."""
    alarms = {ids.alarm(digest): _failing(resources, ids, digest, release)}
    if release.alarms.p99_ms is not None:
        alarms[ids.alarm(digest, "Slow")] = _slow(resources, ids, digest, release)
    if release.alarms.p99_relative_percent is not None:
        alarms[ids.alarm(digest, "Slower")] = _slower(resources, ids, digest, release)
    resources.update(alarms)
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
            "AlarmConfiguration": {
                "Enabled": True,
                "Alarms": [{"Name": name} for name in [*({"Ref": alarm} for alarm in alarms), *release.alarms.also]],
            },
        },
    }


def _failing(resources: dict[str, Resource], ids: FunctionIds, digest: str, release: ReleaseInput) -> Resource:
    """The share of the version's requests that failed, shielded or not: Wilson's lower bound of it, in percent, as in
    `hitless.rollout.alarms`.
    """
    name, dimensions = _version(resources, ids, digest)
    bad, counted = "FILL(e,0)", []
    if is_wrapped(resources[ids.function]):
        ours = [one for one in dimensions if one["Name"] != "Resource"]
        bad = "FILL(e,0)+FILL(r,0)+FILL(s,0)"
        counted = [_metric("r", FAILED, ours, space=NAMESPACE), _metric("s", SHIELDED, ours, space=NAMESPACE)]
    z = ALARM_DEVIATIONS
    lower = f"(p+{z**2 / 2:g}/n-{z:g}*(p*(1-p)/n+{z**2 / 4:g}/(n*n))^0.5)/(1+{z**2:g}/n)"
    percent = f"IF(FILL(n,0)>={release.alarms.minimum_requests},IF(b>0,100*{lower},0),0)"
    return _alarm(
        f"{name}: failed share of one version's requests",
        release.alarms.error_rate_percent,
        {"Id": "failed", "Expression": percent, "Label": "failed percent, with confidence", "ReturnData": True},
        _metric("e", "Errors", dimensions),
        _metric("n", "Invocations", dimensions),
        *counted,
        {"Id": "b", "Expression": bad, "Label": "failed", "ReturnData": False},
        {"Id": "p", "Expression": "IF(b<n,b/n,1)", "Label": "failed share", "ReturnData": False},
        period_s=alarm_period_s(release),
    )


def _slow(resources: dict[str, Resource], ids: FunctionIds, digest: str, release: ReleaseInput) -> Resource:
    """The p99 of the version's durations, as Lambda measures them."""
    name, dimensions = _version(resources, ids, digest)
    p99 = f"IF(FILL(n,0)>={release.alarms.minimum_requests},FILL(d,0),0)"
    return _alarm(
        f"{name}: p99 of one version's durations",
        release.alarms.p99_ms,
        {"Id": "slow", "Expression": p99, "Label": "p99 in ms", "ReturnData": True},
        _metric("d", "Duration", dimensions, "p99"),
        _metric("n", "Invocations", dimensions),
        period_s=alarm_period_s(release),
    )


def _slower(resources: dict[str, Resource], ids: FunctionIds, digest: str, release: ReleaseInput) -> Resource:
    """How far the version's p99 exceeds the limit relative to the live version's, in the same time."""
    name, mine = _version(resources, ids, digest)
    theirs = [{**one, "Value": LIVE} if one["Name"] == "ExecutedVersion" else one for one in mine]
    ratio = (release.alarms.p99_relative_percent or 100) / 100
    allowed = f"IF({ratio:g}*l>l+{ALARM_FLOOR_MS:g},{ratio:g}*l,l+{ALARM_FLOOR_MS:g})"
    least = release.alarms.minimum_requests
    above = f"IF(FILL(n,0)>={least},IF(FILL(m,0)>={least},FILL(d,0)-{allowed},0),0)"
    return _alarm(
        f"{name}: p99 of one version's durations above {100 * ratio:g} % of the live version's",
        0,
        {"Id": "slower", "Expression": above, "Label": "ms above what is allowed", "ReturnData": True},
        _metric("d", "Duration", mine, "p99"),
        _metric("n", "Invocations", mine),
        _metric("l", "Duration", theirs, "p99"),
        _metric("m", "Invocations", theirs),
        period_s=alarm_period_s(release),
    )


def against_live(resources: dict[str, Resource], versions: Mapping[str, str]) -> None:
    """Replace the placeholder of the live version by its number. `versions` is by Lambda's function name.

    On a first release the number is 0, which never has a request.
    """
    for alarm in of_type(resources, "AWS::CloudWatch::Alarm").values():
        for metric in alarm["Properties"].get("Metrics", []):
            dimensions = metric.get("MetricStat", {}).get("Metric", {}).get("Dimensions", [])
            found = {one["Name"]: one for one in dimensions}
            if found.get("ExecutedVersion", {}).get("Value") == LIVE:
                found["ExecutedVersion"]["Value"] = versions.get(found["FunctionName"]["Value"], "0")


def _version(resources: dict[str, Resource], ids: FunctionIds, digest: str) -> tuple[str, list[dict[str, Any]]]:
    """The function's name, and the dimensions of one version's traffic through the alias."""
    name = resources[ids.function]["Properties"]["FunctionName"]
    return name, [
        {"Name": "FunctionName", "Value": name},
        {"Name": "Resource", "Value": f"{name}:{ALIAS}"},
        {"Name": "ExecutedVersion", "Value": {"Fn::GetAtt": [ids.version(digest), "Version"]}},
    ]


def _alarm(description: str, threshold: float | None, *metrics: dict[str, Any], period_s: int) -> Resource:
    for metric in metrics:
        if "MetricStat" in metric:
            metric["MetricStat"]["Period"] = period_s
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmDescription": description,
            "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": threshold,
            "EvaluationPeriods": 1,
            "TreatMissingData": "notBreaching",
            "Metrics": list(metrics),
        },
    }


def _metric(
    name: str, metric: str, dimensions: list[dict[str, Any]], stat: str = "Sum", *, space: str = "AWS/Lambda"
) -> dict[str, Any]:
    return {
        "Id": name,
        "ReturnData": False,
        "MetricStat": {
            "Metric": {"Namespace": space, "MetricName": metric, "Dimensions": dimensions},
            "Stat": stat,
        },
    }
