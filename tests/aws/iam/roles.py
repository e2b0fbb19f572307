"""The roles of our own templates with their parameters put in: trust, policies, boundary, without a deployed stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hitless.aws.template import load_template
from tests.aws.front.calls import ACCOUNT
from tests.aws.front.intrinsics import Resolver
from tests.aws.iam.simulate import Role

SERVICE, STAGE, REGION = "clock", "dev", "us-east-1"
SERVICE_BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/clock-core-dev-ServiceBoundary-1"

_ROLE_TYPES = ("AWS::IAM::Role", "AWS::IAM::RolePolicy")


def role_names(template: str) -> list[str]:
    """Logical ids of the roles in a template."""
    resources = load_template(template)["Resources"]
    return [name for name, one in resources.items() if one["Type"] == "AWS::IAM::Role"]


def properties_of(template: str, name: str, **parameters: str) -> dict[str, Any]:
    """A role's properties as CloudFormation would send them; `Policies` has those of RolePolicy resources too."""
    whole = load_template(template)
    resolver = _resolver(whole, template, parameters)
    found: dict[str, Any] = resolver.value(whole["Resources"][name]["Properties"])
    added = [
        resolver.value(one["Properties"])
        for one in whole["Resources"].values()
        if one["Type"] == "AWS::IAM::RolePolicy" and one["Properties"]["RoleName"] == {"Ref": name}
    ]
    return found | {"Policies": [*found.get("Policies", []), *added]}


def role_of(template: str, name: str, **parameters: str) -> Role:
    """A role as the simulator asks about it."""
    properties = properties_of(template, name, **parameters)
    arn = f"arn:aws:iam::{ACCOUNT}:role/{SERVICE}-{template}-{STAGE}-{name}-1"
    return Role(arn, tuple(one["PolicyDocument"] for one in properties["Policies"]))


def _resolver(whole: Mapping[str, Any], template: str, parameters: Mapping[str, str]) -> Resolver:
    given = {"Service": SERVICE, "Stage": STAGE, "Branch": "main", "Repository": "anna/clock"} | dict(parameters)
    for name, one in whole["Parameters"].items():
        given.setdefault(name, str(one.get("Default", one.get("AllowedValues", ["-"])[0])))
    names = {name: f"{SERVICE}-{template}-{STAGE}-{name.lower()}-1" for name in whole["Resources"]}
    names["ServiceBoundary"] = SERVICE_BOUNDARY
    attributes = {(name, "Arn"): _arn(one["Type"], names[name]) for name, one in whole["Resources"].items()}
    return Resolver(whole, given, names, attributes, region=REGION, stack=f"{SERVICE}-{template}-{STAGE}")


def _arn(kind: str, name: str) -> str:
    """What CloudFormation's GetAtt gives, as each type's page says under "Return values".

    A log group's ends in `:*` (aws-cloudformation/cloudformation-coverage-roadmap#206), so that nothing can be
    appended to it in a policy.
    """
    here = f"{REGION}:{ACCOUNT}"
    forms = {
        "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{name}",
        "AWS::Logs::LogGroup": f"arn:aws:logs:{here}:log-group:{name}:*",
        "AWS::CodeBuild::Project": f"arn:aws:codebuild:{here}:project/{name}",
        "AWS::S3::Bucket": f"arn:aws:s3:::{name}",
        "AWS::SNS::Topic": f"arn:aws:sns:{here}:{name}",
    }
    return forms.get(kind, f"arn:aws:{kind.split('::')[1].lower()}:{here}:{name}")
