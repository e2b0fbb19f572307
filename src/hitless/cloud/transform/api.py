"""The API's part of a template: permissions, a Deployment named by its content, an explicit Stage, the domain, alarms.

osls makes no Stage resource: a timestamped Deployment creates one, so that CloudFormation decides when code and API
change. Here the Stage is a resource, and moves to a new Deployment only in the contract step. Methods and resources are
the API's draft: clients see them only through a Deployment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hitless.cloud.transform.model import (
    API_ID,
    STAGE_ID,
    URL_OUTPUT,
    ApiSettings,
    FunctionIds,
    ReleaseInput,
    Resource,
    depends_on,
    of_type,
    references,
    replacing,
    rewritten,
    short_hash,
)

DRAFT = frozenset({"AWS::ApiGateway::Resource", "AWS::ApiGateway::Method", "AWS::ApiGateway::GatewayResponse"})
"""Types that are removed in the expand step already, so that the next Deployment does not show them."""

REPLACED_IN_DRAFT = DRAFT | {
    "AWS::ApiGateway::Model",
    "AWS::ApiGateway::RequestValidator",
    "AWS::ApiGateway::DocumentationPart",
}
"""Types that CloudFormation may replace: the Stage shows its Deployment, and not the draft."""

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
_SETTINGS = ("AWS::ApiGateway::Authorizer", "AWS::ApiGateway::Model", "AWS::ApiGateway::RequestValidator")
_PLACE = ("HttpMethod", "ResourceId", "RestApiId")
_UNSEEN = ("AuthorizerResultTtlInSeconds", "IdentitySource")
"""Settings of an authorizer that no function can tell."""

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
    "error": "$context.error.message",
    "user_agent": "$context.identity.userAgent",
}


_KEYS = re.compile(r"(ApiGatewayApiKey|ApiGatewayUsagePlanKey)\D*\d+")
"""osls names API keys by their place in a list: removing one renames all that follow."""


def name_by_content(resources: dict[str, Resource]) -> None:
    """Name permissions and API keys by a hash of their content. Their properties are create-only, so that a changed one
    must be added beside the one that clients use.
    """
    name_permissions(resources)
    for kind in ("AWS::ApiGateway::ApiKey", "AWS::ApiGateway::UsagePlanKey"):
        renamed: dict[str, str] = {}
        for name, resource in of_type(resources, kind).items():
            content = {key: value for key, value in resource["Properties"].items() if key != "StageKeys"}
            if (made := _KEYS.fullmatch(name)) and (to := f"{made[1]}{short_hash(content)}") not in renamed.values():
                renamed[name] = to
        _rename(resources, renamed)


def name_permissions(resources: dict[str, Resource]) -> None:
    """Name permissions by a hash of their content."""
    _rename(resources, {
        name: f"{name}{short_hash(resource['Properties'])}"
        for name, resource in of_type(resources, "AWS::Lambda::Permission").items()
    })  # fmt: skip


def _rename(resources: dict[str, Resource], renamed: Mapping[str, str]) -> None:
    def reference(node: Any) -> Any:
        match node:
            case {"Ref": str(name), **rest} if not rest and name in renamed:
                return {"Ref": renamed[name]}
            case {"Fn::GetAtt": [str(name), *path], **rest} if not rest and name in renamed:
                return {"Fn::GetAtt": [renamed[name], *path]}
            case _:
                return node

    for old, new in renamed.items():
        resources[new] = resources.pop(old)
    for name, resource in resources.items():
        if renamed.keys() & set(references(resource)):
            resources[name] = rewritten(resource, reference)
            if names := depends_on(resource):
                resources[name]["DependsOn"] = [renamed.get(one, one) for one in names]


def add_stage(resources: dict[str, Resource], release: ReleaseInput) -> None:
    """Deployment → Stage → domain. Without an http route there is no API, and nothing to add."""
    old = of_type(resources, DEPLOYMENT)
    if not old:
        return
    stage_name = release.stage
    for name in old:
        stage_name = str(resources.pop(name)["Properties"].get("StageName", release.stage))
    deployment = add_deployment(resources)
    # not /aws/api-gateway/SERVICE-STAGE: osls deletes a log group of that name after each deploy
    group = f"/hitless/{release.service}/{release.stage}/access"
    if release.api.access_log:
        resources[ACCESS_LOGS_ID] = {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {"LogGroupName": group, "RetentionInDays": release.log_retention_days},
        }
    permissions = sorted(of_type(resources, "AWS::Lambda::Permission"))
    resources[STAGE_ID] = _stage(deployment, stage_name, group, permissions, release.api)
    depend_on_stage(resources, old)
    if release.domain:
        # named by the domain: an API that changes it answers on both until the next release
        resources[f"{MAPPING_ID}{short_hash(release.domain + release.base_path)}"] = {
            "Type": "AWS::ApiGateway::BasePathMapping",
            "Properties": {
                "DomainName": release.domain,
                **({"BasePath": release.base_path[1:]} if release.base_path else {}),
                "RestApiId": {"Ref": API_ID},
                "Stage": {"Ref": STAGE_ID},
            },
        }


def add_deployment(resources: dict[str, Resource]) -> str:
    """Add the Deployment of the API as these resources describe it. Returns its name, which is a hash."""
    deployment, shows = deployment_of(resources)
    resources[deployment] = shows
    return deployment


def depend_on_stage(resources: dict[str, Resource], old: Collection[str]) -> None:
    """Resources that depend on one of the `old` Deployments depend on the Stage instead."""
    for resource in resources.values():
        wanted = depends_on(resource)
        if set(wanted) & set(old):
            resource["DependsOn"] = [STAGE_ID if name in old else name for name in wanted]


def deployment_of(resources: Mapping[str, Resource]) -> tuple[str, Resource]:
    """The Deployment of the API as these resources describe it, and its name, which is a hash of its content."""
    shown = draft_of(resources)
    return f"ApiGatewayDeployment{short_hash(shown)}", {
        "Type": DEPLOYMENT,
        "DependsOn": [name for name in shown if name != API_ID],
        "Properties": {"RestApiId": {"Ref": API_ID}},
    }


def draft_of(resources: Mapping[str, Resource]) -> dict[str, Resource]:
    """The API's draft: what a Deployment made now would show."""
    return {
        name: {key: value for key, value in resource.items() if key not in ("DependsOn", "Metadata")}
        for name, resource in sorted(resources.items())
        if resource["Type"].startswith("AWS::ApiGateway::") and resource["Type"] not in _NOT_IN_A_DEPLOYMENT
    }


