"""Reads the generated pipeline template, with its parameters and the names of the deployed resources applied."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.aws.front.intrinsics import Resolver


@dataclass(frozen=True, slots=True)
class Project:
    """A CodeBuild project: its buildspec, role and variables."""

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
    """What runs when a branch is pushed."""

    name: str
    role_arn: str
    branches: tuple[str, ...]
    stages: tuple[Stage, ...]
    projects: Mapping[str, Project]


def read_pipeline(template: Mapping[str, Any], resolver: Resolver) -> PipelineDefinition:
    """Reads the pipeline and its projects from the template."""
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
    """The action's own EnvironmentVariables with `#{Namespace.Name}` replaced."""
    given = json.loads(action.configuration.get("EnvironmentVariables", "[]"))
    return {one["name"]: re.sub(r"#\{([^}]+)\}", lambda m: variables[m.group(1)], one["value"]) for one in given}
