"""The template that a release wants, independent of what is live: osls' template plus everything that releases need.

Callers of a function call its alias `live`. Versions, permissions and the API's Deployment are named by a hash of their
content: unchanged ones keep their names, and changed ones are added beside the old ones. A version's hash does not
include the commit, so that a commit that does not change a function publishes nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from hitless.artifact.model import UNPACKED_LIMIT_BYTES
from hitless.cloud.transform import api, guard
from hitless.cloud.transform.functions import SHARED_ROLE, drop_versions, function_role, named, wrap_handlers
from hitless.cloud.transform.model import (
    ALIAS,
    API_ID,
    BUCKET_ID,
    BUCKET_IDS,
    FINGERPRINT_OUTPUT,
    PREVIOUS_OUTPUT,
    RELEASE_OUTPUT,
    RESOURCES_LIMIT,
    STACK_TAGS,
    FunctionIds,
    ReleaseInput,
    Resource,
    Template,
    copied,
    of_type,
    rewritten,
    short_hash,
)
from hitless.errors import ServiceFileError

COMMIT_VARIABLE = "HITLESS_COMMIT"
_NOT_IN_A_VERSION = ("Tags", "ReservedConcurrentExecutions")


def desired(compiled: Template, release: ReleaseInput) -> Template:
    """The release's template; aliases follow their Version resources. Raises ServiceFileError."""
    template = copied(compiled)
    resources: dict[str, Resource] = template["Resources"]
    check_package(resources, release)
    for name in BUCKET_IDS:
        resources.pop(name, None)
    shared = resources.pop(SHARED_ROLE, None)
    functions = _functions(resources, release)
    drop_versions(resources, functions, release.scaled)
    for ids, name in functions.items():
        _shape_function(resources, ids, name, release, shared)
    wrap_handlers(resources, functions, release)
    check_environment(resources, release)
    call_aliases(resources, functions)
    _name_roles_of_schedules(resources, functions)
    hooks = [ids for ids, name in functions.items() if name in release.asked]
    for ids in functions:
        digest = _add_version(resources, ids, release)
        if ids not in hooks:
            guard.add_guard(resources, ids, digest, release)
    if shifted := [ids.function for ids in functions if ids not in hooks]:
        guard.add_application(resources, shifted, [ids.function for ids in hooks], release)
    api.name_by_content(resources)
    api.add_stage(resources, release)
    if release.alarm_topic:
        api.add_standing_alarms(resources, functions, release)
    if release.permissions_boundary:
        for role in of_type(resources, "AWS::IAM::Role").values():
            role["Properties"].setdefault("PermissionsBoundary", release.permissions_boundary)
    explain_to_scanner(resources)
    if release.stack_tags:
        template.setdefault("Metadata", {})[STACK_TAGS] = dict(release.stack_tags)
    at = release.domain and release.domain + release.base_path
    template["Outputs"] = outputs_of(template, number=release.number, previous=release.previous, domain=at)
    check_resources(resources)
    return template


def fingerprint(template: Template) -> str:
    """A hash that is equal for templates that serve the same. Commit and release numbers do not count."""
    kept = copied(template)
    for resource in of_type(kept["Resources"], "AWS::Lambda::Function").values():
        resource["Properties"].get("Environment", {}).get("Variables", {}).pop(COMMIT_VARIABLE, None)
    for name in (RELEASE_OUTPUT, PREVIOUS_OUTPUT, FINGERPRINT_OUTPUT):
        kept["Outputs"].pop(name, None)
    return short_hash(kept)


def functions_of(template: Template) -> dict[FunctionIds, str]:
    """The service's functions in a template of hitless, with Lambda's names."""
    resources = template.get("Resources", {})
    return {
        ids: resource["Properties"]["FunctionName"]
        for name, resource in of_type(resources, "AWS::Lambda::Function").items()
        if (ids := FunctionIds(name.removesuffix("LambdaFunction"))).alias in resources
    }


def version_ids(template: Template) -> dict[FunctionIds, str]:
    """Function → logical id of the Version that its alias follows, in a desired template."""
    resources = template["Resources"]
    return {
        ids: resources[ids.alias]["Properties"]["FunctionVersion"]["Fn::GetAtt"][0] for ids in functions_of(template)
    }


def _functions(resources: dict[str, Resource], release: ReleaseInput) -> dict[FunctionIds, str]:
    return {
        FunctionIds(name.removesuffix("LambdaFunction")): release.function_names[resource["Properties"]["FunctionName"]]
        for name, resource in of_type(resources, "AWS::Lambda::Function").items()
        if resource["Properties"].get("FunctionName") in release.function_names
    }