def settings_of(method: str, resources: Mapping[str, Resource]) -> dict[str, Any]:
    """The settings under which a function gets a route's requests: the method's, and those of its authorizer, its
    models, its validator, and the API's binary types.
    """

    def written_out(node: Any) -> Any:
        match node:
            case {"Ref": str(name), **rest} if not rest and name in resources and resources[name]["Type"] in _SETTINGS:
                return {key: one for key, one in resources[name]["Properties"].items() if key not in _UNSEEN}
            case _:
                return node

    properties = {key: one for key, one in resources[method]["Properties"].items() if key not in _PLACE}
    binary = resources.get(API_ID, {}).get("Properties", {}).get("BinaryMediaTypes", [])
    return {**rewritten(properties, written_out), "BinaryMediaTypes": binary}


def routes(resources: Mapping[str, Resource]) -> dict[str, tuple[str, str | None]]:
    """`GET /items/{id}` → the logical ids of its method and of its alias; None if API Gateway itself responds."""
    found: dict[str, tuple[str, str | None]] = {}
    for name, method in of_type(resources, "AWS::ApiGateway::Method").items():
        properties = method["Properties"]
        path = _path(properties["ResourceId"], resources)
        uri = properties.get("Integration", {}).get("Uri")
        aliases = [one for one in references(uri) if resources.get(one, {}).get("Type") == "AWS::Lambda::Alias"]
        found[f"{properties['HttpMethod']} {path}"] = (name, aliases[0] if aliases else None)
    return found


def _path(node: Any, resources: Mapping[str, Resource]) -> str:
    parts: list[str] = []
    while isinstance(node, dict) and (resource := resources.get(node.get("Ref", ""))):
        parts.insert(0, str(resource["Properties"]["PathPart"]))
        node = resource["Properties"]["ParentId"]
    return "/" + "/".join(parts)


