"""CloudFormation's own schemas decide which changes replace a resource."""

from __future__ import annotations

from typing import Any

import pytest

from hitless.cloud.transform.model import create_only, replacing
from tests.unit.cloudformation_schemas import create_only_of_schemas

pytestmark = pytest.mark.unit


def test_our_copy_of_create_only_properties_matches_the_installed_linters_schemas() -> None:
    assert create_only() == {kind: frozenset(names) for kind, names in create_only_of_schemas().items()}, (
        "cfn-lint was updated: run scripts/create-only"
    )


@pytest.mark.parametrize(
    ("kind", "before", "after", "replaced_by"),
    [
        ("AWS::Lambda::Permission", {"Principal": "a"}, {"Principal": "b"}, ["Principal"]),
        ("AWS::Lambda::Function", {"Timeout": 1}, {"Timeout": 2}, []),
        ("AWS::Lambda::Function", {"FunctionName": "a"}, {"FunctionName": "b"}, ["FunctionName"]),
        ("AWS::DynamoDB::Table", {"KeySchema": [1]}, {"KeySchema": [2]}, ["KeySchema"]),
        ("AWS::ApiGateway::Resource", {"PathPart": "{a}"}, {"PathPart": "{a+}"}, ["PathPart"]),
        ("AWS::Cognito::UserPoolClient", {"UserPoolId": "a"}, {"UserPoolId": "b"}, ["UserPoolId"]),
        ("Custom::Thing", {"Any": 1}, {"Any": 2}, []),
    ],
)
def test_a_change_of_a_create_only_property_replaces_the_resource(
    kind: str, before: dict[str, Any], after: dict[str, Any], replaced_by: list[str]
) -> None:
    assert replacing({"Type": kind, "Properties": before}, {"Type": kind, "Properties": after}) == replaced_by


def test_a_nested_create_only_property_replaces_and_its_siblings_do_not() -> None:
    def pool(**options: str) -> dict[str, Any]:
        return {"Type": "AWS::OpenSearchService::Domain", "Properties": {"EncryptionAtRestOptions": options}}

    assert replacing(pool(KmsKeyId="a"), pool(KmsKeyId="b")) == ["EncryptionAtRestOptions/KmsKeyId"]
    assert replacing(pool(Other="a"), pool(Other="b")) == []
