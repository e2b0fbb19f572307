"""Names, addresses and parameters of the core stack, and the guarantees of its template."""

from __future__ import annotations

import ipaddress
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.aws.template import load_template
from hitless.cloud.setup.stacks import CORE_POLICY, core_stack, names_of, network, tags_of
from hitless.errors import UsageError
from hitless.service.model import Nat
from tests.unit.aws_services import make_service

pytestmark = pytest.mark.unit

CORE = load_template("core")
RESOURCES: dict[str, dict[str, Any]] = CORE["Resources"]


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: resource for name, resource in RESOURCES.items() if resource["Type"] == kind}


@given(st.integers(16, 24), st.integers(0, 255))
def test_a_network_is_divided_without_overlap(prefix: int, second: int) -> None:
    block = ipaddress.ip_network(f"10.{second}.0.0/{prefix}")
    parts = network(str(block))
    listed = [*parts["PrivateSubnetCidrs"].split(","), *parts["PublicSubnetCidrs"].split(",")]
    subnets = [ipaddress.IPv4Network(part) for part in listed]
    assert len(subnets) == 6
    assert all(part.subnet_of(ipaddress.IPv4Network(parts["VpcCidr"])) for part in subnets)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(subnets, 2))
    assert all(16 <= part.prefixlen <= 28 for part in subnets)


@pytest.mark.parametrize("cidr", ["10.0.0.0/15", "10.0.0.0/25", "8.8.0.0/16", "10.0.0.1/16", "network", "::/64"])
def test_a_cidr_that_cannot_be_divided_into_subnets_is_refused(cidr: str) -> None:
    with pytest.raises(UsageError, match="--cidr"):
        network(cidr)