def _shape_function(
    resources: dict[str, Resource], ids: FunctionIds, name: str, release: ReleaseInput, shared: Resource | None
) -> None:
    function = resources[ids.function]
    properties: dict[str, Any] = function["Properties"]
    properties["Code"] = {"S3Bucket": release.bucket, "S3Key": release.code[name].key}
    variables = properties.setdefault("Environment", {}).setdefault("Variables", {})
    variables["HITLESS_STAGE"] = release.stage
    if release.commit:
        variables[COMMIT_VARIABLE] = release.commit
    if release.traced:
        properties.setdefault("TracingConfig", {"Mode": "Active"})
    if release.subnets and "VpcConfig" not in properties:
        properties["VpcConfig"] = {
            "SubnetIds": list(release.subnets),
            "SecurityGroupIds": [release.security_group] if release.security_group else [],
        }
    for group in of_type(resources, "AWS::Logs::LogGroup").values():
        group["Properties"].setdefault("RetentionInDays", release.log_retention_days)
    if properties.get("Role") == {"Fn::GetAtt": [SHARED_ROLE, "Arn"]} and shared is not None:
        role = function_role(shared, properties, release, answers_codedeploy=name in release.asked)
        resources[ids.role] = named(role, ids.role, release)
        properties["Role"] = {"Fn::GetAtt": [ids.role, "Arn"]}
        function["DependsOn"] = [other for other in function.get("DependsOn", []) if other != SHARED_ROLE]


def _add_version(resources: dict[str, Resource], ids: FunctionIds, release: ReleaseInput) -> str:
    properties = copied(resources[ids.function]["Properties"])
    properties["Environment"]["Variables"].pop(COMMIT_VARIABLE, None)
    digest = short_hash({key: value for key, value in properties.items() if key not in _NOT_IN_A_VERSION})
    add_version(resources, ids, digest, release.code[release.function_names[properties["FunctionName"]]].sha256)
    return digest


def add_version(resources: dict[str, Resource], ids: FunctionIds, digest: str, sha256: str) -> None:
    """Add a Version of the function, named by `digest`, of the code with that SHA-256 (hex). The alias follows it."""
    version = ids.version(digest)
    resources[version] = {
        "Type": "AWS::Lambda::Version",
        "DeletionPolicy": "RetainExceptOnCreate",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "FunctionName": {"Ref": ids.function},
            "CodeSha256": base64.b64encode(bytes.fromhex(sha256)).decode(),
        },
    }
    resources[ids.alias] = {
        "Type": "AWS::Lambda::Alias",
        "Properties": {
            "Name": ALIAS,
            "FunctionName": {"Ref": ids.function},
            "FunctionVersion": {"Fn::GetAtt": [version, "Version"]},
        },
    }


def call_aliases(resources: dict[str, Resource], functions: dict[FunctionIds, str]) -> None:
    """Let every caller of a function call its alias, except for the function's own resources and roles."""
    targets = {ids.function: ids.alias for ids in functions}

    def alias_of(node: Any) -> Any:
        match node:
            case {"Fn::GetAtt": [str(name), "Arn"], **rest} | {"Ref": str(name), **rest} if not rest:
                return {"Ref": targets[name]} if name in targets else node
            case _:
                return node

    for resource in resources.values():
        if resource["Type"] not in ("AWS::Lambda::Function", "AWS::IAM::Role", "AWS::IAM::Policy"):
            resource["Properties"] = rewritten(resource.get("Properties", {}), alias_of)


def _name_roles_of_schedules(resources: dict[str, Resource], functions: dict[FunctionIds, str]) -> None:
    """Let EventBridge Scheduler assume the role of the function that it calls: osls names the shared one."""
    by_alias = {ids.alias: ids.role for ids in functions}
    for schedule in of_type(resources, "AWS::Scheduler::Schedule").values():
        target = schedule["Properties"]["Target"]
        role = by_alias.get(str(target["Arn"].get("Ref")) if isinstance(target["Arn"], dict) else "")
        if target.get("RoleArn") == {"Fn::GetAtt": [SHARED_ROLE, "Arn"]} and role in resources:
            target["RoleArn"] = {"Fn::GetAtt": [role, "Arn"]}


def outputs_of(template: Template, *, number: int, previous: int | None = None, domain: str = "") -> dict[str, Any]:
    """osls' outputs without versions and bucket, plus the outputs that hitless reads."""
    resources = template["Resources"]
    kept = {
        name: output
        for name, output in template.get("Outputs", {}).items()
        if not name.endswith("QualifiedArn") and not name.startswith("ServerlessDeploymentBucket")
    }
    kept |= api.url_output(resources, domain)
    kept[RELEASE_OUTPUT] = {"Description": "The release that is live", "Value": str(number)}
    if previous is not None:
        kept[PREVIOUS_OUTPUT] = {"Description": "The release that was live before", "Value": str(previous)}
    value = fingerprint({**template, "Outputs": dict(kept)})
    kept[FINGERPRINT_OUTPUT] = {"Description": "The live release's content", "Value": value}
    return kept


FUNCTION_NAME_LIMIT = 64
ENVIRONMENT_LIMIT_BYTES = 4096


