"""Which network a stage's functions use: their own, none, another core stack's, an existing VPC."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from hitless.aws.follow import Stack
from hitless.aws.stacks import Stacks, StackSpec
from hitless.cloud.setup.bootstrap import Bootstrap
from hitless.cloud.setup.costs import costs, load_prices
from hitless.cloud.setup.destroy import Destroy
from hitless.cloud.setup.options import BootstrapOptions, PipelineOptions
from hitless.cloud.setup.plan import ACTIONS, needed_actions
from hitless.cloud.setup.stacks import core_stack
from hitless.errors import ConflictError, HitlessError, UsageError
from hitless.service.model import Nat, Network, StageSettings
from tests.unit.aws_fakes import FakeTime
from tests.unit.aws_services import make_service

pytestmark = pytest.mark.unit

NONE = Network("none")
SHARED = Network("stack", stack="clock-core-prod")
GIVEN = Network("vpc", vpc="vpc-0a1b2c3d", subnets=("subnet-0a1b2c3d", "subnet-1a1b2c3d"))


def parameters(network: Network, cidr: str | None = "10.0.0.0/16", **options: Any) -> dict[str, str | None]:
    return dict(core_stack(make_service(network=network), cidr=cidr, zone_id=None, **options).parameters)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (NONE, {"Network": "none", "NetworkStack": "", "NetworkVpcId": "", "NetworkSubnetIds": ""}),
        (SHARED, {"Network": "stack", "NetworkStack": "clock-core-prod"}),
        (
            GIVEN,
            {"Network": "vpc", "NetworkVpcId": "vpc-0a1b2c3d", "NetworkSubnetIds": "subnet-0a1b2c3d,subnet-1a1b2c3d"},
        ),
    ],
)
def test_a_stage_without_a_network_of_its_own_makes_none(network: Network, told: dict[str, str]) -> None:
    made = parameters(network)
    assert told.items() <= made.items()
    assert (made["MakeNetwork"], made["Nat"]) == ("no", "none")
    own = parameters(Network())
    assert (own["Network"], own["MakeNetwork"], own["Nat"]) == ("own", "yes", "single")


def test_a_network_that_exists_is_not_deleted_when_the_functions_leave_it() -> None:
    assert parameters(NONE, cidr=None)["MakeNetwork"] is None
    assert parameters(NONE, cidr=None)["Nat"] == "none"
    assert parameters(NONE, cidr=None, keep_nat=True)["Nat"] is None


def test_addresses_for_a_network_that_is_not_made_are_refused() -> None:
    with pytest.raises(UsageError, match="--cidr: the stage makes no network of its own"):
        parameters(NONE, cidr="10.9.0.0/16")


class FakeStacks:
    """A core stack with a network, and a service stack with one alias."""

    def __init__(self, *names: str) -> None:
        self.names, self.made = names, [StackSpec("", "", {})]

    def find(self, name: str) -> Stack | None:
        if name not in self.names:
            return None
        outputs = {"DefaultSecurityGroupId": "", "ArtifactBucketName": "", "DeployRoleArn": "role"}
        return Stack(
            name, name, "UPDATE_COMPLETE", "", outputs, {"Nat": "per-az", "Zones": "a,b,c"}, {}, protected=False
        )

    def get(self, name: str) -> Stack:
        return Stacks.get(cast("Any", self), name)

    def resources(self, name: str) -> dict[str, tuple[str, str]]:
        if "-core-" in name:
            return {"Vpc": ("AWS::EC2::VPC", "vpc-own")}
        return {"ApiAliasLive": ("AWS::Lambda::Alias", "arn:live"), "Role": ("AWS::IAM::Role", "role")}

    def deploy(self, spec: StackSpec, *, force: bool) -> Stack:
        self.made.append(spec)
        return cast("Stack", self.find(spec.name))


class FakeAws:
    """Lambda runs the alias' version in `vpc`; `imports` are the stacks that import the core stack's network."""

    def __init__(self, vpc: str = "", imports: tuple[str, ...] = ()) -> None:
        self.vpc, self.imports = vpc, imports

    def client(self, _: str) -> FakeAws:
        return self

    def identity(self) -> Any:
        return type("Identity", (), {"account": "1", "partition": "aws"})

    def get_account_settings(self) -> dict[str, Any]:
        return {"AccountLimit": {"ConcurrentExecutions": 1000}}

    def get_account(self) -> dict[str, str]:
        return {"cloudwatchRoleArn": "arn:aws:iam::1:role/logs"}

    def get_function_configuration(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803 - botocore's name
        assert FunctionName == "arn:live"
        return {"VpcConfig": {"VpcId": self.vpc}}

    def get_paginator(self, name: str) -> FakeAws:
        assert name == "list_imports"
        return self

    def paginate(self, *, ExportName: str) -> list[dict[str, Any]]:  # noqa: N803
        assert ExportName == "clock-core-dev-VpcId"
        return [{"Imports": list(self.imports)}]


@pytest.mark.parametrize(
    ("vpc", "names", "nat"),
    [
        ("vpc-own", ("clock-core-dev", "clock-dev"), None),
        ("", ("clock-core-dev", "clock-dev"), "none"),
        ("vpc-other", ("clock-core-dev", "clock-dev"), "none"),
        ("vpc-own", ("clock-core-dev",), "none"),
    ],
    ids=["functions in the network", "functions outside", "functions elsewhere", "no functions"],
)
def test_nat_gateways_stay_until_the_functions_have_left(vpc: str, names: tuple[str, ...], nat: str | None) -> None:
    said: list[str] = []
    stacks, aws = FakeStacks(*names), FakeAws(vpc)
    service = make_service(network=NONE)
    nothing = cast("Any", None)
    runner = Bootstrap(
        service, cast("Any", aws), cast("Any", stacks), say=said.append, clock=FakeTime(), look_up=nothing
    )
    runner.run(BootstrapOptions(None))
    assert stacks.made[-1].parameters["Nat"] == nat
    assert any("its NAT gateways stay" in line for line in said) == (nat is None)


@pytest.mark.parametrize(
    ("then", "stacks", "said"),
    [
        ("staging", ("clock-pipeline-staging",), "staging has a pipeline of its own, the stack clock-pipeline-staging"),
        ("staging,prod", ("clock-core-prod", "clock-pipeline-prod"), "prod has a pipeline of its own"),
        ("staging", (), "there is no stack clock-core-staging"),
        ("nowhere", (), "there is no stack clock-core-nowhere"),
    ],
)
def test_a_stage_that_cannot_follow_in_a_pipeline_is_refused_before_anything_changes(
    then: str, stacks: tuple[str, ...], said: str
) -> None:
    service = make_service()
    service = replace(service, stages=(*service.stages, StageSettings("staging", "s"), StageSettings("prod", "p")))
    made, nothing = FakeStacks("clock-core-dev", *stacks), cast("Any", None)
    options = BootstrapOptions(PipelineOptions("anna/clock", "", "hitless==1", then=then))
    with pytest.raises(HitlessError, match=said) as refused:
        Bootstrap(service, cast("Any", FakeAws()), cast("Any", made), say=print, clock=FakeTime(), look_up=nothing).run(
            options
        )
    assert refused.value.hint
    assert len(made.made) == 1, "nothing was made"


def test_a_network_that_other_stacks_use_is_not_destroyed() -> None:
    def plan(*imports: str) -> tuple[str, ...]:
        aws, stacks = cast("Any", FakeAws(imports=imports)), cast("Any", FakeStacks("clock-core-dev"))
        return Destroy(make_service(), aws, stacks, say=lambda _: None).plan(with_data=False, with_domain=False).goes

    assert plan() == ("clock-core-dev",)
    with pytest.raises(ConflictError, match="its network is used by clock-core-staging"):
        plan("clock-core-staging")


def test_the_plan_shows_what_each_network_costs_and_saves() -> None:
    found = costs(make_service("prod", nat=Nat.PER_AZ), load_prices(), pipeline=True)
    shown = {line.what: (line.usd_a_month, line.unit.partition("; ")[2]) for line in found.networks}
    assert shown["nat: per-az"] == (109.5, "")
    assert shown["nat: single"] == (36.5, "saves $73.00")
    assert shown["network: none"] == (0.0, "saves $109.50")
    assert costs(make_service(network=SHARED), load_prices(), pipeline=True).fixed_usd_a_month == 1.3, "alarms alone"


def test_a_plan_without_a_network_of_its_own_needs_no_permission_to_make_one() -> None:
    with_one = needed_actions(BootstrapOptions(None), domain=False)
    without = needed_actions(BootstrapOptions(None), domain=False, network=False)
    assert set(with_one) - set(without) == set(ACTIONS["network"])
    assert "ec2:CreateSecurityGroup" in without
