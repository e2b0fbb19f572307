"""The functions' part of a template: a role for each, the wrapper of handlers, provisioned concurrency.

Each function has a role of its own instead of osls' one for all. Handlers that respond to API requests are called
through a wrapper in a Lambda layer; it is not in the zip, so that the bytes that are tested are shipped, to either
home. osls puts provisioned concurrency on an alias `provisioned`, and makes everything call that alias, which may have
no weights then. Here it belongs to a version, and the release moves it. The function's metadata keeps its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hitless.cloud.transform.model import (
    FunctionIds,
    ReleaseInput,
    Resource,
    Template,
    copied,
    depends_on,
    of_type,
    references,
    short_hash,
)
from hitless.errors import ServiceFileError

ROLE_NAME_LETTERS = 64
GENERATED_STACK_LETTERS = 25
"""If a role's name would exceed IAM's 64 characters, CloudFormation keeps this many of the stack's name: half of what
12 random letters and two dashes leave. Core's roles know ours by the whole name.
"""

SHARED_ROLE = "IamRoleLambdaExecution"
POLICY = "release"


def function_role(
    shared: Resource, function: dict[str, Any], release: ReleaseInput, *, answers_codedeploy: bool = False
) -> Resource:
    """The role of one function, made of osls' shared one. A hook may answer CodeDeploy and read its deployment."""
    given = shared["Properties"]
    properties: dict[str, Any] = {"AssumeRolePolicyDocument": copied(given["AssumeRolePolicyDocument"])}
    for key in ("PermissionsBoundary", "Tags", "Path"):
        if key in given:
            properties[key] = given[key]
    managed = [arn for arn in given.get("ManagedPolicyArns", []) if "AWSLambdaVPCAccessExecutionRole" not in str(arn)]
    if managed:
        properties["ManagedPolicyArns"] = managed
    statements = [_logs(function["FunctionName"])]
    if "VpcConfig" in function:
        statements += _network()
    if function.get("TracingConfig", {}).get("Mode") == "Active":
        statements.append(_allow(["xray:PutTraceSegments", "xray:PutTelemetryRecords"], "*"))
    if answers_codedeploy:
        statements += _hook(release)
    statements += [
        statement
        for policy in given.get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
        if not _is_osls_own(statement)
    ]
    document = {"Version": "2012-10-17", "Statement": statements}
    properties["Policies"] = [{"PolicyName": POLICY, "PolicyDocument": document}]
    return {"Type": "AWS::IAM::Role", "Properties": properties}


def named(role: Resource, logical_id: str, release: ReleaseInput) -> Resource:
    """Give the role a name that begins with the stack's, if CloudFormation's own name would not."""
    stack = f"{release.service}-{release.stage}"
    if len(stack) > GENERATED_STACK_LETTERS:
        whole = f"{stack}-{logical_id}"
        short = f"{stack}-{short_hash(logical_id)}"[:ROLE_NAME_LETTERS]
        role["Properties"]["RoleName"] = whole if len(whole) <= ROLE_NAME_LETTERS else short
    return role


def _logs(function_name: str) -> dict[str, Any]:
    group = f"arn:${{AWS::Partition}}:logs:${{AWS::Region}}:${{AWS::AccountId}}:log-group:/aws/lambda/{function_name}:*"
    return _allow(["logs:CreateLogStream", "logs:PutLogEvents"], {"Fn::Sub": group})


def _hook(release: ReleaseInput) -> list[dict[str, Any]]:
    account = "arn:${AWS::Partition}:codedeploy:${AWS::Region}:${AWS::AccountId}"
    groups = f"{account}:deploymentgroup:{release.service}-{release.stage}/*"
    return [
        _allow(["codedeploy:GetDeployment"], {"Fn::Sub": groups}),
        # knows no resource in IAM; whoever answers must know the execution's id
        _allow(["codedeploy:PutLifecycleEventHookExecutionStatus"], "*"),
    ]