def check_package(resources: Mapping[str, Resource], release: ReleaseInput) -> None:
    """Raise ServiceFileError on what Lambda or CloudFormation would refuse, or what hitless does not ship."""
    for function in of_type(resources, "AWS::Lambda::Function").values():
        name = str(function["Properties"].get("FunctionName", ""))
        key = release.function_names.get(name)
        if key is None:
            if function["Properties"].get("Code", {}).get("S3Bucket") == {"Ref": BUCKET_ID}:
                raise ServiceFileError(
                    f"{name or 'a function'} is a helper that Serverless Framework adds for an event of the service",
                    hint="hitless does not ship events on existing resources (`existing: true`)",
                )
            continue
        if len(name) > FUNCTION_NAME_LIMIT:
            raise ServiceFileError(
                f"functions.{key}: Lambda's name {name} has {len(name)} characters, over {FUNCTION_NAME_LIMIT}",
                hint="shorten the service's, the stage's or the function's name, or give the function a `name`",
            )
        if (size := release.code[key].unpacked_bytes) > UNPACKED_LIMIT_BYTES:
            raise ServiceFileError(
                f"functions.{key}: the package unpacks to {size / 1e6:.0f} MB, over Lambda's 262 MB",
                hint="exclude files by package.patterns, or remove requirements",
            )
    if of_type(resources, "AWS::ApiGateway::Deployment") and API_ID not in resources:
        raise ServiceFileError(
            "provider.apiGateway.restApiId: hitless adds no routes to an API of another stack",
            hint="remove restApiId: two services' releases on one API would show each other's unfinished routes",
        )
    if of_type(resources, "AWS::ApiGatewayV2::Api") or of_type(resources, "AWS::ApiGatewayV2::Route"):
        raise ServiceFileError(
            "httpApi and websocket events are not released on AWS; httpApi events are served on the engine alone",
            hint="write `http` events for a stage with `home: aws`, or deploy this service with `serverless deploy`",
        )
    if of_type(resources, "AWS::Lambda::LayerVersion"):
        raise ServiceFileError(
            "layers: hitless cannot deploy layers that serverless.yml defines",
            hint="move their content to the service's folder or its dependencies, or use a published layer's ARN",
        )


def check_environment(resources: Mapping[str, Resource], release: ReleaseInput) -> None:
    """Raise ServiceFileError if a function's variables, ours included, exceed Lambda's limit on their JSON."""
    for function in of_type(resources, "AWS::Lambda::Function").values():
        variables = function["Properties"].get("Environment", {}).get("Variables", {})
        size = len(json.dumps(variables, separators=(",", ":"), ensure_ascii=False).encode())
        key = release.function_names.get(str(function["Properties"].get("FunctionName", "")))
        if key is not None and size > ENVIRONMENT_LIMIT_BYTES:
            raise ServiceFileError(
                f"functions.{key}.environment is over Lambda's 4 KB: {size} bytes, including hitless's variables",
                hint="keep large values in a file or a parameter",
            )


def check_resources(resources: Mapping[str, Resource]) -> None:
    """Raise ServiceFileError if one stack cannot hold the release and what stays of the previous one."""
    if len(resources) > RESOURCES_LIMIT:
        raise ServiceFileError(
            f"the stack would hold {len(resources)} resources, over CloudFormation's {RESOURCES_LIMIT}",
            hint="split the service, or route with {proxy+} to fewer functions",
        )


SKIPS: Mapping[str, Mapping[str, str]] = {
    "AWS::ApiGateway::Method": {
        "CKV_AWS_59": "Who may call a route is the service's own to say, by an authorizer in serverless.yml",
    },
    "AWS::ApiGateway::Stage": {
        "CKV_AWS_120": "A cache would answer for a release that is live no more",
    },
    "AWS::ApiGateway::RestApi": {
        "CKV_AWS_237": "Never replaced: the API keeps its id, so that its URL lives as long as the stack",
    },
    "AWS::Lambda::Function": {
        "CKV_AWS_45": "HITLESS_COMMIT, a commit's 40 digits, has the form of a secret key",
        "CKV_AWS_115": "A reserved limit would throttle both versions of a shift; the account's own limit holds",
        "CKV_AWS_116": "Invoked by API Gateway and answered at once: there is nothing to put into a queue",
        "CKV_AWS_173": "Encrypted by Lambda's own key; secrets do not belong into the environment",
    },
    "AWS::Logs::LogGroup": {
        "CKV_AWS_158": "Encrypted by CloudWatch's own key; a key of its own costs, and locks out whoever loses it",
    },
    "AWS::IAM::Role": {
        "CKV_AWS_111": "Network interfaces, traces and alarms: these calls know no resource in IAM",
    },
}
"""Type → check → why it is not done."""


def explain_to_scanner(resources: Mapping[str, Resource]) -> None:
    """Write the reasons into the resources' metadata, which the scanner (checkov) reads.

    Only what hitless or osls decides gets a reason. The service's own settings are left for the scanner to judge.
    """
    for resource in resources.values():
        if skips := SKIPS.get(resource["Type"]):
            listed = [{"id": check, "comment": reason} for check, reason in skips.items()]
            resource.setdefault("Metadata", {}).setdefault("checkov", {"skip": listed})
