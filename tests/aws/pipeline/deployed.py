"""Combines a deployed pipeline stack and its generated template into the definition that the driver runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.aws.front.intrinsics import Resolver
from tests.aws.pipeline.template import PipelineDefinition, read_pipeline


def definition_of(template: Path, stack: str, region: str, client: Callable[[str, str], Any]) -> PipelineDefinition:
    """What `hitless aws bootstrap --dry-run` wrote, with the parameters and names of the stack that was deployed."""
    cloudformation, iam = client("cloudformation", region), client("iam", region)
    document: dict[str, Any] = json.loads(template.read_text())
    described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in described["Parameters"]}
    resources = cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
    physical = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources}
    roles = {
        name: iam.get_role(RoleName=physical[name])["Role"]["Arn"]
        for name, one in document["Resources"].items()
        if one["Type"] == "AWS::IAM::Role" and name in physical
    }
    attributes = {(name, "Arn"): arn for name, arn in roles.items()}
    return read_pipeline(document, Resolver(document, parameters, physical, attributes, region=region, stack=stack))


def role_session(sts: Any) -> Callable[[str], Mapping[str, str]]:
    """Credentials of a role, as CodeBuild puts them into a build's environment."""

    def session(role_arn: str) -> Mapping[str, str]:
        given = sts.assume_role(RoleArn=role_arn, RoleSessionName="AWSCodeBuild")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
        }

    return session