def _network() -> list[dict[str, Any]]:
    """Lambda's permissions to put a function into a VPC. None of these calls takes a resource."""
    actions = ("CreateNetworkInterface", "DescribeNetworkInterfaces", "DescribeSubnets", "DeleteNetworkInterface")
    addresses = ("AssignPrivateIpAddresses", "UnassignPrivateIpAddresses")
    return [_allow([f"ec2:{action}" for action in (*actions, *addresses)], "*")]


def _allow(actions: list[str], resource: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}


def _is_osls_own(statement: dict[str, Any]) -> bool:
    actions = statement.get("Action", [])
    actions = [actions] if isinstance(actions, str) else actions
    return bool(actions) and (
        (all(action.startswith("logs:") for action in actions) and "/aws/lambda/" in str(statement.get("Resource")))
        or all(action.startswith("xray:Put") for action in actions)
    )


HANDLER = "hitless_wrapper.handler"
HANDLER_VARIABLE, SHIELD_VARIABLE, IDEMPOTENT_VARIABLE = "HITLESS_HANDLER", "HITLESS_SHIELD", "HITLESS_IDEMPOTENT"
LAYERS_LIMIT = 5


def wrap_handlers(resources: dict[str, Resource], functions: dict[FunctionIds, str], release: ReleaseInput) -> None:
    """Wrap each Python function that responds to API requests, if it has room for a layer."""
    if release.layer is None:
        return
    layer = f"HitlessLayer{release.layer.sha256[:16]}"
    called = {name for method in of_type(resources, "AWS::ApiGateway::Method").values() for name in references(method)}
    wrapped = [ids for ids in functions if ids.function in called and _fits(resources[ids.function])]
    for ids in wrapped:
        properties = resources[ids.function]["Properties"]
        variables = properties.setdefault("Environment", {}).setdefault("Variables", {})
        variables[HANDLER_VARIABLE] = properties["Handler"]
        if release.shield:
            variables[SHIELD_VARIABLE] = ids.shield_variable
            if release.idempotent:
                variables[IDEMPOTENT_VARIABLE] = ",".join(release.idempotent)
        properties["Handler"] = HANDLER
        properties["Layers"] = [*properties.get("Layers", []), {"Ref": layer}]
    if wrapped:
        resources[layer] = {
            "Type": "AWS::Lambda::LayerVersion",
            "DeletionPolicy": "RetainExceptOnCreate",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "LayerName": f"{release.service}-{release.stage}-hitless",
                "Description": "Counts failed answers; shields a canary",
                "Content": {"S3Bucket": release.bucket, "S3Key": release.layer.key},
            },
        }


def is_wrapped(function: Resource) -> bool:
    """Whether the function's handler is called through the wrapper."""
    return bool(function["Properties"].get("Handler") == HANDLER)


def is_shielded(function: Resource) -> bool:
    """Whether the function's release asks for a shield."""
    return SHIELD_VARIABLE in function["Properties"].get("Environment", {}).get("Variables", {})


def _fits(function: Resource) -> bool:
    properties = function["Properties"]
    is_python = str(properties.get("Runtime", "")).startswith("python")
    return is_python and len(properties.get("Layers", [])) < LAYERS_LIMIT


PROVISIONED, SCALED = "hitless:provisioned", "hitless:scaled"


@dataclass(frozen=True, slots=True)
class Ready:
    """Provisioned environments of a version: `least`, and up to `most` if `target_percent` of them are in use."""

    least: int
    most: int | None = None
    target_percent: int = 0

    def nearest(self, number: int) -> int:
        """The allowed number that is closest to this one."""
        return max(self.least, min(number, self.most or self.least))


