"""A model of CloudFormation, Lambda and API Gateway with the rules by which a stack update can fail a request.

`ModelledAws.update` refuses what they refuse: a name that is taken, a place in the API that is, a version of the same
bytes, a circle, a reference to nothing, and any replacement of what is not the API's draft.
"""

from __future__ import annotations

import graphlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hitless.cloud.transform.model import (
    STAGE_ID,
    LiveState,
    Resource,
    Template,
    copied,
    of_type,
    references,
    replacing,
)

DRAFT = ("Resource", "Method", "Model", "RequestValidator", "GatewayResponse")
NAMES = {
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::IAM::Role": "RoleName",
    "AWS::CodeDeploy::DeploymentConfig": "DeploymentConfigName",
    "AWS::ApiGateway::ApiKey": "Value",
    "AWS::ApiGateway::BasePathMapping": "DomainName",
    "AWS::ApiGateway::UsagePlanKey": "KeyId",
}


class UpdateRefused(AssertionError):
    """CloudFormation's error message."""


@dataclass
class ModelledAws:
    """A stack with its resources."""

    template: Template = field(default_factory=dict)
    physical: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    published: dict[int, list[str]] = field(default_factory=dict)
    """Function (physical id) → the configuration of each of its versions."""
    aliases: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Deployment → what it shows."""
    log: list[Template] = field(default_factory=list)
    """The template of each update."""
    _last: int = 0

    @property
    def resources(self) -> dict[str, Resource]:
        found: dict[str, Resource] = self.template.get("Resources", {})
        return found

    @property
    def live(self) -> LiveState:
        """The live state as hitless observes it."""
        held = {name: number for name, number in self.versions.items() if name in self.resources}
        return LiveState(copied(self.template), dict(self.aliases), held)

    def update(self, template: Template) -> None:
        template = copied(template)
        self.log.append(copied(template))
        old, new = self.resources, template["Resources"]
        _check_whole(template)
        for name, one in new.items():
            if name not in old:
                _check_name(name, one, old)
                _check_place(name, one, old)
                self.physical[name] = self._next()
            elif replaced_by := replacing(old[name], one):
                if one["Type"].rpartition("::")[2] not in DRAFT:
                    raise UpdateRefused(f"{name} would be replaced by {replaced_by}")
                _check_place(name, one, old)
                self.physical[name] = self._next()
            elif one["Type"] == "AWS::DynamoDB::Table" and len(_indexes(old[name]) ^ _indexes(one)) > 1:
                raise UpdateRefused("Cannot perform more than one GSI creation or deletion in a single update")
        for name, one in of_type(new, "AWS::Lambda::Version").items():
            if name not in self.versions or name not in old:
                self._publish(name, new[one["Properties"]["FunctionName"]["Ref"]], one, new)
        for name, one in of_type(new, "AWS::Lambda::Alias").items():
            if old.get(name) != one:
                at = one["Properties"]["FunctionVersion"]
                self.aliases[name] = at if isinstance(at, str) else str(self.versions[at["Fn::GetAtt"][0]])
        for name in of_type(new, "AWS::ApiGateway::Deployment"):
            if name not in old:
                self.pictures[name] = picture({**old, **new})  # what goes is deleted last
        self.template = template
        for name in old.keys() - new.keys():
            for held in (self.physical, self.aliases, self.pictures):
                held.pop(name, None)
        if STAGE_ID in new and self.served is None:
            raise UpdateRefused("Active stages pointing to this deployment must be moved or deleted")

    @property
    def served(self) -> dict[str, Any] | None:
        """The picture that clients get."""
        deployment = self.resources[STAGE_ID]["Properties"]["DeploymentId"]["Ref"]
        return self.pictures.get(deployment)

    def _publish(self, name: str, function: Resource, version: Resource, new: Mapping[str, Resource]) -> None:
        properties = {key: one for key, one in function["Properties"].items() if key not in _NOT_IN_VERSION}
        role = self.physical[properties["Role"]["Fn::GetAtt"][0]]
        history = self.published.setdefault(self.physical[version["Properties"]["FunctionName"]["Ref"]], [])
        content = json.dumps({**properties, "Role": role}, sort_keys=True)
        if history and history[-1] == content:
            raise UpdateRefused("A version for this Lambda function exists")
        history.append(content)
        self.versions[name] = len(history)

    def _next(self) -> int:
        self._last += 1
        return self._last


_NOT_IN_VERSION = ("Tags", "ReservedConcurrentExecutions")


def _check_whole(template: Template) -> None:
    resources = template["Resources"]
    known = resources.keys() | template.get("Parameters", {}).keys()
    graph: dict[str, set[str]] = {}
    for name, one in resources.items():
        graph[name] = {other for other in references(one) if not other.startswith("AWS::")}
        if missing := graph[name] - known:
            raise UpdateRefused(f"{name}: unresolved {missing}")
        if "Condition" in one and one["Condition"] not in template.get("Conditions", {}):
            raise UpdateRefused(f"{name}: unresolved condition {one['Condition']}")
    for output in template.get("Outputs", {}).values():
        if missing := {other for other in references(output) if not other.startswith("AWS::")} - known:
            raise UpdateRefused(f"an output: unresolved {missing}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise UpdateRefused(f"circular dependency {error.args[1]}") from error


def _check_name(name: str, one: Resource, old: Mapping[str, Resource]) -> None:
    key = NAMES.get(one["Type"])
    value = one["Properties"].get(key) if key else None
    for other, held in of_type(old, one["Type"]).items():
        if value is not None and held["Properties"].get(key) == value:
            raise UpdateRefused(f"{name}: {value} already exists as {other}")


def _check_place(name: str, one: Resource, old: Mapping[str, Resource]) -> None:
    properties, kind = one["Properties"], one["Type"]
    for other, held in of_type(old, kind).items():
        theirs = held["Properties"]
        if kind == "AWS::ApiGateway::Resource" and properties["ParentId"] == theirs["ParentId"]:
            both = (properties["PathPart"], theirs["PathPart"])
            if both[0] == both[1] or all(part.startswith("{") for part in both):
                raise UpdateRefused(f"{name}: a sibling ({other}) already has {both[1]}")
        if kind == "AWS::ApiGateway::Method" and other != name:
            keys = ("ResourceId", "HttpMethod")
            if all(properties[key] == theirs[key] for key in keys):
                raise UpdateRefused(f"{name}: method already exists as {other}")
        if kind == "AWS::ApiGateway::GatewayResponse" and properties["ResponseType"] == theirs["ResponseType"]:
            raise UpdateRefused(f"{name}: its end would be that of {other}")


def picture(resources: Mapping[str, Resource]) -> dict[str, Any]:
    """The content of a Deployment made now: routes by method and path, gateway responses, the API's settings."""
    shown: dict[str, Any] = {"api": resources["ApiGatewayRestApi"]["Properties"]}
    for method in of_type(resources, "AWS::ApiGateway::Method").values():
        said = {key: one for key, one in method["Properties"].items() if key not in ("RestApiId", "ResourceId")}
        for key in ("AuthorizerId", "RequestModels", "RequestValidatorId"):
            said[key] = [resources[name]["Properties"] for name in references(said.get(key))]
        shown[f"{said['HttpMethod']} {_path(method['Properties']['ResourceId'], resources)}"] = said
    for response in of_type(resources, "AWS::ApiGateway::GatewayResponse").values():
        shown[f"response {response['Properties']['ResponseType']}"] = response["Properties"]
    return copied(shown)


def _path(node: Any, resources: Mapping[str, Resource]) -> str:
    if "Ref" not in node:
        return ""
    properties = resources[node["Ref"]]["Properties"]
    return f"{_path(properties['ParentId'], resources)}/{properties['PathPart']}"


def _indexes(table: Resource) -> set[str]:
    """The names of a table's indexes. Attributes that no key uses are refused, as DynamoDB does."""
    properties = table["Properties"]
    indexes = properties.get("GlobalSecondaryIndexes", [])
    keyed = {key["AttributeName"] for one in (properties, *indexes) for key in one["KeySchema"]}
    if keyed != {one["AttributeName"] for one in properties["AttributeDefinitions"]}:
        raise UpdateRefused("AttributeDefinitions is inconsistent with the KeySchema of the table and its indexes")
    return {one["IndexName"] for one in indexes}
