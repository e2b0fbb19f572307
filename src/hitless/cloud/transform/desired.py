"""What a release wants to be, whatever is live: osls' compiled template with everything that a release layer needs.

Everything that calls a function calls its alias `live`. Versions, permissions and the API's deployment are named by
the hash of their content: what has not changed keeps its name, and what has changed never replaces but stands beside.
Each function's version is named by all that a version holds, but not by the commit: a commit that changes nothing of a
function publishes nothing.
"""

from __future__ import annotations

import base64
import copy
from typing import Any

from hitless.cloud.transform import api, guard
from hitless.cloud.transform.checks import check_environment, check_package, check_resources
from hitless.cloud.transform.model import (
    ALIAS,
    FINGERPRINT_OUTPUT,
    PREVIOUS_OUTPUT,
    RELEASE_OUTPUT,
    FunctionIds,
    ReleaseInput,
    Resource,
    Template,
    of_type,
    rewritten,
    short_hash,
)
from hitless.cloud.transform.provisioned import drop_versions
from hitless.cloud.transform.roles import SHARED_ROLE, function_role, named
from hitless.cloud.transform.scanning import answer_scanner
from hitless.cloud.transform.wrapper import wrap_handlers

COMMIT_VARIABLE = "HITLESS_COMMIT"
_OSLS_BUCKET = ("ServerlessDeploymentBucket", "ServerlessDeploymentBucketPolicy")
_NOT_IN_A_VERSION = ("Tags", "ReservedConcurrentExecutions")


def desired(compiled: Template, release: ReleaseInput) -> Template:
    """The release's template by itself; aliases follow their Version resource. Raises ServiceFileError."""
    template = copy.deepcopy(compiled)
    resources: dict[str, Resource] = template["Resources"]
    check_package(resources, release)
    for name in _OSLS_BUCKET:
        resources.pop(name, None)
    shared = resources.pop(SHARED_ROLE, None)
    functions = _functions(resources, release)
    drop_versions(resources, functions, release.scaled)
    for ids, name in functions.items():
        _shape_function(resources, ids, name, release, shared)
    wrap_handlers(resources, functions, release)
    check_environment(resources, release)
    call_aliases(resources, functions)
    hooks = [ids for ids, name in functions.items() if name in release.asked]
    for ids in functions:
        digest = _add_version(resources, ids, release)
        if ids not in hooks:
            guard.add_guard(resources, ids, digest, release)
    if shifted := [ids.function for ids in functions if ids not in hooks]:
        guard.add_application(resources, shifted, [ids.function for ids in hooks], release)
    api.name_by_content(resources)
    api.add_stage(resources, release)
    if release.permissions_boundary:
        for role in of_type(resources, "AWS::IAM::Role").values():
            role["Properties"].setdefault("PermissionsBoundary", release.permissions_boundary)
    answer_scanner(resources)
    template["Outputs"] = outputs_of(template, number=release.number, previous=release.previous, domain=release.domain)
    check_resources(resources)
    return template


def fingerprint(template: Template) -> str:
    """Equal for two desired templates that would serve the same: the commit and release numbers do not count."""
    kept = copy.deepcopy(template)
    for resource in of_type(kept["Resources"], "AWS::Lambda::Function").values():
        resource["Properties"].get("Environment", {}).get("Variables", {}).pop(COMMIT_VARIABLE, None)
    for name in (RELEASE_OUTPUT, PREVIOUS_OUTPUT, FINGERPRINT_OUTPUT):
        kept["Outputs"].pop(name, None)
    return short_hash(kept)


def functions_of(template: Template) -> dict[FunctionIds, str]:
    """The service's functions in a template of ours, with Lambda's name of each."""
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
    properties = copy.deepcopy(resources[ids.function]["Properties"])
    properties["Environment"]["Variables"].pop(COMMIT_VARIABLE, None)
    digest = short_hash({key: value for key, value in properties.items() if key not in _NOT_IN_A_VERSION})
    add_version(resources, ids, digest, release.code[release.function_names[properties["FunctionName"]]].sha256)
    return digest


def add_version(resources: dict[str, Resource], ids: FunctionIds, digest: str, sha256: str) -> None:
    """A Version of the function, named by `digest`, of the code with that SHA-256 (hex); the alias follows it."""
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
    """Point whatever calls a function at its alias. Its own resources, and roles, go on naming the function."""
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


def outputs_of(template: Template, *, number: int, previous: int | None = None, domain: str = "") -> dict[str, Any]:
    """osls' outputs but those of versions and of its bucket; and what the tool reads back."""
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
