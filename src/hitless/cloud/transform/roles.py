"""A role for each function, in place of osls' one for all: its own log group, what the service grants, the network."""

from __future__ import annotations

import copy
from typing import Any

from hitless.cloud.transform.model import ReleaseInput, Resource, short_hash

ROLE_NAME_LETTERS = 64
GENERATED_STACK_LETTERS = 25
"""Of a longer stack's name CloudFormation keeps so many in a role's name of its own making, where the whole would be
over IAM's 64: half of what 12 random letters and two dashes leave. Core's roles know ours by the whole name.
"""

SHARED_ROLE = "IamRoleLambdaExecution"
POLICY = "release"


def function_role(
    shared: Resource, function: dict[str, Any], release: ReleaseInput, *, answers_codedeploy: bool = False
) -> Resource:
    """The role of one function, made of osls' shared one. A hook may answer CodeDeploy, and read what it asks about."""
    given = shared["Properties"]
    properties: dict[str, Any] = {"AssumeRolePolicyDocument": copy.deepcopy(given["AssumeRolePolicyDocument"])}
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
    """The role with a name that begins with the stack's, where CloudFormation's own would not."""
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
    """What Lambda itself needs to put a function into a VPC: none of these calls takes a resource."""
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