def _stage(deployment: str, name: str, group: str, permissions: list[str], settings: ApiSettings) -> Resource:
    arn = f"arn:${{AWS::Partition}}:logs:${{AWS::Region}}:${{AWS::AccountId}}:log-group:{group}"
    log_format = "{" + ", ".join(f'"{key}": "{value}"' for key, value in _ACCESS_LOG.items()) + "}"
    methods: dict[str, Any] = {"HttpMethod": "*", "ResourcePath": "/*", "MetricsEnabled": settings.metrics}
    if settings.throttle:
        methods |= {
            "ThrottlingRateLimit": settings.throttle.rate_per_s,
            "ThrottlingBurstLimit": settings.throttle.burst,
        }
    if settings.level:
        methods |= {"LoggingLevel": settings.level, "DataTraceEnabled": settings.whole_requests}
    properties: dict[str, Any] = {
        "RestApiId": {"Ref": API_ID},
        "DeploymentId": {"Ref": deployment},
        "StageName": name,
        "TracingEnabled": settings.traced,
    }
    if settings.access_log:
        written = settings.log_format or log_format
        properties["AccessLogSetting"] = {"DestinationArn": {"Fn::Sub": arn}, "Format": written}
    properties["MethodSettings"] = [methods]
    depended = [*([ACCESS_LOGS_ID] if settings.access_log else []), *permissions]
    return {"Type": "AWS::ApiGateway::Stage", "DependsOn": depended, "Properties": properties}


STANDING = json.loads(Path(__file__).with_name("alarms.json").read_text("utf-8"))
"""The alarms of the live stage; `{"$": NAME}` stands for a value."""
DEFAULT_P99_MS = 2500
"""CloudWatch User Guide, "Recommended alarms", Amazon API Gateway, Latency."""


def add_standing_alarms(
    resources: dict[str, Resource], functions: Iterable[FunctionIds], release: ReleaseInput
) -> None:
    """Add the alarms that tell the core stack's topic what clients notice between releases, by the releases' limits."""
    limits = release.alarms
    values: dict[str, Any] = {"topic": release.alarm_topic, "error_rate_percent": limits.error_rate_percent}
    values["percent"] = f"IF(FILL(n,0)>={limits.minimum_requests},100*FILL(e,0)/n,0)"
    values["p99_ms"] = limits.p99_ms or DEFAULT_P99_MS
    wanted = [(f"{ids.base}ThrottledAlarm", "Throttled", resources[ids.function]) for ids in functions]
    if STAGE_ID in resources:
        values |= {"api": resources[API_ID]["Properties"]["Name"]}
        wanted += [(f"{kind}Alarm", kind, resources[STAGE_ID]) for kind in ("ApiFailing", "ApiSlow")]
    for logical_id, kind, subject in wanted:
        known = {**values, **subject["Properties"]}
        resources[logical_id] = _filled(STANDING[kind], known)


def _filled(node: Any, values: Mapping[str, Any]) -> Any:
    return rewritten(node, lambda one: values[one["$"]] if isinstance(one, dict) and "$" in one else one)


def url_output(resources: dict[str, Resource], domain: str) -> dict[str, Any]:
    """Where clients reach the stage: at the domain, if there is one."""
    if STAGE_ID not in resources:
        return {}
    if domain:
        value: Any = f"https://{domain}"
    else:
        name = resources[STAGE_ID]["Properties"]["StageName"]
        host = f"${{{API_ID}}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}"
        value = {"Fn::Sub": f"https://{host}/{name}"}
    return {URL_OUTPUT: {"Description": "Where clients reach the API", "Value": value}}


def blocking_resources(live: dict[str, Resource], new: dict[str, Resource]) -> set[str]:
    """Live resources of the draft that occupy a place which another resource will take.

    API Gateway has one place for each part under a path, one for all variable parts, one for each method, one for each
    kind of gateway response. CloudFormation fills a place before it empties it.
    """
    places = {place: name for name, one in new.items() if (place := _place(one))}
    held = ((name, one, places.get(_place(one) or "")) for name, one in live.items())
    return {name for name, one, taker in held if taker and _is_taken_anew(name, one, taker, live, new)}


def _is_taken_anew(name: str, one: Resource, taker: str, live: dict[str, Resource], new: dict[str, Resource]) -> bool:
    if taker == name:
        return bool(replacing(one, new[name]))
    return taker not in live or _place(live[taker]) != _place(new[taker])


def _place(resource: Resource) -> str | None:
    properties = resource.get("Properties", {})
    match resource["Type"]:
        case "AWS::ApiGateway::Resource":
            part = str(properties["PathPart"])
            return f"path {properties['ParentId']} {'{}' if part.startswith('{') else part}"
        case "AWS::ApiGateway::Method":
            return f"method {properties['ResourceId']} {properties['HttpMethod']}"
        case "AWS::ApiGateway::GatewayResponse":
            return f"response {properties['ResponseType']}"
    return None
