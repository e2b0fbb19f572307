"""The resources that CloudFormation's role may create; a release that needs more is refused before anything changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from hitless.cloud.stage.permissions import (
    Granted,
    StackPermissions,
    granted_by_core,
    missing,
    permissions_of_types,
    policy_for,
)
from hitless.cloud.transform.desired import desired
from hitless.errors import ServiceFileError
from hitless.release.result import Outcome
from tests.unit.cloud_fakes import World
from tests.unit.cloudformation_schemas import permissions_of_schemas
from tests.unit.release_support import packaged, release

pytestmark = pytest.mark.unit

ROLE = "arn:aws:iam::123456789012:role/core/clock-CloudFormationRole"
POLICY_ARN = "arn:aws:iam::123456789012:policy/topics"
TOPIC = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "things"}}


class FakeIam:
    """One role with an inline policy and attached ones; `denied` answers every question with AccessDenied."""

    def __init__(self, *attached: str, denied: bool = False) -> None:
        self._attached, self._denied = attached, denied

    def list_role_policies(self, **asked: str) -> dict[str, Any]:
        if self._denied:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ListRolePolicies")
        assert asked == {"RoleName": "clock-CloudFormationRole"}
        return {"PolicyNames": ["service-stack"]}

    def get_role_policy(self, **_: str) -> dict[str, Any]:
        return {"PolicyDocument": _document("lambda:CreateFunction", "events:PutRule")}

    def list_attached_role_policies(self, **_: str) -> dict[str, Any]:
        return {"AttachedPolicies": [{"PolicyArn": POLICY_ARN}] if self._attached else []}

    def get_policy(self, **_: str) -> dict[str, Any]:
        return {"Policy": {"DefaultVersionId": "v2"}}

    def get_policy_version(self, **asked: str) -> dict[str, Any]:
        assert asked == {"PolicyArn": POLICY_ARN, "VersionId": "v2"}
        return {"PolicyVersion": {"Document": _document(*self._attached)}}


def _document(*actions: str) -> dict[str, Any]:
    denied = {"Effect": "Deny", "Action": "sns:CreateTopic", "Resource": "*"}
    return {"Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}, denied]}


def test_our_copy_of_the_schemas_permissions_matches_the_installed_linter() -> None:
    assert permissions_of_types() == permissions_of_schemas(), "cfn-lint was updated: run scripts/create-only"


def test_the_core_stack_permits_rules_schedules_mappings_and_urls_of_the_stage() -> None:
    kinds = ("AWS::Events::Rule", "AWS::Scheduler::Schedule", "AWS::Lambda::EventSourceMapping", "AWS::Lambda::Url")
    own = {kind: {"Type": kind, "Properties": {"Name": "clock-dev-jobs-rule-1"}} for kind in kinds}
    assert missing({"Resources": own}, {}, granted_by_core(), "clock-dev-") == {}
    for kind in kinds:
        ungranted = [one for one in permissions_of_types()[kind] if not granted_by_core().allows(one, by_name=False)]
        assert not ungranted, kind
    named = {"Mine": {"Type": "AWS::Events::Rule", "Properties": {"Name": "mine"}}}
    assert list(missing({"Resources": named}, {}, granted_by_core(), "clock-dev-")) == ["AWS::Events::Rule"]


def test_a_release_that_needs_more_permissions_is_refused_with_the_missing_policy() -> None:
    world = World(also={"Things": TOPIC}, granted=StackPermissions(FakeIam(), ROLE))
    with pytest.raises(ServiceFileError, match=r"AWS::SNS::Topic \(sns:CreateTopic\)") as refused:
        world.deploy("a", "AllAtOnce")
    assert refused.value.hint
    assert "--policies" in refused.value.hint
    assert refused.value.details["policy"] == policy_for({"AWS::SNS::Topic": permissions_of_types()["AWS::SNS::Topic"]})
    assert world.stack.log == []
    assert not [name for name in world.documents if "releases/" in name]


@pytest.mark.parametrize("granted", ["sns:*", "sns:CreateTopic", "*", "SNS:Create*"])
def test_a_release_ships_if_the_policies_option_grants_its_permissions(granted: str) -> None:
    world = World(also={"Things": TOPIC}, granted=StackPermissions(FakeIam(granted), ROLE))
    assert world.deploy("a", "AllAtOnce").outcome is Outcome.LIVE


def test_existing_resources_need_no_permission_and_an_unreadable_role_is_a_notice() -> None:
    world = World(also={"Things": TOPIC}, granted=StackPermissions(FakeIam(denied=True), ROLE))
    assert world.deploy("a", "AllAtOnce").outcome is Outcome.LIVE
    assert [one for one in world.said if "may not be read" in one]
    world.granted = StackPermissions(FakeIam(), ROLE)
    assert world.deploy("b", "AllAtOnce").outcome is Outcome.LIVE


def test_only_the_permission_to_create_a_resource_is_required() -> None:
    resources = {"Table": {"Type": "AWS::DynamoDB::Table", "Properties": {}}}
    assert missing({"Resources": resources}, {}, Granted((), ("dynamodb:CreateTable",)), "clock-dev-") == {}


def test_an_eventbridge_schedule_assumes_the_role_of_the_function_that_it_calls() -> None:
    """osls names the role shared by all functions, which no release of hitless has."""
    compiled = json.loads(json.dumps(packaged().template))
    shared, arn = "IamRoleLambdaExecution", {"Fn::GetAtt": ["MetaLambdaFunction", "Arn"]}
    target = {"Arn": arn, "RoleArn": {"Fn::GetAtt": [shared, "Arn"]}}
    compiled["Resources"]["MetaSchedule1"] = {"Type": "AWS::Scheduler::Schedule", "Properties": {"Target": target}}
    resources = desired(compiled, release())["Resources"]
    assert shared not in resources
    assert resources["MetaSchedule1"]["Properties"]["Target"] == {
        "Arn": {"Ref": "MetaAliasLive"},
        "RoleArn": {"Fn::GetAtt": ["MetaRole", "Arn"]},
    }
