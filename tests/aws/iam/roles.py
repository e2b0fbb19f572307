"""The roles of our templates with their parameters applied: trust, policies and boundary, without a deployed stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hitless.aws.template import load_template
from tests.aws.front.calls import ACCOUNT
from tests.aws.front.intrinsics import Resolver
from tests.aws.iam.simulate import Role

SERVICE, STAGE, REGION = "clock", "dev", "us-east-1"
SERVICE_BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/clock-core-dev-ServiceBoundary-1"


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
    """A role in the form that the simulator takes."""
    properties = properties_of(template, name, **parameters)
    arn = f"arn:aws:iam::{ACCOUNT}:role/{SERVICE}-{template}-{STAGE}-{name}-1"
    return Role(arn, tuple(one["PolicyDocument"] for one in properties["Policies"]))


def service_boundary(**parameters: str) -> dict[str, Any]:
    """The permissions boundary of every role of the service's stack."""
    whole = load_template("core")
    resolver = _resolver(whole, "core", parameters)
    found: dict[str, Any] = resolver.value(whole["Resources"]["ServiceBoundary"]["Properties"]["PolicyDocument"])
    return found


def _resolver(whole: Mapping[str, Any], template: str, parameters: Mapping[str, str]) -> Resolver:
    given = {"Service": SERVICE, "Stage": STAGE, "Branch": "main", "Repository": "anna/clock"} | dict(parameters)
    for name, one in whole["Parameters"].items():
        given.setdefault(name, str(one.get("Default", one.get("AllowedValues", ["-"])[0])))
    stack = f"{SERVICE}-{template}-{STAGE}"
    drawn = {name: f"{stack}-{name.lower()}-1" for name in whole["Resources"]}
    drawn["ServiceBoundary"] = SERVICE_BOUNDARY.rpartition("/")[2]
    naming = Resolver(whole, given, {}, {}, region=REGION, stack=stack)
    made = {name: returned(one, drawn[name], naming) for name, one in whole["Resources"].items()}
    references = {name: one.ref for name, one in made.items()}
    attributes = {(name, key): value for name, one in made.items() for key, value in one.attributes.items()}
    return Resolver(whole, given, references, attributes, region=REGION, stack=stack)


@dataclass(frozen=True)
class Returned:
    """CloudFormation's return values of `Ref` and of the `GetAtt` attributes that our templates use."""

    ref: str
    attributes: Mapping[str, str] = field(default_factory=dict)


_HERE = f"{REGION}:{ACCOUNT}"
_FORMS: Mapping[str, Returned] = {
    "AWS::ApiGateway::DomainName": Returned(
        "{name}", {"RegionalDomainName": f"d-1.execute-api.{REGION}.amazonaws.com", "RegionalHostedZoneId": "Z1"}
    ),
    "AWS::CloudWatch::Alarm": Returned("{name}", {"Arn": f"arn:aws:cloudwatch:{_HERE}:alarm:{{name}}"}),
    "AWS::CertificateManager::Certificate": Returned(f"arn:aws:acm:{_HERE}:certificate/{{name}}"),
    "AWS::CodeBuild::Project": Returned("{name}", {"Arn": f"arn:aws:codebuild:{_HERE}:project/{{name}}"}),
    "AWS::CodeConnections::Connection": Returned(f"arn:aws:codeconnections:{_HERE}:connection/{{name}}"),
    "AWS::CodePipeline::Pipeline": Returned("{name}"),
    "AWS::EC2::EIP": Returned("198.51.100.7", {"AllocationId": "eipalloc-1"}),
    "AWS::EC2::FlowLog": Returned("fl-1"),
    "AWS::EC2::InternetGateway": Returned("igw-1"),
    "AWS::EC2::NatGateway": Returned("nat-1"),
    "AWS::EC2::Route": Returned("rtb-1|0.0.0.0/0"),
    "AWS::EC2::RouteTable": Returned("rtb-1"),
    "AWS::EC2::SecurityGroup": Returned("sg-1", {"GroupId": "sg-1"}),
    "AWS::EC2::Subnet": Returned("subnet-1"),
    "AWS::EC2::SubnetRouteTableAssociation": Returned("rtbassoc-1"),
    "AWS::EC2::VPC": Returned("vpc-1", {"DefaultSecurityGroup": "sg-2"}),
    "AWS::EC2::VPCEndpoint": Returned("vpce-1"),
    "AWS::EC2::VPCGatewayAttachment": Returned("IGW|vpc-1"),
    "AWS::Events::Rule": Returned("{name}", {"Arn": f"arn:aws:events:{_HERE}:rule/{{name}}"}),
    "AWS::IAM::ManagedPolicy": Returned(f"arn:aws:iam::{ACCOUNT}:policy/{{name}}"),
    "AWS::IAM::Role": Returned("{name}", {"Arn": f"arn:aws:iam::{ACCOUNT}:role/{{name}}"}),
    "AWS::IAM::RolePolicy": Returned("{name}"),
    # ends in `:*`, so that nothing can be appended to it in a policy (cloudformation-coverage-roadmap#206)
    "AWS::Logs::LogGroup": Returned("{name}", {"Arn": f"arn:aws:logs:{_HERE}:log-group:{{name}}:*"}),
    "AWS::Route53::RecordSet": Returned("{name}"),
    "AWS::S3::Bucket": Returned("{name}", {"Arn": "arn:aws:s3:::{name}"}),
    "AWS::S3::BucketPolicy": Returned("{name}"),
    "AWS::SNS::Subscription": Returned(f"arn:aws:sns:{_HERE}:{{name}}:1"),
    "AWS::SNS::Topic": Returned(f"arn:aws:sns:{_HERE}:{{name}}"),
    "AWS::SNS::TopicPolicy": Returned("{name}"),
}
"""The forms that each type's page of the CloudFormation template reference gives under "Return values". What is not
written here is an error: a form that a test makes up hides a policy that AWS would not match.
"""

_NAMED_BY = {
    "AWS::ApiGateway::DomainName": "DomainName",
    "AWS::CodeBuild::Project": "Name",
    "AWS::CodePipeline::Pipeline": "Name",
    "AWS::IAM::Role": "RoleName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::SNS::Topic": "TopicName",
}
"""Types whose name the templates may give, and the property that does."""


def returned(resource: Mapping[str, Any], drawn: str, naming: Resolver) -> Returned:
    """The return values of a resource; `drawn` is its name if the template gives none."""
    form, properties = _FORMS[resource["Type"]], resource.get("Properties", {})
    name = naming.value(properties.get(_NAMED_BY.get(resource["Type"], ""), drawn))
    in_arn = f"{properties.get('Path', '/')}{name}".lstrip("/") if "Path" in properties else name

    def put(text: str) -> str:
        return text.replace("{name}", in_arn if text.startswith("arn:") else name)

    return Returned(put(form.ref), {key: put(value) for key, value in form.attributes.items()})
