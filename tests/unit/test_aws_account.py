"""The account's role for API Gateway's logs: created if missing, never replaced. Its availability zones."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from hitless.aws.account import ROLE_NAME, ensure_log_role, usable_zones

pytestmark = pytest.mark.unit


class NoSuchEntity(ClientError):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "NoSuchEntity", "Message": "no role"}}, "GetRole")


class FakeApiGateway:
    def __init__(self, role: str | None = None) -> None:
        self.role = role

    def get_account(self) -> dict[str, Any]:
        return {"cloudwatchRoleArn": self.role} if self.role else {}

    def update_account(self, *, patchOperations: list[dict[str, str]]) -> None:  # noqa: N803
        self.role = patchOperations[0]["value"]


class FakeIam:
    class exceptions:  # noqa: N801 - botocore's name
        NoSuchEntityException = NoSuchEntity

    def __init__(self) -> None:
        self.roles: dict[str, list[str]] = {}

    def get_role(self, *, RoleName: str) -> dict[str, Any]:  # noqa: N803
        if RoleName not in self.roles:
            raise NoSuchEntity
        return {"Role": {"Arn": f"arn:aws:iam::1:role/{RoleName}"}}

    def create_role(self, *, RoleName: str, AssumeRolePolicyDocument: str, Description: str) -> dict[str, Any]:  # noqa: N803
        assert "apigateway.amazonaws.com" in AssumeRolePolicyDocument
        self.roles[RoleName] = []
        return self.get_role(RoleName=RoleName)

    def attach_role_policy(self, *, RoleName: str, PolicyArn: str) -> None:  # noqa: N803
        self.roles[RoleName].append(PolicyArn)


def ensure(apigateway: FakeApiGateway, iam: FakeIam) -> str | None:
    return ensure_log_role(apigateway, iam, partition="aws")


def test_an_account_without_a_log_role_gets_one() -> None:
    apigateway, iam = FakeApiGateway(), FakeIam()
    assert ensure(apigateway, iam) == f"arn:aws:iam::1:role/{ROLE_NAME}" == apigateway.role
    assert iam.roles[ROLE_NAME] == ["arn:aws:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"]
    assert ensure(apigateway, iam) is None, "a second run changes nothing"


def test_an_existing_log_role_is_kept() -> None:
    apigateway, iam = FakeApiGateway("arn:aws:iam::1:role/theirs"), FakeIam()
    assert ensure(apigateway, iam) is None
    assert (apigateway.role, iam.roles) == ("arn:aws:iam::1:role/theirs", {})


def test_a_run_interrupted_after_it_created_the_role_is_finished() -> None:
    apigateway, iam = FakeApiGateway(), FakeIam()
    iam.roles[ROLE_NAME] = []
    assert ensure(apigateway, iam) == apigateway.role


class FakeZones:
    """EC2 in a region of five zones; `of_lambda` are those of Lambda's interface endpoint, if AWS lists it."""

    def __init__(self, *of_lambda: str) -> None:
        self.of_lambda = of_lambda

    def describe_availability_zones(self, *, Filters: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert {"Name": "zone-type", "Values": ["availability-zone"]} in Filters
        zones = {"d": 4, "a": 3, "b": 1, "c": 2, "e": 5}
        return {
            "AvailabilityZones": [
                {"ZoneName": f"ap-northeast-1{name}", "ZoneId": f"apne1-az{number}"} for name, number in zones.items()
            ]
        }

    def describe_vpc_endpoint_services(self, *, Filters: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert Filters == [{"Name": "service-name", "Values": ["com.amazonaws.ap-northeast-1.lambda"]}]
        zones = [f"ap-northeast-1{name}" for name in self.of_lambda]
        return {"ServiceDetails": [{"AvailabilityZones": zones}] if zones else []}


def test_zones_without_lambda_or_nat_gateways_are_not_used() -> None:
    """apne1-az3 has no NAT gateways (aws/aws-cdk#5847). Lambda's endpoint is not in each zone
    (awslabs/aws-orbit-workbench#320: "service com.amazonaws.us-east-1.lambda does not support the availability zone").
    """
    assert usable_zones(FakeZones("a", "b", "d", "e"), "ap-northeast-1") == [f"ap-northeast-1{one}" for one in "bde"]
    assert usable_zones(FakeZones(), "ap-northeast-1") == [f"ap-northeast-1{one}" for one in "bcde"]
