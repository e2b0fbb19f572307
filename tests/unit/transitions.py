"""Named transitions between two definitions of a service, each with the change and the expected result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.unit.definitions import LAMBDA_TRUST, Definition, Function, Route

READ = {"Effect": "Allow", "Action": ["dynamodb:GetItem"], "Resource": "*"}
QUERY = {"Effect": "Allow", "Action": ["dynamodb:Query"], "Resource": "*"}
DENY = {"Effect": "Deny", "Action": ["dynamodb:DeleteTable"], "Resource": "*"}
LAYER_ARN = "arn:aws:lambda:eu-central-1:123456789012:layer:common:3"
KEY_ARN = "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000"
BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"
UNROUTED = "MISSING_AUTHENTICATION_TOKEN"
"""What API Gateway calls the answer for a path that it does not know."""

OTHER_BOUNDARY = "arn:aws:iam::123456789012:policy/other"
VPC = {"SecurityGroupIds": ["sg-00000001"], "SubnetIds": ["subnet-00000001"]}
ITEMS, ITEM, OTHER = Route("GET", "items"), Route("GET", "items/{id}"), Route("GET", "other")


def table(*indexes: str, name: str | None = None, key: str = "id", projection: str = "ALL") -> dict[str, Any]:
    properties: dict[str, Any] = {
        "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": each, "AttributeType": "S"} for each in (key, *indexes)],
        "BillingMode": "PAY_PER_REQUEST",
    }
    if indexes:
        properties["GlobalSecondaryIndexes"] = [
            {
                "IndexName": f"by-{each}",
                "KeySchema": [{"AttributeName": each, "KeyType": "HASH"}],
                "Projection": {"ProjectionType": projection},
            }
            for each in indexes
        ]
    if name:
        properties["TableName"] = name
    return {"Type": "AWS::DynamoDB::Table", "Properties": properties}


def streamed(on: bool) -> dict[str, Any]:
    made = table()
    if on:
        made["Properties"]["StreamSpecification"] = {"StreamViewType": "NEW_IMAGE"}
    return made


def kms_key(*, enabled: bool) -> dict[str, Any]:
    owner = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [owner]}
    return {"Type": "AWS::KMS::Key", "Properties": {"Enabled": enabled, "KeyPolicy": policy}}


def group(*ports: int, about: str = "functions") -> dict[str, Any]:
    rules = [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": "10.0.0.0/16"} for port in ports]
    properties = {"GroupDescription": about, "VpcId": "vpc-00000001", "SecurityGroupEgress": rules}
    return {"Type": "AWS::EC2::SecurityGroup", "Properties": properties}


def own_role(*statements: dict[str, Any], **properties: Any) -> dict[str, Any]:
    policy = {"PolicyName": "own", "PolicyDocument": {"Version": "2012-10-17", "Statement": list(statements)}}
    trust = {"Version": "2012-10-17", "Statement": [LAMBDA_TRUST]}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {"AssumeRolePolicyDocument": trust, "Policies": [policy], **properties},
    }


def attached(*statements: dict[str, Any]) -> dict[str, Any]:
    return {
        "Type": "AWS::IAM::Policy",
        "Properties": {
            "PolicyName": "attached",
            "PolicyDocument": {"Version": "2012-10-17", "Statement": list(statements)},
            "Roles": [{"Ref": "OwnRole"}],
        },
    }


def response(kind: str, status: str = "404") -> dict[str, Any]:
    return {
        "Type": "AWS::ApiGateway::GatewayResponse",
        "Properties": {"ResponseType": kind, "RestApiId": {"Ref": "ApiGatewayRestApi"}, "StatusCode": status},
    }


BASE = Definition({"alpha": Function((ITEMS, ITEM)), "beta": Function((OTHER,)), "check": Function()})
OWN_ROLE = {"Role": {"Fn::GetAtt": ["OwnRole", "Arn"]}}


def of(base: Definition = BASE, /, **functions: Function | None) -> Definition:
    """The definition with these functions added, or removed if None."""
    made = {**base.functions, **functions}
    return replace(base, functions={key: one for key, one in made.items() if one is not None})


def alpha(**properties: Any) -> Definition:
    """The base with Lambda properties for its first function."""
    return of(alpha=Function((ITEMS, ITEM), properties=properties))


def routed(*routes: Route) -> Definition:
    return of(alpha=Function(routes))


def holding(resources: Mapping[str, Any], **properties: Any) -> Definition:
    """The base with resources of its own, and properties of its first function that may refer to them."""
    return replace(alpha(**properties), resources=resources)


def asking(name: str) -> dict[str, Any]:
    return {"Environment": {"Variables": {"TABLE": {"Ref": name}}}}


@dataclass(frozen=True)
class Transition:
    """`refused` and `noted` are parts of the messages; `updates` is CloudFormation's number of updates."""

    name: str
    before: Definition
    after: Definition
    refused: str = ""
    noted: str = ""
    updates: int = 2


