"""CloudFormation's schemas of its types, from cfn-lint: create-only properties, and permissions that its handlers
use.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CLOUD = Path(__file__).parents[2] / "src" / "hitless" / "cloud"
FILE = CLOUD / "transform" / "create_only.json"
PERMISSIONS_FILE = CLOUD / "stage" / "permissions.json"
REGION = "us-east-1"

BEYOND_CORE = (
    *("AWS::EC2::SecurityGroupEgress", "AWS::RDS::DBInstance", "AWS::RDS::DBSubnetGroup"),
    *("AWS::CloudFront::CachePolicy", "AWS::CloudFront::Distribution", "AWS::Cognito::UserPool"),
    *("AWS::Cognito::UserPoolClient", "AWS::DynamoDB::Table", "AWS::EC2::SecurityGroup"),
    *("AWS::ElasticLoadBalancingV2::ListenerRule", "AWS::ElasticLoadBalancingV2::TargetGroup"),
    *("AWS::Events::EventBus", "AWS::Events::Rule", "AWS::IAM::ManagedPolicy", "AWS::IoT::TopicRule"),
    *("AWS::KMS::Alias", "AWS::KMS::Key", "AWS::Kinesis::Stream", "AWS::Lambda::EventSourceMapping"),
    *("AWS::Lambda::Url", "AWS::Logs::SubscriptionFilter", "AWS::S3::Bucket", "AWS::S3::BucketPolicy"),
    *("AWS::SNS::Subscription", "AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "AWS::SQS::Queue"),
    *("AWS::SQS::QueuePolicy", "AWS::SSM::Parameter", "AWS::Scheduler::Schedule", "AWS::SecretsManager::Secret"),
)
"""Types that osls makes for events, and those that services write most often into `resources`."""


def _schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    found = importlib.util.find_spec("cfnlint")
    assert found is not None
    assert found.submodule_search_locations
    schemas = Path(found.submodule_search_locations[0]) / "data" / "schemas"
    hashes = json.loads((schemas / "providers" / f"{REGION}.json").read_text("utf-8"))
    for kind, digest in sorted(hashes.items()):
        yield kind, json.loads((schemas / "resources" / f"{digest}.json").read_text("utf-8"))


def permissions_of_schemas() -> dict[str, list[str]]:
    """Type → its service's own actions that CloudFormation's handlers use. The first one makes the resource.

    The lists are supersets: no customer key, role to pass, or other service's resource is counted in.
    """
    made = {}
    for kind, schema in _schemas():
        if kind in BEYOND_CORE:
            makes = _making(kind, schema["handlers"]["create"]["permissions"])
            own = makes.partition(":")[0]
            verbs = ("create", "read", "update", "delete")
            every = {one for verb in verbs for one in schema["handlers"].get(verb, {}).get("permissions", ())}
            made[kind] = [makes, *sorted(one for one in every - {makes} if one.startswith(f"{own}:"))]
    return made


def _making(kind: str, actions: Sequence[str]) -> str:
    """The action that makes a resource: `Create` or `Put` of the type's own name, else the first that may."""
    noun = kind.rpartition("::")[2]
    named = [one for one in actions if one.partition(":")[2] in (f"Create{noun}", f"Put{noun}", "CreatePolicy")]
    others = [
        one for one in actions if one.partition(":")[2].startswith(("Create", "Put", "Set", "Subscribe", "Authorize"))
    ]
    return (named or others)[0]


def create_only_of_schemas() -> dict[str, list[str]]:
    """Type → the properties (`A`, or `A/B` within one) whose change replaces the resource, always or at times."""
    made = {}
    for kind, schema in _schemas():
        pointers = [*schema.get("createOnlyProperties", []), *schema.get("conditionalCreateOnlyProperties", [])]
        if pointers:
            made[kind] = sorted({pointer.removeprefix("/properties/") for pointer in pointers})
    return made


def written(of_types: Mapping[str, list[str]]) -> str:
    """A file's text: one type per line."""
    lines = [f"{json.dumps(kind)}: {json.dumps(names)}" for kind, names in of_types.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"