@pytest.mark.parametrize("stage", ["core", "pipeline", "core-dev", "pipeline-x"])
def test_a_stage_name_whose_stacks_would_clash_with_others_is_refused(stage: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        names_of(make_service(stage))


def test_a_service_name_too_long_for_iam_is_refused() -> None:
    assert len(names_of(make_service(name="s" * 46)).core) < 128
    with pytest.raises(UsageError, match="65 characters"):
        names_of(make_service(name="s" * 48))


def test_missing_options_keep_their_values_and_protection_follows_the_stage() -> None:
    spec = core_stack(make_service(), cidr=None, zone_id=None)
    assert spec.parameters["VpcCidr"] is spec.parameters["PrivateSubnetCidrs"] is None
    assert not spec.protected
    assert core_stack(make_service("prod"), cidr=None, zone_id=None).protected
    assert core_stack(make_service(domain="api.example.com"), cidr=None, zone_id="Z1").protected
    assert spec.tags == tags_of(make_service()) == {"hitless:service": "clock", "hitless:stage": "dev"}


def test_a_malformed_policy_arn_is_refused_before_anything_is_created() -> None:
    good = "arn:aws:iam::123456789012:policy/tables,arn:aws-cn:iam::aws:policy/service-role/Any"
    assert core_stack(make_service(), cidr=None, zone_id=None, policies=good).parameters["ExtraPolicyArns"] == good
    for wrong in ("tables", "arn:aws:iam::123456789012:role/admin", f"{good},"):
        with pytest.raises(UsageError, match="--policies"):
            core_stack(make_service(), cidr=None, zone_id=None, policies=wrong)


def test_the_core_stack_gets_exactly_the_templates_parameters() -> None:
    for nat in Nat:
        spec = core_stack(make_service(nat=nat), cidr="10.0.0.0/16", zone_id=None)
        assert set(spec.parameters) == set(CORE["Parameters"])
        assert spec.parameters["Nat"] in CORE["Parameters"]["Nat"]["AllowedValues"]


def test_every_subnet_is_in_a_zone_that_is_named() -> None:
    """`Fn::GetAZs` gives zones in which Lambda refuses subnets (keboola/developer-portal#81: "The provided subnets
    contain availability zone Lambda doesn't support") or NAT gateways fail (aws/aws-cdk#5847).
    """
    zones = [one["Properties"]["AvailabilityZone"]["Fn::Select"] for one in of_type("AWS::EC2::Subnet").values()]
    assert sorted(index for index, _ in zones) == [0, 0, 1, 1, 2, 2]
    positions = {"Fn::GetAZs": ""}  # of a network that was made without names: another zone would replace its subnets
    assert all(named == {"Fn::If": ["NamesZones", {"Ref": "Zones"}, positions]} for _, named in zones)
    assert core_stack(make_service(), cidr=None, zone_id=None).parameters["Zones"] is None


@pytest.mark.parametrize("zones", ["", "a", "a,b", "a,b,b", "a,b,c,d", "a,b,"])
def test_anything_but_three_different_zones_is_refused(zones: str) -> None:
    with pytest.raises(UsageError, match="--zones"):
        core_stack(make_service(), cidr=None, zone_id=None, zones=zones)
    assert core_stack(make_service(), cidr=None, zone_id=None, zones="a,b,c").parameters["Zones"] == "a,b,c"


def test_the_stack_policy_names_only_existing_resources() -> None:
    denied = CORE_POLICY["Statement"][1]
    names = {name.removeprefix("LogicalResourceId/") for name in denied["Resource"]}
    assert names <= set(RESOURCES)


def test_the_functions_security_group_allows_only_outgoing_https() -> None:
    group = RESOURCES["LambdaSecurityGroup"]["Properties"]
    assert "SecurityGroupIngress" not in group
    assert [(rule["FromPort"], rule["ToPort"]) for rule in group["SecurityGroupEgress"]] == [(443, 443)]
    assert all(rule["Description"] for rule in group["SecurityGroupEgress"])


def test_a_domains_dns_records_are_simple_and_its_address_is_regional() -> None:
    """Latency records without a health check send clients to a region that is down (Route 53 developer guide,
    dns-failover-types); a record's SetIdentifier and Region need no replacement when a second region comes.
    """
    records = of_type("AWS::Route53::RecordSet").values()
    assert sorted(record["Properties"]["Type"] for record in records) == ["A", "AAAA"]
    for record in records:
        assert not {"SetIdentifier", "Region"} & set(record["Properties"])
    domain = RESOURCES["ApiDomain"]["Properties"]
    assert domain["EndpointConfiguration"] == {"Types": ["REGIONAL"], "IpAddressType": "dualstack"}
    assert domain["SecurityPolicy"] == "TLS_1_2"


def test_buckets_are_private_encrypted_and_versioned_and_the_artifacts_outlive_the_stack() -> None:
    for template in (CORE, load_template("pipeline")):
        resources = template["Resources"]
        for name, bucket in resources.items():
            if bucket["Type"] != "AWS::S3::Bucket":
                continue
            properties = bucket["Properties"]
            assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
            assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
            assert properties["BucketEncryption"]
            assert properties["LifecycleConfiguration"]["Rules"]
            (policy,) = [
                one["Properties"]["PolicyDocument"]["Statement"]
                for one in resources.values()
                if one["Type"] == "AWS::S3::BucketPolicy" and one["Properties"]["Bucket"] == {"Ref": name}
            ]
            assert {"Bool": {"aws:SecureTransport": "false"}} in [statement["Condition"] for statement in policy]
    artifacts = RESOURCES["ArtifactBucket"]
    assert (artifacts["DeletionPolicy"], artifacts["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


def test_no_role_may_do_everything_and_each_wildcard_resource_has_a_reason() -> None:
    for template in (CORE, load_template("pipeline")):
        for name, resource in template["Resources"].items():
            if resource["Type"] not in ("AWS::IAM::Role", "AWS::IAM::RolePolicy"):
                continue
            documents = [one["PolicyDocument"] for one in resource["Properties"].get("Policies", [])]
            documents += [own] if (own := resource["Properties"].get("PolicyDocument")) else []
            for found in itertools.chain.from_iterable(document["Statement"] for document in documents):
                statement = found["Fn::If"][1] if "Fn::If" in found else found
                actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
                if statement["Effect"] == "Deny":
                    continue
                assert not [action for action in actions if "*" in action], name
                assert statement["Resource"] != "*" or statement["Sid"].startswith("WithoutResource"), name


def test_no_role_of_a_service_stack_can_exist_without_the_boundary() -> None:
    (policy,) = RESOURCES["CloudFormationRole"]["Properties"]["Policies"]
    granting = {"iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:PutRolePermissionsBoundary"}
    allowing = [one for one in policy["PolicyDocument"]["Statement"] if one["Effect"] == "Allow"]
    for statement in allowing:
        if granting & set(statement["Action"]):
            assert list(statement["Condition"]) == ["ArnEquals"]
            assert list(statement["Condition"]["ArnEquals"]) == ["iam:PermissionsBoundary"]
    allowed = json.dumps(allowing)
    assert "iam:DeleteRolePermissionsBoundary" not in allowed
    assert "iam:CreatePolicy" not in allowed


def test_only_the_policies_option_attaches_managed_policies() -> None:
    attached = {
        name: resource["Properties"]["ManagedPolicyArns"]
        for template in (CORE, load_template("pipeline"))
        for name, resource in template["Resources"].items()
        if "ManagedPolicyArns" in resource.get("Properties", {})
    }
    only_told = {"Fn::If": ["HasExtraPolicies", {"Ref": "ExtraPolicyArns"}, {"Ref": "AWS::NoValue"}]}
    assert attached == {"CloudFormationRole": only_told}
    for admin in ("AdministratorAccess", "IAMFullAccess"):
        with pytest.raises(UsageError, match="could make administrators"):
            core_stack(make_service(), cidr=None, zone_id=None, policies=f"arn:aws:iam::aws:policy/{admin}")


def test_inline_policies_stay_within_iams_limit_with_the_longest_names() -> None:
    for template in (CORE, load_template("pipeline")):
        for name, resource in template["Resources"].items():
            policies = resource["Properties"].get("Policies", []) if resource["Type"] == "AWS::IAM::Role" else []
            text = json.dumps([one["PolicyDocument"] for one in policies], separators=(",", ":"))
            for parameter in ("${Service}", "${Stage}"):
                text = text.replace(parameter, "x" * 24)
            assert len(text) < 10_240, f"{name}: {len(text)} characters"


def test_every_network_resource_has_a_name_tag() -> None:
    for kind in ("AWS::EC2::VPC", "AWS::EC2::Subnet", "AWS::EC2::RouteTable", "AWS::EC2::NatGateway", "AWS::EC2::EIP"):
        for name, resource in of_type(kind).items():
            assert resource["Properties"]["Tags"][0]["Key"] == "Name", name
