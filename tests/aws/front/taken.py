"""Fails an update that adds a Stage which the API already has, as AWS does; ministack would overwrite it.

CloudFormation says "ApiGatewayStage - dev already exists" (serverless/serverless#3232): a Deployment's `StageName` has
made the stage, and no template holds it. In the place of the Stage goes a resource that ministack fails to create, so
that the roll-back is the emulator's own; the front tells it as AWS does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

from tests.aws.front.backend import Backend

FAILING_TYPE: Final = "AWS::Lambda::Url"
_STAGE: Final = "AWS::ApiGateway::Stage"


async def taken_stages(backend: Backend, template: Mapping[str, Any], stack: str, region: str) -> dict[str, str]:
    """Logical id → name of the Stages that the stack's update would create and that already exist."""
    wanted = {
        name: one["Properties"]
        for name, one in template.get("Resources", {}).items()
        if one.get("Type") == _STAGE and isinstance(one["Properties"].get("StageName"), str)
    }
    if not wanted:
        return {}
    return await asyncio.to_thread(_look, backend, wanted, stack, region)


def _look(backend: Backend, wanted: Mapping[str, Any], stack: str, region: str) -> dict[str, str]:
    cloudformation, apigateway = backend.client("cloudformation", region), backend.client("apigateway", region)
    try:
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
        held = {one["LogicalResourceId"]: one for page in pages for one in page["StackResourceSummaries"]}
    except ClientError:
        return {}  # a new stack
    found = {}
    for name, properties in wanted.items():
        api = held.get(properties["RestApiId"].get("Ref", ""), {}).get("PhysicalResourceId")
        if name in held or api is None:
            continue
        stages = apigateway.get_stages(restApiId=api)["item"]
        if properties["StageName"] in {one["stageName"] for one in stages}:
            found[name] = properties["StageName"]
    return found


def with_failing(template: Mapping[str, Any], taken: Mapping[str, str]) -> dict[str, Any]:
    """The template in which creating these Stages fails."""
    resources = dict(template["Resources"])
    for name in taken:
        stage = resources[name]
        failing = {"Type": FAILING_TYPE, "Properties": {"TargetFunctionArn": "no-such-function", "AuthType": "NONE"}}
        resources[name] = failing | {key: stage[key] for key in ("DependsOn", "Condition") if key in stage}
    return {**template, "Resources": resources}
