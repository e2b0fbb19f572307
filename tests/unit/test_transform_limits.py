"""Limits of AWS that no emulator enforces: names, policies and environments of a large service, or of long names."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from hitless.cloud.transform.desired import check_package, desired
from hitless.cloud.transform.guard import NAMED_AT_MOST, ROLE_ID, add_application
from hitless.cloud.transform.model import FunctionIds, LiveState, of_type
from hitless.cloud.transform.updates import contract
from hitless.errors import ServiceFileError
from hitless.service.model import Hooks
from tests.unit.release_support import packaged, release

pytestmark = pytest.mark.unit

COMPILED = packaged().template
POLICY_LETTERS = 10_240
"""Of all inline policies of a role together (IAM User Guide, "IAM and AWS STS quotas"); white space does not count."""


def policy_letters(role: dict[str, Any], name: str) -> int:
    """The policy's size as IAM counts it, with the longest possible names."""
    arn = f"arn:aws:lambda:ap-northeast-1:123456789012:function:{name}"

    def filled(node: Any) -> Any:
        match node:
            case {"Fn::GetAtt": [*_]}:
                return arn
            case {"Fn::Sub": str(text)}:
                whole = re.sub(r"\$\{\w+LambdaFunction\.Arn\}", arn, text)
                return re.sub(r"\$\{AWS::\w+\}", "ap-northeast-1", whole)
            case dict():
                return {key: filled(value) for key, value in node.items()}
            case list():
                return [filled(one) for one in node]
        return node

    policies = [filled(one["PolicyDocument"]) for one in role["Properties"]["Policies"]]
    return sum(len(json.dumps(one, separators=(",", ":"))) for one in policies)


def application(count: int, prefix: str = "worldclock-prod-") -> dict[str, Any]:
    """The role of an application with this many functions whose names have 64 letters."""
    ids = [FunctionIds(f"F{number}").function for number in range(count)]
    resources: dict[str, Any] = {
        name: {"Type": "AWS::Lambda::Function", "Properties": {"FunctionName": f"{prefix}{name}"}} for name in ids
    }
    add_application(resources, ids, ids[:2], release(hooks=Hooks(pre_traffic="a", post_traffic="b")))
    role: dict[str, Any] = resources[ROLE_ID]
    return role


@pytest.mark.parametrize("count", [1, NAMED_AT_MOST, NAMED_AT_MOST + 1, 60])
def test_codedeploys_policy_for_many_functions_stays_within_iams_limit(count: int) -> None:
    assert policy_letters(application(count), "x" * 64) < POLICY_LETTERS


def test_functions_without_the_stacks_prefix_are_listed_in_codedeploys_policy() -> None:
    role = application(NAMED_AT_MOST + 1, prefix="another-")
    assert {"Fn::GetAtt": ["F0LambdaFunction", "Arn"]} in role["Properties"]["Policies"][0]["PolicyDocument"][
        "Statement"
    ][0]["Resource"]
    assert "worldclock-prod-*" not in json.dumps(role)


@pytest.mark.parametrize(("service", "named"), [("worldclock", False), ("a-service-with-a-rather-long-name", True)])
def test_role_names_begin_with_the_whole_stack_name_even_if_it_is_long(service: str, named: bool) -> None:
    """CloudFormation makes STACK-LOGICALID-RANDOM of at most 64 letters, and cuts a long STACK to 25."""
    wanted = desired(COMPILED, release(service=service))
    roles = of_type(wanted["Resources"], "AWS::IAM::Role")
    names = [one["Properties"].get("RoleName") for one in roles.values()]
    assert len(names) == 5
    if not named:
        assert names == [None] * 5
        return
    assert len(set(names)) == 5
    assert all(re.fullmatch(rf"{service}-prod-\w+", name) and len(name) <= 64 for name in names)


def test_a_shortened_role_name_keeps_the_whole_stack_name() -> None:
    service = "s" * 45
    roles = of_type(desired(COMPILED, release(service=service))["Resources"], "AWS::IAM::Role")
    names = [one["Properties"]["RoleName"] for one in roles.values()]
    assert len(set(names)) == len(names)
    assert all(name.startswith(f"{service}-prod-") and len(name) <= 64 for name in names)


def test_the_shields_stage_variable_has_a_name_that_api_gateway_accepts() -> None:
    short, long, other = (FunctionIds(base) for base in ("Zones", "ListDash" * 9, "ListDash" * 10))
    assert short.shield_variable == "hitlessShieldZones"
    assert re.fullmatch(r"hitlessShield\w+", long.shield_variable)
    assert len(long.shield_variable) <= 64
    assert long.shield_variable != other.shield_variable


def test_variables_added_by_hitless_count_toward_lambdas_environment_limit() -> None:
    compiled = copy.deepcopy(COMPILED)
    function = compiled["Resources"]["MetaLambdaFunction"]["Properties"]
    function["Environment"] = {"Variables": {"TABLE": "x" * 3950}}
    assert contract(desired(compiled, release()), LiveState(), {})
    function["Environment"] = {"Variables": {"TABLE": "x" * 4060}}
    with pytest.raises(ServiceFileError, match=r"functions\.meta\.environment is over Lambda's 4 KB"):
        desired(compiled, release())


def test_an_http_api_is_refused_on_aws_before_anything_is_released() -> None:
    with pytest.raises(ServiceFileError, match="httpApi and websocket events are not released on AWS"):
        check_package({"HttpApi": {"Type": "AWS::ApiGatewayV2::Api", "Properties": {}}}, release())
