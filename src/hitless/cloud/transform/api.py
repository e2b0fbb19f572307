"""The API's part of a template: permissions, the deployment named by its content, an explicit Stage, the domain.

osls makes no Stage resource: it lets a timestamped Deployment create one, so that code and API change at the stack's
own will. Here the Stage is a resource of its own and moves to a new Deployment in the contract step alone. Methods and
resources are only the API's draft: nothing of them is served before a Deployment takes its picture of them.
"""

from __future__ import annotations

from typing import Any

from hitless.cloud.transform.model import (
    API_ID,
    STAGE_ID,
    URL_OUTPUT,
    ReleaseInput,
    Resource,
    of_type,
    short_hash,
)

DRAFT = frozenset({"AWS::ApiGateway::Resource", "AWS::ApiGateway::Method"})
"""Types that are taken out of the API in the expand step already, so that the next Deployment does not show them."""

DEPLOYMENT = "AWS::ApiGateway::Deployment"
ACCESS_LOGS_ID = "ApiAccessLogs"
MAPPING_ID = "ApiDomainMapping"

_NOT_IN_A_DEPLOYMENT = frozenset(
    {
        DEPLOYMENT,
        "AWS::ApiGateway::Stage",
        "AWS::ApiGateway::BasePathMapping",
        "AWS::ApiGateway::UsagePlan",
        "AWS::ApiGateway::UsagePlanKey",
        "AWS::ApiGateway::ApiKey",
        "AWS::ApiGateway::Account",
    }
)
_ACCESS_LOG = {
    "requestId": "$context.requestId",
    "ip": "$context.identity.sourceIp",
    "time": "$context.requestTimeEpoch",
    "method": "$context.httpMethod",
    "resource": "$context.resourcePath",
    "path": "$context.path",
    "status": "$context.status",
    "latency_ms": "$context.responseLatency",
    "integration_status": "$context.integration.status",
    "integration_error": "$context.integration.error",
    "bytes": "$context.responseLength",
    "trace": "$context.xrayTraceId",
}


def name_permissions(resources: dict[str, Resource]) -> None:
    """Name each permission by its content: every property is create-only, so a changed one must stand beside."""
    renamed: dict[str, str] = {}
    for name, resource in of_type(resources, "AWS::Lambda::Permission").items():
        renamed[name] = f"{name}{short_hash(resource['Properties'])}"
        resources[renamed[name]] = resources.pop(name)
    for resource in resources.values():
        if "DependsOn" in resource:
            resource["DependsOn"] = [renamed.get(name, name) for name in _depends_on(resource)]


def add_stage(resources: dict[str, Resource], release: ReleaseInput) -> None:
    """Deployment → Stage → domain. Without an http route there is no API, and nothing to add."""
    old = of_type(resources, DEPLOYMENT)
    if not old:
        return
    stage_name = release.stage
    for name in old:
        stage_name = str(resources.pop(name)["Properties"].get("StageName", release.stage))
    shown = {
        name: {key: value for key, value in resource.items() if key != "DependsOn"}
        for name, resource in sorted(resources.items())
        if resource["Type"].startswith("AWS::ApiGateway::") and resource["Type"] not in _NOT_IN_A_DEPLOYMENT
    }
    deployment = f"ApiGatewayDeployment{short_hash(shown)}"
    resources[deployment] = {
        "Type": DEPLOYMENT,
        "DependsOn": [name for name in shown if name != API_ID],
        "Properties": {"RestApiId": {"Ref": API_ID}},
    }
    # not /aws/api-gateway/SERVICE-STAGE: osls deletes a log group of that name after each deploy
    group = f"/hitless/{release.service}/{release.stage}/access"
    resources[ACCESS_LOGS_ID] = {
        "Type": "AWS::Logs::LogGroup",
        "Properties": {"LogGroupName": group, "RetentionInDays": release.log_retention_days},
    }
    resources[STAGE_ID] = _stage(deployment, stage_name, group, sorted(of_type(resources, "AWS::Lambda::Permission")))
    for resource in resources.values():
        wanted = _depends_on(resource)
        if set(wanted) & set(old):
            resource["DependsOn"] = [STAGE_ID if name in old else name for name in wanted]
    if release.domain:
        resources[MAPPING_ID] = {
            "Type": "AWS::ApiGateway::BasePathMapping",
            "Properties": {
                "DomainName": release.domain,
                "RestApiId": {"Ref": API_ID},
                "Stage": {"Ref": STAGE_ID},
            },
        }


def _stage(deployment: str, name: str, group: str, permissions: list[str]) -> Resource:
    arn = f"arn:${{AWS::Partition}}:logs:${{AWS::Region}}:${{AWS::AccountId}}:log-group:{group}"
    log_format = "{" + ", ".join(f'"{key}": "{value}"' for key, value in _ACCESS_LOG.items()) + "}"
    return {
        "Type": "AWS::ApiGateway::Stage",
        "DependsOn": [ACCESS_LOGS_ID, *permissions],
        "Properties": {
            "RestApiId": {"Ref": API_ID},
            "DeploymentId": {"Ref": deployment},
            "StageName": name,
            "TracingEnabled": True,
            "AccessLogSetting": {"DestinationArn": {"Fn::Sub": arn}, "Format": log_format},
            "MethodSettings": [{"HttpMethod": "*", "ResourcePath": "/*", "MetricsEnabled": True}],
        },
    }


def url_output(resources: dict[str, Resource], release: ReleaseInput) -> dict[str, Any]:
    """Where clients reach the stage."""
    if STAGE_ID not in resources:
        return {}
    if release.domain:
        value: Any = f"https://{release.domain}"
    else:
        name = resources[STAGE_ID]["Properties"]["StageName"]
        host = f"${{{API_ID}}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}"
        value = {"Fn::Sub": f"https://{host}/{name}"}
    return {URL_OUTPUT: {"Description": "Where clients reach the API", "Value": value}}


def _depends_on(resource: Resource) -> list[str]:
    value = resource.get("DependsOn", [])
    return [value] if isinstance(value, str) else list(value)


def variable_parts(resources: dict[str, Resource]) -> dict[str, tuple[str, str]]:
    """Resources whose path part is a parameter: logical id → (parent, part). A parent may have but one."""
    return {
        name: (str(resource["Properties"]["ParentId"]), resource["Properties"]["PathPart"])
        for name, resource in of_type(resources, "AWS::ApiGateway::Resource").items()
        if str(resource["Properties"]["PathPart"]).startswith("{")
    }