def drop_versions(
    resources: dict[str, Resource], functions: Mapping[FunctionIds, str], scaled: Mapping[str, tuple[int, int]]
) -> None:
    """Remove osls' own versions and aliases; their callers call the function.

    Raises ServiceFileError if the provisioned concurrency of two versions, as during a shift, exceeds what the function
    has reserved.
    """
    ours = {ids.function: name for ids, name in functions.items()}
    for logical_id, resource in list(resources.items()):
        if resource["Type"] not in ("AWS::Lambda::Version", "AWS::Lambda::Alias"):
            continue
        function = resource["Properties"]["FunctionName"].get("Ref")
        if function not in ours:
            continue
        del resources[logical_id]
        if resource["Type"] == "AWS::Lambda::Version":
            continue
        call_function(resources, logical_id, str(resource["Properties"]["Name"]), function)
        if config := resource["Properties"].get("ProvisionedConcurrencyConfig"):
            number = int(config["ProvisionedConcurrentExecutions"])
            metadata = resources[function].setdefault("Metadata", {})
            metadata[PROVISIONED] = number
            most = number
            if ours[function] in scaled:
                most, target_percent = scaled[ours[function]]
                metadata[SCALED] = {"Max": most, "TargetPercent": target_percent}
            _check_reserved(resources[function], ours[function], most)


def kept_ready(template: Template) -> dict[FunctionIds, Ready]:
    """Function → its provisioned concurrency, if it has any."""
    found: dict[FunctionIds, Ready] = {}
    for name, resource in of_type(template.get("Resources", {}), "AWS::Lambda::Function").items():
        metadata = resource.get("Metadata", {})
        if PROVISIONED in metadata:
            number, scaled = int(metadata[PROVISIONED]), metadata.get(SCALED)
            ready = Ready(number, scaled["Max"], scaled["TargetPercent"]) if scaled else Ready(number)
            found[FunctionIds(name.removesuffix("LambdaFunction"))] = ready
    return found


def call_function(resources: dict[str, Resource], alias: str, name: str, function: str) -> None:
    """Let every caller of this alias call the function itself."""
    arn = {"Fn::GetAtt": [function, "Arn"]}

    def called(node: Any) -> Any:
        match node:
            case {"Ref": str(named), **rest} if not rest and named == alias:
                return arn
            case {"Fn::Join": [":", [first, last]], **rest} if not rest and (first, last) == (arn, name):
                return arn
            case dict():
                return {key: called(value) for key, value in node.items()}
            case list():
                return _without_suffix([called(value) for value in node], [arn, ":", name])
            case _:
                return node

    for resource in resources.values():
        resource["Properties"] = called(resource.get("Properties", {}))
        left = [one for one in depends_on(resource) if one != alias]
        resource.pop("DependsOn", None)
        if left:
            resource["DependsOn"] = left


def _without_suffix(nodes: list[Any], suffixed: list[Any]) -> list[Any]:
    """The list with `function ARN, ":", alias` shortened to the ARN."""
    for at in range(len(nodes) - len(suffixed) + 1):
        if nodes[at : at + len(suffixed)] == suffixed:
            return [*nodes[: at + 1], *_without_suffix(nodes[at + len(suffixed) :], suffixed)]
    return nodes


def _check_reserved(function: Resource, name: str, number: int) -> None:
    reserved = function["Properties"].get("ReservedConcurrentExecutions")
    if isinstance(reserved, int) and 2 * number > reserved:
        raise ServiceFileError(
            f"functions.{name}: provisionedConcurrency {number} is needed twice during a shift, for the live version "
            f"and the next one; reservedConcurrency {reserved} has no room for that",
            hint=f"reserve {2 * number} or more, or provision {reserved // 2} or fewer",
        )


def concurrency_needed(functions: Iterable[tuple[int, int | None]]) -> int:
    """How much of an account's concurrency a service needs during a shift. `functions`: (provisioned, reserved) of
    each.

    That is the provisioned concurrency of two versions, or the reserved one, and 100 that AWS keeps unreserved.
    """
    return 100 + sum(max(2 * number, reserved or 0) for number, reserved in functions)
