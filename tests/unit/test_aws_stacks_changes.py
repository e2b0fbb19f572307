"""Change sets in words, and which changes are harmful."""

from __future__ import annotations

from typing import Any

import pytest

from hitless.aws.changes import Action, harmful, read_changes
from hitless.aws.follow import StackStep, next_step, resting

pytestmark = pytest.mark.unit


def change(action: str, kind: str, replacement: str | None = None, *names: str) -> dict[str, Any]:
    found: dict[str, Any] = {"Action": action, "LogicalResourceId": kind.rpartition(":")[2], "ResourceType": kind}
    if replacement:
        found["Replacement"] = replacement
    found["Details"] = [{"Target": {"Attribute": "Properties", "Name": name}} for name in names]
    return {"ResourceChange": found}


def test_dangerous_changes_are_listed_first() -> None:
    page = {
        "Changes": [
            change("Add", "AWS::EC2::EIP"),
            change("Modify", "AWS::Lambda::Function", "False", "Timeout", "Code"),
            change("Remove", "AWS::EC2::Route"),
            change("Modify", "AWS::EC2::VPC", "True", "CidrBlock"),
            change("Modify", "AWS::EC2::Subnet", "Conditional"),
        ]
    }
    assert [str(each) for each in read_changes([page])] == [
        "Subnet perhaps REPLACED",
        "VPC REPLACED (CidrBlock)",
        "Route deleted",
        "Function changed (Code, Timeout)",
        "EIP added",
    ]


@pytest.mark.parametrize(
    ("found", "harm"),
    [
        (change("Modify", "AWS::EC2::VPC", "True"), True),
        (change("Modify", "AWS::EC2::VPC", "Conditional"), True),
        (change("Modify", "Custom::Thing", "True"), True),
        (change("Modify", "Custom::Thing", "Conditional"), False),
        (change("Modify", "AWS::Lambda::Version", "True"), False),
        (change("Remove", "AWS::ApiGateway::DomainName"), True),
        (change("Remove", "AWS::EC2::NatGateway"), False),
        (change("Modify", "AWS::S3::Bucket", "False"), False),
        (change("Add", "AWS::EC2::VPC"), False),
    ],
)
def test_a_change_is_harmful_if_it_may_replace_or_remove_a_serving_resource(found: dict[str, Any], harm: bool) -> None:
    assert bool(harmful(read_changes([{"Changes": [found]}]))) is harm


def test_a_change_in_json_has_the_documented_keys() -> None:
    (one,) = read_changes([{"Changes": [change("Modify", "AWS::EC2::VPC", "True", "CidrBlock")]}])
    assert one.action is Action.REPLACE
    assert one.to_json() == {
        "action": "replace",
        "resource": "VPC",
        "type": "AWS::EC2::VPC",
        "replaces": True,
        "reasons": ["CidrBlock"],
    }


def test_a_stack_in_a_serving_state_is_never_recreated() -> None:
    serving = ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED"]
    assert StackStep.RECREATE not in {next_step(status) for status in serving}
    assert next_step("SOMETHING_NEW_IN_PROGRESS") is StackStep.AWAIT
    assert resting("REVIEW_IN_PROGRESS")
    assert not resting("DELETE_IN_PROGRESS")
