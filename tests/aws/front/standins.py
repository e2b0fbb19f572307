"""Replaces resources that the emulator refuses by stand-ins, which keep the resource's place in the template.

ministack fails a stack with "Unrecognized resource types" for the types of REFUSED. Leaving the resource out would
break each Ref, DependsOn and preview that names it, so it becomes an SSM parameter instead: its name is
`/stand-in/STACK/LOGICAL-ID`, its value the resource's properties as CloudFormation resolved them, its description the
real type. Thereby the front's doubles (CodeDeploy, the connection) read the resolved properties, an update and a
deletion of the stack reach them too, and the front can show the real type and name in every answer about the stack.

docs/aws-emulation.md shows this list; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

STAND_IN_TYPE: Final = "AWS::SSM::Parameter"
PREFIX: Final = "/stand-in/"

Json = Any
"""A JSON value of a template: CloudFormation's templates have no narrower type."""


def _named(*keys: str) -> Callable[[str, Mapping[str, Json]], Json]:
    """A resource whose Ref is the first of its naming properties, else STACK-LOGICALID."""

    def name(logical_id: str, properties: Mapping[str, Json]) -> Json:
        for key in keys:
            if key in properties:
                return properties[key]
        return {"Fn::Sub": "${AWS::StackName}-" + logical_id}

    return name


def _arn(shape: str) -> Callable[[str, Mapping[str, Json]], Json]:
    def name(logical_id: str, properties: Mapping[str, Json]) -> Json:
        return {"Fn::Sub": shape.replace("LOGICAL", logical_id)}

    return name


def _id(prefix: str) -> Callable[[str, Mapping[str, Json]], Json]:
    def name(logical_id: str, properties: Mapping[str, Json]) -> Json:
        return {"Fn::Sub": f"{prefix}-${{AWS::StackName}}-{logical_id}"}

    return name


_CONNECTION_ARN: Final = (
    "arn:${AWS::Partition}:codeconnections:${AWS::Region}:${AWS::AccountId}:connection/${AWS::StackName}-LOGICAL"
)

REFUSED: Final[Mapping[str, Callable[[str, Mapping[str, Json]], Json]]] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": _id("scalable-target"),
    "AWS::ApplicationAutoScaling::ScalingPolicy": _id("scaling-policy"),
    "AWS::CodeConnections::Connection": _arn(_CONNECTION_ARN),
    "AWS::CodeDeploy::Application": _named("ApplicationName"),
    "AWS::CodeDeploy::DeploymentConfig": _named("DeploymentConfigName"),
    "AWS::CodeDeploy::DeploymentGroup": _named("DeploymentGroupName"),
    "AWS::CodePipeline::Pipeline": _named("Name"),
    "AWS::CodeStarConnections::Connection": _arn(_CONNECTION_ARN),
    "AWS::EC2::EIP": _id("eip"),
    "AWS::EC2::FlowLog": _id("fl"),
    "AWS::EC2::NatGateway": _id("nat"),
}
"""Type → what its Ref gives. The types were tried one by one on ministack 1.5.33."""


INLINE_POLICY: Final = "AWS::IAM::RolePolicy"
"""Refused too, but the older AWS::IAM::Policy does the same for one role, so the emulator gets that."""


def is_refused(resource: Mapping[str, Json]) -> bool:
    """Whether ministack refuses it: by its type, or because it is a metric-math alarm, which ministack does not
    evaluate.
    """
    kind = resource.get("Type")
    return kind in REFUSED or (kind == "AWS::CloudWatch::Alarm" and "Metrics" in resource.get("Properties", {}))


def _reference(logical_id: str, resource: Mapping[str, Json]) -> Json:
    name = REFUSED.get(str(resource["Type"]), _named("AlarmName"))
    return name(logical_id, resource.get("Properties", {}))


def replace_refused(template: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, str]]:
    """The template for the emulator, and the replaced resources: logical id → real type."""
    resources: Mapping[str, Mapping[str, Json]] = template.get("Resources", {})
    refused = {name: resource for name, resource in resources.items() if is_refused(resource)}
    policies = {name: one for name, one in resources.items() if one.get("Type") == INLINE_POLICY}
    if not refused and not policies:
        return dict(template), {}
    references = {name: _reference(name, resource) for name, resource in refused.items()}
    changed = dict(template)
    stand_ins = {name: _stand_in(name, resource) for name, resource in refused.items()}
    changed["Resources"] = {**resources, **stand_ins, **{name: _policy(one) for name, one in policies.items()}}
    transforms = template.get("Transform", [])
    changed["Transform"] = [*(transforms if isinstance(transforms, list) else [transforms]), "AWS::LanguageExtensions"]
    rewritten: dict[str, Json] = _rewrite(changed, references)
    return rewritten, {name: str(resource["Type"]) for name, resource in (refused | policies).items()}


def _policy(resource: Mapping[str, Json]) -> dict[str, Json]:
    properties = dict(resource["Properties"])
    properties["Roles"] = [properties.pop("RoleName")]
    return {**resource, "Type": "AWS::IAM::Policy", "Properties": properties}


def _stand_in(logical_id: str, resource: Mapping[str, Json]) -> dict[str, Json]:
    kept = {
        key: resource[key]
        for key in ("Condition", "DependsOn", "DeletionPolicy", "UpdateReplacePolicy")
        if key in resource
    }
    held = {"Type": resource["Type"], "Properties": resource.get("Properties", {})}
    return {
        **kept,
        "Type": STAND_IN_TYPE,
        "Properties": {
            "Name": {"Fn::Sub": f"{PREFIX}${{AWS::StackName}}/{logical_id}"},
            "Type": "String",
            "Tier": "Advanced",
            "Description": resource["Type"],
            "Value": {"Fn::ToJsonString": held},
        },
    }


def _rewrite(value: Json, references: Mapping[str, Json]) -> Json:
    """Gives each Ref, GetAtt and Sub of a stand-in the real resource's value."""
    if isinstance(value, list):
        return [_rewrite(item, references) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (key, inner), *_ = value.items()
        if key == "Ref" and inner in references:
            return _rewrite(references[inner], {})
        if key == "Fn::GetAtt":
            target = inner.split(".", 1)[0] if isinstance(inner, str) else inner[0]
            if target in references:
                return _attribute(references[target], inner if isinstance(inner, str) else ".".join(inner))
        if key == "Fn::Sub":
            return {"Fn::Sub": _substitution(inner, references)}
    return {key: _rewrite(inner, references) for key, inner in value.items()}


def _attribute(reference: Json, path: str) -> Json:
    attribute = path.split(".", 1)[1]
    if attribute in ("ConnectionArn", "Arn", "Id", "AllocationId", "NatGatewayId"):
        return reference
    return {"Fn::Join": ["/", [reference, attribute]]}


_PLACEHOLDER: Final = re.compile(r"\$\{([^!}][^}]*)\}")


def _substitution(inner: Json, references: Mapping[str, Json]) -> Json:
    text, given = (inner, {}) if isinstance(inner, str) else (inner[0], inner[1])
    variables = {key: _rewrite(item, references) for key, item in given.items()}

    def swap(match: re.Match[str]) -> str:
        path = match.group(1).strip()
        target = path.split(".", 1)[0]
        if target not in references or path in given:
            return match.group(0)
        name = "StandIn" + re.sub(r"\W", "", path)
        variables[name] = references[target] if path == target else _attribute(references[target], path)
        return "${" + name + "}"

    text = _PLACEHOLDER.sub(swap, text)
    return [text, variables] if variables else text
