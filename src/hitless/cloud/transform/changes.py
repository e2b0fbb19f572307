"""What one template changes in another, for a preview without AWS: add, change, replace, remove; create-only known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hitless.cloud.transform.model import Resource, Template

CREATE_ONLY: Mapping[str, frozenset[str]] = {
    "AWS::Lambda::Function": frozenset({"FunctionName", "PackageType"}),
    "AWS::Lambda::Version": frozenset({"FunctionName", "CodeSha256", "Description"}),
    "AWS::Lambda::Alias": frozenset({"FunctionName", "Name"}),
    "AWS::Lambda::Permission": frozenset({"FunctionName", "Action", "Principal", "SourceArn", "SourceAccount"}),
    "AWS::ApiGateway::Stage": frozenset({"RestApiId", "StageName"}),
    "AWS::ApiGateway::Deployment": frozenset({"RestApiId", "DeploymentCanarySettings"}),
    "AWS::ApiGateway::Resource": frozenset({"ParentId", "PathPart", "RestApiId"}),
    "AWS::ApiGateway::Method": frozenset({"HttpMethod", "ResourceId", "RestApiId"}),
    "AWS::ApiGateway::BasePathMapping": frozenset({"DomainName", "BasePath"}),
    "AWS::IAM::Role": frozenset({"RoleName", "Path"}),
    "AWS::Logs::LogGroup": frozenset({"LogGroupName"}),
    "AWS::CodeDeploy::Application": frozenset({"ApplicationName", "ComputePlatform"}),
    "AWS::CodeDeploy::DeploymentGroup": frozenset({"ApplicationName", "DeploymentGroupName"}),
    "AWS::CodeDeploy::DeploymentConfig": frozenset({"DeploymentConfigName", "ComputePlatform", "TrafficRoutingConfig"}),
    "AWS::DynamoDB::Table": frozenset({"TableName", "KeySchema"}),
    "AWS::S3::Bucket": frozenset({"BucketName"}),
    "AWS::SQS::Queue": frozenset({"QueueName", "FifoQueue"}),
}
"""Properties whose change makes CloudFormation replace the resource, of the types that a service has most."""


def changes(before: Template, after: Template) -> list[dict[str, Any]]:
    """The contract's list: {"action", "resource", "replaces"}, with the type and the properties besides."""
    old, new = before.get("Resources", {}), after["Resources"]
    found = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            found.append(_change("add", name, new[name], []))
        elif name not in new:
            found.append(_change("remove", name, old[name], []))
        elif differing := _differing(old[name], new[name]):
            found.append(_change("change", name, new[name], differing))
    return found


def _change(action: str, name: str, resource: Resource, properties: list[str]) -> dict[str, Any]:
    create_only = CREATE_ONLY.get(resource["Type"], frozenset())
    return {
        "action": action,
        "resource": name,
        "type": resource["Type"],
        "replaces": bool(create_only.intersection(properties)) or "Type" in properties,
        "properties": properties,
    }


def _differing(old: Resource, new: Resource) -> list[str]:
    if old["Type"] != new["Type"]:
        return ["Type"]
    before, after = old.get("Properties", {}), new.get("Properties", {})
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
