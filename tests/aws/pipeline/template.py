"""What the generated pipeline template says, with its parameters and the names of what was deployed put in.

Resolves the intrinsics that the template uses and raises for any other, so that nothing is guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.aws.front.calls import ACCOUNT

_ABSENT: Any = object()


class Resolver:
    """`physical` has the ids of the deployed resources by logical id; `attributes` answers GetAtt."""

    def __init__(
        self,
        template: Mapping[str, Any],
        parameters: Mapping[str, str],
        physical: Mapping[str, str],
        attributes: Mapping[tuple[str, str], str],
        *,
        region: str,
        stack: str,
    ) -> None:
        defaults = {name: str(one["Default"]) for name, one in template["Parameters"].items() if "Default" in one}
        pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": region,
            "AWS::StackName": stack,
            "AWS::URLSuffix": "amazonaws.com",
        }
        self._conditions: Mapping[str, Any] = template.get("Conditions", {})
        self._values: dict[str, Any] = {**physical, **defaults, **parameters, **pseudo, "AWS::NoValue": _ABSENT}
        self._attributes = attributes

    def condition(self, name: str) -> bool:
        return self._true(self._conditions[name])

    def _true(self, rule: Mapping[str, Any]) -> bool:
        ((kind, given),) = rule.items()
        match kind:
            case "Condition":
                return self.condition(given)
            case "Fn::Equals":
                return bool(self.value(given[0]) == self.value(given[1]))
            case "Fn::Not":
                return not self._true(given[0])
            case "Fn::And":
                return all(self._true(one) for one in given)
            case "Fn::Or":
                return any(self._true(one) for one in given)
        raise ValueError(f"condition {kind}")

    def value(self, node: Any) -> Any:
        """The node with every intrinsic resolved; what is AWS::NoValue is left out of its list or mapping."""
        if isinstance(node, list):
            return [one for one in map(self.value, node) if one is not _ABSENT]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((kind, given),) = node.items()
            if kind == "Ref":
                return self._values[given]
            if kind.startswith("Fn::"):
                return self._function(kind, given)
        return {key: one for key, inner in node.items() if (one := self.value(inner)) is not _ABSENT}

    def _function(self, kind: str, given: Any) -> Any:
        match kind:
            case "Fn::If":
                return self.value(given[1] if self.condition(given[0]) else given[2])
            case "Fn::Sub":
                return self._sub(given)
            case "Fn::Join":
                return given[0].join(map(str, self.value(given[1])))
            case "Fn::GetAtt":
                target, attribute = given.split(".", 1) if isinstance(given, str) else given
                return self._attributes[target, attribute]
        raise ValueError(f"{kind} is not resolved here")

    def _sub(self, given: Any) -> str:
        text, own = (given, {}) if isinstance(given, str) else (given[0], self.value(given[1]))

        def put(match: re.Match[str]) -> str:
            name = match.group(1)
            if name in own:
                return str(own[name])
            if name in self._values:
                return str(self._values[name])
            target, _, attribute = name.partition(".")
            return self._attributes[target, attribute]

        return re.sub(r"\$\{([^!}]+)\}", put, text)


@dataclass(frozen=True, slots=True)
class Project:
    """A CodeBuild project: what runs, as whom, with which variables."""

    name: str
    buildspec: str
    role_arn: str
    environment: Mapping[str, str]
    limit_s: float


@dataclass(frozen=True, slots=True)
class Action:
    """An action of a stage. `project` is None for the source and for approvals."""

    name: str
    category: str
    provider: str
    configuration: Mapping[str, str]
    namespace: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class PipelineDefinition:
    """What is to run when a branch is pushed."""

    name: str
    role_arn: str
    branches: tuple[str, ...]
    stages: tuple[Stage, ...]
    projects: Mapping[str, Project]


def read_pipeline(template: Mapping[str, Any], resolver: Resolver) -> PipelineDefinition:
    """The pipeline and its projects out of the template."""
    resources: Mapping[str, Mapping[str, Any]] = template["Resources"]
    (pipeline,) = (one for one in resources.values() if one["Type"] == "AWS::CodePipeline::Pipeline")
    properties = resolver.value(pipeline["Properties"])
    projects = {
        project.name: project
        for one in resources.values()
        if one["Type"] == "AWS::CodeBuild::Project" and _is_made(one, resolver)
        for project in [_project(resolver.value(one["Properties"]))]
    }
    branches = tuple(
        branch
        for trigger in properties["Triggers"]
        for push in trigger["GitConfiguration"]["Push"]
        for branch in push["Branches"]["Includes"]
    )
    stages = tuple(Stage(stage["Name"], tuple(map(_action, stage["Actions"]))) for stage in properties["Stages"])
    return PipelineDefinition(properties["Name"], properties["RoleArn"], branches, stages, projects)


def _is_made(resource: Mapping[str, Any], resolver: Resolver) -> bool:
    return "Condition" not in resource or resolver.condition(resource["Condition"])


def _project(properties: Mapping[str, Any]) -> Project:
    variables = properties["Environment"].get("EnvironmentVariables", [])
    if any(one.get("Type", "PLAINTEXT") != "PLAINTEXT" for one in variables):
        raise ValueError(f"{properties['Name']}: only PLAINTEXT variables are run here")
    return Project(
        name=properties["Name"],
        buildspec=properties["Source"]["BuildSpec"],
        role_arn=properties["ServiceRole"],
        environment={one["Name"]: str(one["Value"]) for one in variables},
        limit_s=60.0 * properties["TimeoutInMinutes"],
    )


def _action(document: Mapping[str, Any]) -> Action:
    kind = document["ActionTypeId"]
    return Action(
        name=document["Name"],
        category=kind["Category"],
        provider=kind["Provider"],
        configuration=document.get("Configuration", {}),
        namespace=document.get("Namespace", ""),
        inputs=tuple(one["Name"] for one in document.get("InputArtifacts", [])),
        outputs=tuple(one["Name"] for one in document.get("OutputArtifacts", [])),
    )


def action_variables(action: Action, variables: Mapping[str, str]) -> dict[str, str]:
    """The action's own EnvironmentVariables with `#{Namespace.Name}` put in."""
    given = json.loads(action.configuration.get("EnvironmentVariables", "[]"))
    return {one["name"]: re.sub(r"#\{([^}]+)\}", lambda m: variables[m.group(1)], one["value"]) for one in given}
