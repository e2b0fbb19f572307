"""`hitless aws plan`: costs by the price file, quotas, permissions."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.stub import Stubber
from msgspec import structs

from hitless.aws.session import Identity
from hitless.aws.stacks import Stacks
from hitless.cli.aws_setup import in_account, refuse_if_missing
from hitless.cli.common import UnsuccessfulResult
from hitless.cli.findings import show_findings
from hitless.cloud.setup.costs import costs, load_prices
from hitless.cloud.setup.domain import check_domain
from hitless.cloud.setup.options import BootstrapOptions, IdentityOptions, PipelineOptions
from hitless.cloud.setup.plan import Findings, Planner, Quota, needed_actions, principal_of
from hitless.errors import UsageError
from hitless.service.model import AlarmSettings, Function, Home, Nat, StageSettings
from tests.unit.aws_fakes import FakeCloudFormation, FakeTime
from tests.unit.aws_services import make_service

pytestmark = pytest.mark.unit

ALARMS = 1.3
"""The alarms of a stage with one function, in dollars a month."""


@pytest.mark.parametrize(("nat", "dollars"), [(Nat.NONE, 0.0), (Nat.SINGLE, 36.5), (Nat.PER_AZ, 109.5)])
def test_nat_gateways_are_most_of_the_fixed_cost_of_a_stage(nat: Nat, dollars: float) -> None:
    found = costs(make_service(nat=nat), load_prices(), pipeline=True)
    assert found.fixed_usd_a_month == dollars + ALARMS
    assert "NAT gateway" in found.lines[0].what
    assert "us-east-1" in found.source


def test_a_stage_without_a_pipeline_has_no_pipeline_costs() -> None:
    without = costs(make_service(), load_prices(), pipeline=False)
    assert not [line for line in without.lines if line.what == "pipeline"]


def test_every_price_has_a_date_and_a_source_page() -> None:
    prices = load_prices()
    assert prices["noted"]
    for name, item in prices["items"].items():
        assert item["usd"] > 0, name
        assert item["noted"].startswith("20"), name
        assert item["page"].startswith("https://aws.amazon.com/"), name


def test_only_a_quota_known_to_be_too_small_is_reported() -> None:
    short, unknown = Quota("addresses", 3, 3, 5), Quota("networks", 4, 1, None)
    assert str(short) == "addresses: 3 of 5 used, 3 needed: NOT ENOUGH, ask for more in Service Quotas"
    assert unknown.enough
    assert not Findings((), (short, unknown), ()).well
    assert Findings((), (unknown,), None).well
    assert not Findings((), (), ("ec2:CreateVpc",)).well


def test_a_plan_counts_the_addresses_of_all_stages_on_aws() -> None:
    """Amazon VPC user guide, amazon-vpc-limits: five Elastic IP addresses a region. Three stages take them all."""
    said: list[str] = []
    stages = tuple(StageSettings(name, name, home=Home.AWS, nat=nat) for name, nat in NATS.items())
    service = replace(make_service(), stages=(*stages, StageSettings("local", "local", nat=Nat.SINGLE)))
    planner = Planner(service, AskedEc2(), Stacks(FakeCloudFormation(), say=said.append), say=said.append)  # type: ignore[arg-type]
    (found,) = (quota for quota in planner.look(BootstrapOptions(None)).quotas if "Elastic" in quota.name)
    assert str(found) == "Elastic IP addresses (all stages on AWS take 5): 1 of 5 used, 1 needed"


def test_a_check_of_a_domain_looks_its_zone_up_and_asks_public_dns() -> None:
    service = replace(make_service(), stages=(StageSettings("dev", "dev", home=Home.AWS, domain="api.example.org"),))
    asked: list[tuple[str, str]] = []

    def look_up(name: str, kind: str) -> list[str]:
        asked.append((name, kind))
        return ["ns.elsewhere.example."] if kind == "NS" else []

    planner = Planner(service, AskedRoute53(), Stacks(FakeCloudFormation(), say=print), say=print)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"delegated to ns.elsewhere.example, not to its hosted zone Z1"):
        planner.check_domain(look_up)
    assert ("example.org", "NS") in asked


@pytest.mark.parametrize(
    ("name", "servers"),
    [
        (None, {}),
        ("example.org.", {}),
        ("example.com.", {"DelegationSet": {"NameServers": ["ns.aws.example"]}}),
    ],
    ids=["no such zone", "a private zone", "another domain's zone"],
)
def test_a_zone_that_cannot_hold_the_domain_is_refused_by_its_option(name: str | None, servers: dict[str, Any]) -> None:
    """Route 53 API Reference, GetHostedZone: NoSuchHostedZone, "No hosted zone exists with the ID that you specified".
    A private zone is associated with VPCs and has no delegation set.
    """
    client = boto3.Session(aws_access_key_id="A", aws_secret_access_key="B").client("route53")
    stub = Stubber(client)
    if name is None:
        stub.add_client_error("get_hosted_zone", "NoSuchHostedZone", "No hosted zone found with ID: Z9")
    else:
        zone = {"Id": "/hostedzone/Z9", "Name": name, "CallerReference": "1"}
        stub.add_response("get_hosted_zone", {"HostedZone": zone, **servers})
    with (
        stub,
        pytest.raises(UsageError, match="--zone-id: Z9 is not a public hosted zone of this account"),
    ):
        check_domain(client, "api.example.org", "Z9", lambda name, kind: [], print)


def test_a_plan_fails_and_names_missing_quotas_and_permissions() -> None:
    with pytest.raises(UnsuccessfulResult, match=r"missing: addresses, ec2:CreateVpc$") as ended:
        refuse_if_missing(Findings((), (Quota("addresses", 3, 3, 5),), ("ec2:CreateVpc",)))
    assert ended.value.exit_code == 1
    refuse_if_missing(Findings((), (), None))


def test_a_check_that_aws_does_not_answer_is_not_known_instead_of_passed() -> None:
    shown: list[Any] = []
    context = cast(Any, SimpleNamespace(show=lambda document, words: shown.append((document, words()))))
    show_findings(context, in_account(Findings((), (Quota("addresses", 3, 3, None),), None)))
    (document, words), fixes = shown.pop(), ["allow servicequotas:GetServiceQuota", "allow iam:SimulatePrincipalPolicy"]
    assert (document["well"], [one["well"] for one in document["checks"]]) == (None, [None, None])
    assert [one["mend"] for one in document["checks"]] == fixes
    assert ("ok" in words, words.count("?   ")) == (False, 2)
    show_findings(context, in_account(Findings((), (Quota("addresses", 1, 1, 5),), ())))
    assert shown.pop()[0]["well"] is True


def test_an_unconfirmed_price_is_marked() -> None:
    lines = costs(make_service(), load_prices(), pipeline=True).lines
    unsure = {line.what for line in lines if line.unconfirmed}
    assert unsure == {"Lambda", "logs", "metrics", "X-Ray", "artifacts", "pipeline", "13 metrics of alarms"}
    assert all(line.unconfirmed.startswith("seen on ") for line in lines if line.unconfirmed)


@pytest.mark.parametrize(
    ("told", "more"),
    [
        (IdentityOptions(), set()),
        (IdentityOptions(boundary="arn:aws:iam::1:policy/b"), {"iam:PutRolePermissionsBoundary"}),
        (IdentityOptions(boundary=""), {"iam:DeleteRolePermissionsBoundary"}),
        (IdentityOptions(trust=""), {"iam:UpdateAssumeRolePolicy"}),
        (
            IdentityOptions(github=True),
            {"iam:GetOpenIDConnectProvider", "iam:CreateOpenIDConnectProvider", "iam:UpdateAssumeRolePolicy"},
        ),
        (IdentityOptions(github=False), {"iam:UpdateAssumeRolePolicy"}),
    ],
    ids=["nothing", "boundary", "no boundary", "trust", "GitHub", "no GitHub"],
)
def test_identity_options_need_more_permissions(told: IdentityOptions, more: set[str]) -> None:
    without = needed_actions(BootstrapOptions(None), domain=False)
    needed = needed_actions(BootstrapOptions(None, identity=told), domain=False)
    assert set(needed) - set(without) == more
    assert needed[: len(without)] == without
    everything = needed_actions(BootstrapOptions(PipelineOptions(), identity=told), domain=True)
    assert {*needed, "codepipeline:CreatePipeline", "acm:RequestCertificate"} < set(everything)


class AskedRoute53:
    """One hosted zone, with the name servers that it is served by."""

    def client(self, name: str) -> AskedRoute53:
        assert name == "route53"
        return self

    def get_paginator(self, operation: str) -> AskedRoute53:
        assert operation == "list_hosted_zones"
        return self

    def paginate(self) -> list[dict[str, Any]]:
        return [{"HostedZones": [{"Name": "example.org.", "Id": "/hostedzone/Z1"}]}]

    def get_hosted_zone(self, **_: Any) -> dict[str, Any]:
        return {"HostedZone": {"Name": "example.org."}, "DelegationSet": {"NameServers": ["ns.aws.example"]}}


class AskedAws:
    """Responds to a plan's requests to API Gateway and IAM's simulator, which allows nothing; any other call fails."""

    def __init__(self, log_role: str | None) -> None:
        self._account = {"cloudwatchRoleArn": log_role} if log_role else {}

    def identity(self) -> Identity:
        return Identity("1", "arn:aws:iam::1:user/anna")

    def client(self, service: str) -> Any:
        return self

    def __getattr__(self, operation: str) -> Any:
        raise KeyError(operation)

    def get_account(self) -> dict[str, str]:
        return self._account

    def get_paginator(self, operation: str) -> Any:
        assert operation == "simulate_principal_policy"
        return self

    def paginate(self, *, ActionNames: list[str], **_: str) -> Any:  # noqa: N803 - botocore's name
        yield {"EvaluationResults": [{"EvalActionName": one, "EvalDecision": "implicitDeny"} for one in ActionNames]}


NATS = {"dev": Nat.SINGLE, "staging": Nat.SINGLE, "prod": Nat.PER_AZ}


class AskedEc2(AskedAws):
    """Besides, it has one Elastic IP address of a quota of five."""

    def __init__(self) -> None:
        super().__init__(None)

    def describe_addresses(self) -> dict[str, Any]:
        return {"Addresses": [{}]}

    def get_service_quota(self, *, ServiceCode: str, QuotaCode: str) -> dict[str, Any]:  # noqa: N803
        assert (ServiceCode, QuotaCode) == ("ec2", "L-0263D0A3")
        return {"Quota": {"Value": 5.0}}


@pytest.mark.parametrize(
    ("log_role", "asked"),
    [(None, {"apigateway:PATCH", "iam:GetRole", "iam:AttachRolePolicy"}), ("arn:aws:iam::1:role/anybodys", set())],
)
def test_a_missing_api_gateway_log_role_needs_permissions(log_role: str | None, asked: set[str]) -> None:
    said: list[str] = []
    stacks = Stacks(FakeCloudFormation(), say=said.append, clock=FakeTime(), timeout_s=600)
    planner = Planner(make_service(), AskedAws(log_role), stacks, say=said.append)  # type: ignore[arg-type]
    missing = planner.look(BootstrapOptions(None)).missing_permissions
    assert missing is not None
    assert set(missing) == {*needed_actions(BootstrapOptions(None), domain=False), *asked}


@pytest.mark.parametrize(
    ("arn", "principal"),
    [
        ("arn:aws:iam::1:user/anna", "arn:aws:iam::1:user/anna"),
        ("arn:aws:sts::1:assumed-role/admin/session", "arn:aws:iam::1:role/admin"),
        ("arn:aws-cn:sts::1:assumed-role/admin/session", "arn:aws-cn:iam::1:role/admin"),
        ("arn:aws:iam::1:root", None),
    ],
)
def test_permissions_are_simulated_for_the_role_behind_a_session(arn: str, principal: str | None) -> None:
    assert principal_of(arn) == principal


def test_provisioned_concurrency_is_priced_by_the_hour() -> None:
    prices = {**load_prices(), "hours_a_month": 100}
    prices["items"] = {**prices["items"], "provisioned_gb_second": {"usd": 1e-5}}
    ready = Function("a", "a.b", memory_mb=2048, provisioned_concurrency=3, max_provisioned=12)
    service = replace(make_service(nat=Nat.NONE), functions=(ready, Function("b", "a.b")))
    found = costs(service, prices, pipeline=False)
    (line,) = (one for one in found.lines if "kept ready" in one.what)
    assert line.usd_a_month == 21.6, "6 GB for 100 hours"
    assert line.what.startswith("3 environments kept ready")
    assert line.unit == "$0.036 a GB and hour, twice during a shift; up to 4 times that under load"


def test_alarms_are_priced_by_their_metrics() -> None:
    def metrics(**limits: Any) -> str:
        service = make_service()
        stage = structs.replace(service.settings, alarms=AlarmSettings(**limits))
        lines = costs(replace(service, stages=(stage,)), load_prices(), pipeline=False).lines
        return next(line.what for line in lines if "alarms" in line.what)

    assert metrics() == "13 metrics of alarms"
    assert metrics(p99_ms=300, p99_relative_percent=150) == "25 metrics of alarms"
