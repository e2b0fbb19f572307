"""The network with NAT gateways, addresses and flow logs: on moto, because ministack supports none of the three."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import boto3
import pytest

from hitless.aws.stacks import Stacks
from hitless.cloud.setup.stacks import core_stack
from hitless.service.model import Nat
from tests.unit.aws_services import make_service

pytestmark = pytest.mark.aws


@pytest.fixture
def client(moto_url: str) -> Any:
    def make(service: str) -> Any:
        return boto3.Session().client(
            service,
            region_name="us-east-1",
            endpoint_url=moto_url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    return make


@pytest.mark.parametrize(("nat", "zones"), [(Nat.NONE, 0), (Nat.SINGLE, 1), (Nat.PER_AZ, 3)])
def test_each_zone_reaches_the_internet_through_its_own_or_the_shared_nat_gateway(
    client: Any, nat: Nat, zones: int
) -> None:
    stage = f"net-{nat.value}"
    named = "us-east-1b,us-east-1d,us-east-1f"
    spec = core_stack(make_service(stage, nat=nat), cidr="10.7.0.0/16", zone_id=None, zones=named)
    # moto refuses a policy in whose list CloudFormation leaves out an entry, so the boundary's optional one is made.
    assumed = {"AssumableRoles": "arn:aws:iam::123456789012:role/other"}
    spec = replace(spec, parameters={**spec.parameters, **assumed})
    stacks = Stacks(client("cloudformation"), say=lambda _: None, poll_s=0.1)
    stacks.deploy(spec)
    vpc = stacks.resources(spec.name)["Vpc"][1]
    ec2 = client("ec2")
    of_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    gateways = ec2.describe_nat_gateways(Filters=of_vpc)["NatGateways"]
    subnets = {one["SubnetId"]: one for one in ec2.describe_subnets(Filters=of_vpc)["Subnets"]}
    assert len(subnets) == 6
    assert {one["AvailabilityZone"] for one in subnets.values()} == set(named.split(","))
    assert len({subnets[one["SubnetId"]]["AvailabilityZone"] for one in gateways}) == len(gateways) == zones
    assert all(address["PublicIp"] for one in gateways for address in one["NatGatewayAddresses"])
    private = []
    for table in ec2.describe_route_tables(Filters=of_vpc)["RouteTables"]:
        through = [route["NatGatewayId"] for route in table["Routes"] if route.get("NatGatewayId")]
        (private.append(through[0]) if through else None)
    assert len(private) == (3 if zones else 0)
    assert set(private) == {one["NatGatewayId"] for one in gateways}
    (log,) = ec2.describe_flow_logs(Filters=[{"Name": "resource-id", "Values": [vpc]}])["FlowLogs"]
    assert log["TrafficType"] == "ALL"
    assert log["LogGroupName"] == f"/hitless/clock/{stage}/vpc"