def new_code(definition: Definition) -> Definition:
    """The definition with other bytes in each function."""
    return replace(definition, functions={key: replace(one, letter="d") for key, one in definition.functions.items()})


def _keys(*keys: tuple[str, str | None], quota: int = 100) -> Definition:
    return replace(routed(replace(ITEMS, private=True), ITEM), keys=keys, quota=quota)


def _grouped(own: dict[str, Any]) -> Definition:
    return holding({"Group": own}, VpcConfig={**VPC, "SecurityGroupIds": [{"Ref": "Group"}]})


def _conditional(value: str) -> Definition:
    held = {"Items": {**table(), "Condition": "IsProd"}}
    return replace(holding(held), conditions={"IsProd": {"Fn::Equals": ["a", value]}})


_FIRST, _SECOND = ("first", "1" * 20), ("second", "2" * 20)
_GUARDED = routed(replace(ITEMS, authorizer="check"), ITEM)
_SCHEDULED = of(beta=Function((OTHER,), schedule="rate(1 hour)"))
_PLAIN_TABLE = {"Items": table()}

TRANSITIONS = (
    # functions
    Transition("nothing changes", BASE, BASE),
    Transition("one function's code", BASE, of(alpha=Function((ITEMS, ITEM), "b"))),
    Transition("every function's code", BASE, of(alpha=Function((ITEMS, ITEM), "b"), beta=Function((OTHER,), "b"))),
    Transition("more memory", BASE, alpha(MemorySize=2048)),
    Transition("a longer time-out", BASE, alpha(Timeout=20)),
    Transition("another runtime", BASE, alpha(Runtime="python3.12")),
    Transition("another architecture", BASE, alpha(Architectures=["arm64"])),
    Transition("a variable is added", BASE, alpha(Environment={"Variables": {"A": "1"}})),
    Transition("a variable is removed", alpha(Environment={"Variables": {"A": "1"}}), BASE),
    Transition("a layer is added by its ARN", BASE, alpha(Layers=[LAYER_ARN])),
    Transition("a KMS key for the environment", BASE, alpha(KmsKeyArn=KEY_ARN)),
    Transition("only tags change", BASE, alpha(Tags=[{"Key": "team", "Value": "a"}])),
    Transition("a function is added", BASE, of(gamma=Function((Route("GET", "new"),)))),
    Transition("a function is removed", BASE, of(beta=None), noted="demo-prod-beta is removed with the release"),
    Transition("a function's key is renamed", BASE, of(beta=None, zeta=Function((OTHER,))), noted="GET /other moves"),
    Transition("a function's name changes", BASE, of(beta=Function((OTHER,), name="other")), "would be replaced"),
    Transition(
        "a key is renamed and the name kept",
        BASE,
        of(beta=None, zeta=Function((OTHER,), name="demo-prod-beta")),
        "would have the name",
    ),
    Transition(
        "two functions swap their names",
        of(alpha=Function((ITEMS,), name="one"), beta=Function((OTHER,), name="two")),
        of(alpha=Function((ITEMS,), name="two"), beta=Function((OTHER,), name="one")),
        "FunctionName cannot be changed in place",
    ),
    Transition("reserved concurrency is lowered", alpha(ReservedConcurrentExecutions=50),
               alpha(ReservedConcurrentExecutions=5), noted="goes down to 5 after the shift"),
    Transition("reserved concurrency is raised", alpha(ReservedConcurrentExecutions=5),
               alpha(ReservedConcurrentExecutions=50)),
    Transition("reserved concurrency is set", BASE, alpha(ReservedConcurrentExecutions=5), noted="goes down to 5"),
    Transition("reserved concurrency is removed", alpha(ReservedConcurrentExecutions=5), BASE),
    # routes
    Transition("a route is added", BASE, routed(ITEMS, ITEM, Route("POST", "items"))),
    Transition("a route is removed", BASE, routed(ITEMS),
               noted="GET /items/{id} is removed once the new code", updates=3),
    Transition("a route's method changes", BASE, routed(Route("POST", "items"), ITEM),
               noted="GET /items is removed", updates=3),
    Transition("every route is removed", BASE, of(alpha=Function(), beta=Function()),
               noted="its URL does not come back", updates=3),
    Transition("the first routes are added", of(alpha=Function(), beta=Function()), BASE),
    Transition("a route moves to another function", BASE, of(alpha=Function((ITEM,)), beta=Function((OTHER, ITEMS))),
               noted="GET /items moves to BetaAliasLive", updates=3),
    Transition("two routes change places", BASE, of(alpha=Function((OTHER, ITEM)), beta=Function((ITEMS,))),
               noted="GET /other moves to AlphaAliasLive", updates=3),
    Transition("all routes to one function", BASE,
               of(alpha=Function(), beta=Function((Route("ANY", "{proxy+}"),))),
               noted="GET /items is removed", updates=3),
    Transition("a path parameter is renamed", BASE, routed(ITEMS, Route("GET", "items/{item}")),
               noted="occupies the place of a new one: one more update", updates=4),
    Transition("a path parameter becomes greedy", BASE, routed(ITEMS, Route("GET", "items/{id+}")),
               noted="one more update", updates=4),
    Transition("a renamed parameter with paths under it", routed(Route("GET", "items/{id}/parts/{part}")),
               routed(Route("GET", "items/{item}/parts/{part}")), noted="one more update", updates=4),
    Transition("a parameter becomes a word", BASE, routed(ITEMS, Route("GET", "items/all")), updates=3),
    Transition("a path of the same letters", routed(Route("GET", "openapi.json")),
               routed(Route("GET", "openapijson")), updates=3),
    Transition("a deep path is added", BASE, routed(ITEMS, ITEM, Route("GET", "items/{id}/parts/{part}/name"))),
    Transition("the root is routed", BASE, routed(ITEMS, ITEM, Route("GET", "/"))),
    Transition("a route below a variable is added", BASE, routed(ITEMS, ITEM, Route("GET", "items/{id}/parts"))),
    Transition("a route is for any method", BASE, routed(Route("ANY", "items"), ITEM), noted="GET /items is removed"),
    Transition("one function is added and another removed", BASE, of(beta=None, gamma=Function((Route("GET", "new"),))),
               noted="GET /other is removed"),
    Transition("a new function takes a route over", BASE, of(beta=Function(letter="b"), gamma=Function((OTHER,))),
               noted="GET /other moves to GammaAliasLive", updates=3),
    Transition("much at once", BASE, replace(
        of(alpha=Function((replace(ITEMS, authorizer="check"), ITEM, Route("POST", "items")), "b"),
           beta=Function((OTHER,), "b"), check=Function(letter="b")),
        policies=(READ,), strategy="Linear20PercentEvery2Minutes", pre_traffic="check"), updates=3),
    # what API Gateway asks before it asks a function
    Transition("an authorizer is added", BASE,
               new_code(_GUARDED),
               noted="gets other settings once the new code", updates=3),
    Transition("an authorizer is removed", _GUARDED,
               new_code(BASE),
               noted="gets other settings once the new code", updates=3),
    Transition("an authorizer's time changes", _GUARDED, routed(replace(ITEMS, authorizer="check", ttl_s=0), ITEM),
               noted="stay in API Gateway's cache for 300 s"),
    Transition("an authorizer's code", _GUARDED, of(_GUARDED, check=Function(letter="b"))),
    Transition("another authorizer", _GUARDED,
               new_code(of(routed(replace(ITEMS, authorizer="other"), ITEM), other=Function())),
               noted="gets other settings once the new code", updates=3),
    Transition("an authorizer moves to another route", _GUARDED,
               new_code(routed(ITEMS, replace(ITEM, authorizer="check"))),
               noted="gets other settings once the new code", updates=3),
    Transition("body validation is added", BASE,
               new_code(routed(replace(ITEMS, schema="object"), ITEM)),
               noted="gets other settings once the new code", updates=3),
    Transition("body validation changes", routed(replace(ITEMS, schema="object")),
               new_code(routed(replace(ITEMS, schema="array"))),
               noted="gets other settings once the new code", updates=3),
    Transition("body validation is removed", routed(replace(ITEMS, schema="object"), ITEM),
               new_code(BASE),
               noted="gets other settings once the new code", updates=3),
    Transition("a route requires a key", replace(_keys(_FIRST), functions=BASE.functions),
               new_code(_keys(_FIRST)),
               noted="gets other settings once the new code", updates=3),
    Transition("a route no longer requires a key", _keys(_FIRST),
               new_code(replace(_keys(_FIRST), functions=BASE.functions)),
               noted="gets other settings once the new code", updates=3),
    Transition("a key is added", _keys(_FIRST), _keys(_FIRST, _SECOND)),
    Transition("a key is added before another", _keys(_SECOND), _keys(_FIRST, _SECOND)),
    Transition("the first of two keys is removed", _keys(_FIRST, _SECOND), _keys(_SECOND),
               noted="API key first is valid until the release after"),
    Transition("a key's value changes", _keys(_FIRST), _keys(("first", "3" * 20)), noted="API key first is valid"),
    Transition("a usage plan gets a quota", _keys(_FIRST), _keys(_FIRST, quota=10)),
    Transition("all keys are removed", _keys(_FIRST),
               new_code(BASE),
               noted="API key first is valid until", updates=3),
    Transition("a gateway response is added", BASE, replace(BASE, resources={"NotFound": response(UNROUTED)})),
    Transition("a gateway response is removed", replace(BASE, resources={"NotFound": response(UNROUTED)}), BASE),
    Transition("a gateway response is renamed", replace(BASE, resources={"NotFound": response(UNROUTED)}),
               replace(BASE, resources={"Missing": response(UNROUTED, "410")}), noted="one more update", updates=3),
    Transition("other binary types", BASE,
               new_code(replace(BASE, api={"BinaryMediaTypes": ["image/png"]})),
               noted="GET /other gets other settings", updates=3),
    Transition("responses are compressed", BASE, replace(BASE, api={"MinimumCompressionSize": 1024})),
    Transition("a regional endpoint", BASE, replace(BASE, api={"EndpointConfiguration": {"Types": ["REGIONAL"]}})),
    Transition("the API's default address is switched off", replace(BASE, domain="a.example.com"),
               replace(BASE, domain="a.example.com", api={"DisableExecuteApiEndpoint": True})),
    Transition("the API gets a policy", BASE, replace(BASE, api={"Policy": {"Statement": [READ]}})),
    Transition("a domain is added", BASE, replace(BASE, domain="a.example.com")),
    Transition("another domain", replace(BASE, domain="a.example.com"), replace(BASE, domain="b.example.com"),
               noted="a.example.com leads to the API until"),
    Transition("the domain is removed", replace(BASE, domain="a.example.com"), BASE, noted="a.example.com leads"),
    # roles
    Transition("a role gets more permissions", BASE, replace(BASE, policies=(READ,))),
    Transition("a role gets fewer permissions", replace(BASE, policies=(READ, QUERY)), replace(BASE, policies=(READ,))),
    Transition("a role gets other permissions", replace(BASE, policies=(READ,)), replace(BASE, policies=(QUERY,))),
    Transition("a role is denied more", replace(BASE, policies=(READ,)), replace(BASE, policies=(READ, DENY)),
               noted="denies more after the shift"),
    Transition("a role is denied less", replace(BASE, policies=(READ, DENY)), replace(BASE, policies=(READ,))),
    Transition("a managed policy is removed", replace(BASE, managed=("arn:aws:iam::aws:policy/A",)), BASE),
    Transition("another managed policy", replace(BASE, managed=("arn:aws:iam::aws:policy/A",)),
               replace(BASE, managed=("arn:aws:iam::aws:policy/B",))),
    Transition("a boundary is added", BASE, replace(BASE, boundary=BOUNDARY)),
    Transition("another boundary", replace(BASE, boundary=BOUNDARY), replace(BASE, boundary=OTHER_BOUNDARY),
               noted="AlphaRole gets another boundary after the shift"),
    Transition("a boundary is removed", replace(BASE, boundary=BOUNDARY), BASE),
    Transition("a role's path", BASE, replace(BASE, path="/service/"), "because Path cannot be changed in place"),
    Transition("a custom role is added", BASE, holding({"OwnRole": own_role(READ)}, **OWN_ROLE)),
    Transition("a custom role is removed", holding({"OwnRole": own_role(READ)}, **OWN_ROLE), BASE),
    Transition("a custom role gets other permissions", holding({"OwnRole": own_role(READ)}, **OWN_ROLE),
               holding({"OwnRole": own_role(QUERY)}, **OWN_ROLE)),
    Transition("a custom role is denied more", holding({"OwnRole": own_role(READ)}, **OWN_ROLE),
               holding({"OwnRole": own_role(READ, DENY)}, **OWN_ROLE), noted="OwnRole denies more after the shift"),
    Transition("a custom role is renamed", holding({"OwnRole": own_role(READ, RoleName="one")}, **OWN_ROLE),
               holding({"OwnRole": own_role(READ, RoleName="two")}, **OWN_ROLE), "because RoleName cannot be changed"),
    Transition("an attached policy changes", holding({"OwnRole": own_role(), "More": attached(READ)}, **OWN_ROLE),
               holding({"OwnRole": own_role(), "More": attached(QUERY)}, **OWN_ROLE)),
    Transition("an attached policy denies less",
               holding({"OwnRole": own_role(), "More": attached(READ, DENY)}, **OWN_ROLE),
               holding({"OwnRole": own_role(), "More": attached(READ)}, **OWN_ROLE)),
    Transition("an attached policy denies something else",
               holding({"OwnRole": own_role(READ), "More": attached(DENY)}, **OWN_ROLE),
               holding({"OwnRole": own_role(READ), "More": attached({**DENY, "Resource": "arn"})}, **OWN_ROLE)),
    Transition("a denying policy is attached", holding({"OwnRole": own_role(READ)}, **OWN_ROLE),
               holding({"OwnRole": own_role(READ), "More": attached(DENY)}, **OWN_ROLE)),
    Transition("a denying policy is removed",
               holding({"OwnRole": own_role(READ), "More": attached(QUERY, DENY)}, **OWN_ROLE),
               holding({"OwnRole": own_role(READ)}, **OWN_ROLE)),
    Transition("an attached policy is removed", holding({"OwnRole": own_role(), "More": attached(READ)}, **OWN_ROLE),
               holding({"OwnRole": own_role()}, **OWN_ROLE)),
    # networks
    Transition("functions move into a VPC", BASE, alpha(VpcConfig=VPC)),
    Transition("functions move out of a VPC", alpha(VpcConfig=VPC), BASE),
    Transition("other subnets", alpha(VpcConfig=VPC), alpha(VpcConfig={**VPC, "SubnetIds": ["subnet-00000002"]})),
    Transition("a security group's rules change", _grouped(group(443)), _grouped(group(5432))),
    Transition("a custom security group is removed", _grouped(group(443)), alpha(VpcConfig=VPC)),
    Transition("a security group's description", _grouped(group(443)), _grouped(group(443, about="other")),
               "because GroupDescription cannot be changed in place"),
    # what functions keep
    Transition("a table is added", BASE, holding(_PLAIN_TABLE, **asking("Items"))),
    Transition("a table is removed", holding(_PLAIN_TABLE, **asking("Items")), BASE),
    Transition("a table's key", holding(_PLAIN_TABLE, **asking("Items")),
               holding({"Items": table(key="other")}, **asking("Items")), "because KeySchema cannot be"),
    Transition("a table's name", holding({"Items": table(name="one")}, **asking("Items")),
               holding({"Items": table(name="two")}, **asking("Items")), "because TableName cannot be"),
    Transition("a table's logical id", holding({"Items": table(name="one")}, **asking("Items")),
               holding({"Things": table(name="one")}, **asking("Things")), "would have the name one"),
    Transition("a table's stream is removed", holding({"Items": streamed(True)}, **asking("Items")),
               holding({"Items": streamed(False)}, **asking("Items"))),
    Transition("a KMS key is disabled",
               holding({"Key": kms_key(enabled=True)}, KmsKeyArn={"Fn::GetAtt": ["Key", "Arn"]}),
               holding({"Key": kms_key(enabled=False)})),
    Transition("an index is added", holding(_PLAIN_TABLE, **asking("Items")),
               holding({"Items": table("time")}, **asking("Items"))),
    Transition("an index is removed", holding({"Items": table("time")}, **asking("Items")),
               holding(_PLAIN_TABLE, **asking("Items"))),
    Transition("another index", holding({"Items": table("time")}, **asking("Items")),
               holding({"Items": table("place")}, **asking("Items"))),
    Transition("an index is rebuilt", holding({"Items": table("time")}, **asking("Items")),
               holding({"Items": table("time", projection="KEYS_ONLY")}, **asking("Items")), "would be built anew"),
    Transition("a resource becomes another", holding(_PLAIN_TABLE), holding({"Items": group(443)}),
               "would become a AWS::EC2::SecurityGroup"),
    Transition("a condition and its resources are removed",
               _conditional("a"), BASE),
    Transition("a condition changes", _conditional("a"), _conditional("b"), "condition IsProd changes"),
    # how it is shipped
    Transition("another strategy", BASE, replace(BASE, strategy="Linear10PercentEvery1Minute")),
    Transition("a custom strategy", BASE, replace(BASE, strategy="Canary5Percent2Minutes")),
    Transition("another custom strategy", replace(BASE, strategy="Canary5Percent2Minutes"),
               replace(BASE, strategy="Linear20PercentEvery2Minutes")),
    Transition("all at once", BASE, replace(BASE, strategy="AllAtOnce")),
    Transition("a hook is added", BASE, replace(BASE, pre_traffic="check")),
    Transition("a hook is removed", replace(BASE, pre_traffic="check"), BASE),
    Transition("another hook", replace(of(other=Function()), pre_traffic="check"),
               replace(of(other=Function()), pre_traffic="other")),
    # what calls by itself
    Transition("a schedule is added", BASE, _SCHEDULED),
    Transition("a schedule is removed", _SCHEDULED, BASE, noted="BetaEventsRuleSchedule1 is removed after the shift"),
    Transition("another schedule", _SCHEDULED, of(beta=Function((OTHER,), schedule="rate(1 day)"))),
)  # fmt: skip
