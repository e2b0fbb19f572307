"""Imports into a stack, and updates that declare a stage which a Deployment has created."""

from __future__ import annotations

import copy
import json
import secrets
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.aws.emulated import EmulatedAws
from tests.aws.tiny import API, STAGE
from tests.support import eventually

pytestmark = pytest.mark.aws

PLAIN: dict[str, Any] = {
    "Resources": {
        **API,
        "Deployment": {
            "Type": "AWS::ApiGateway::Deployment",
            "DependsOn": "Thing",
            "Properties": {"RestApiId": {"Ref": "Api"}, "StageName": "dev"},
        },
    },
    "Outputs": {"ApiId": {"Value": {"Ref": "Api"}}},
}
KEPT_STAGE = STAGE | {"DeletionPolicy": "Retain"}


class Shop:
    """A stack whose stage was created by its Deployment."""

    def __init__(self, aws: EmulatedAws) -> None:
        self.cloudformation, self.api = aws.session_client("cloudformation"), aws.session_client("apigateway")
        self.cloudformation.create_stack(StackName="shop", TemplateBody=json.dumps(PLAIN))
        assert self.rests() == "CREATE_COMPLETE"
        (self.id,) = (one["id"] for one in self.api.get_rest_apis()["items"])

    def rests(self) -> str:
        def status() -> str | None:
            found = str(self.cloudformation.describe_stacks(StackName="shop")["Stacks"][0]["StackStatus"])
            return None if found.endswith("_IN_PROGRESS") else found

        return eventually(status, deadline_s=60) or ""

    def stage(self) -> dict[str, Any]:
        (found,) = self.api.get_stages(restApiId=self.id)["item"]
        return dict(found)

    def change_set(self, template: dict[str, Any], stage: str = "dev", **given: Any) -> Any:
        return self.cloudformation.create_change_set(
            StackName="shop",
            ChangeSetName=f"take-in-{secrets.token_hex(4)}",
            ChangeSetType="IMPORT",
            TemplateBody=json.dumps(template),
            ResourcesToImport=[
                {
                    "ResourceType": "AWS::ApiGateway::Stage",
                    "LogicalResourceId": "Stage",
                    "ResourceIdentifier": {"RestApiId": self.id, "StageName": stage},
                }
            ],
            **given,
        )

    def take_in(self, template: dict[str, Any]) -> str:
        made = self.change_set(template)["Id"]
        self.cloudformation.execute_change_set(ChangeSetName=made, StackName="shop")
        return self.rests()


def plain_with(**resources: dict[str, Any]) -> dict[str, Any]:
    made = copy.deepcopy(PLAIN)
    made["Resources"] |= copy.deepcopy(resources)
    return made


def test_an_update_that_declares_an_existing_stage_fails_and_the_stage_keeps_serving(aws: EmulatedAws) -> None:
    shop = Shop(aws)
    before = shop.stage()
    shop.cloudformation.update_stack(StackName="shop", TemplateBody=json.dumps(plain_with(Stage=KEPT_STAGE)))
    assert shop.rests() == "UPDATE_ROLLBACK_COMPLETE"
    events = shop.cloudformation.describe_stack_events(StackName="shop")["StackEvents"]
    failed = {
        (one["ResourceType"], one.get("ResourceStatusReason"))
        for one in events
        if one["LogicalResourceId"] == "Stage" and one["ResourceStatus"].endswith("_FAILED")
    }
    assert failed == {(KEPT_STAGE["Type"], "dev already exists.")}, events
    assert shop.stage() == before


def test_an_import_adds_the_stage_to_the_stack_without_changing_it(aws: EmulatedAws) -> None:
    shop = Shop(aws)
    before = shop.stage()
    template = plain_with(Stage=KEPT_STAGE)
    assert shop.take_in(template) == "IMPORT_COMPLETE"
    held = {"tags", "lastUpdatedDate"}
    assert {key: one for key, one in shop.stage().items() if key not in held} == {
        key: one for key, one in before.items() if key not in held
    }
    template["Resources"]["Second"] = {
        **template["Resources"]["Deployment"],
        "Properties": {"RestApiId": {"Ref": "Api"}},
    }
    template["Resources"]["Stage"]["Properties"]["DeploymentId"] = {"Ref": "Second"}
    shop.cloudformation.update_stack(StackName="shop", TemplateBody=json.dumps(template))
    assert shop.rests() == "UPDATE_COMPLETE"
    assert shop.stage()["deploymentId"] != before["deploymentId"]

    del template["Resources"]["Deployment"]  # with its StageName: the stage is another's by now
    shop.cloudformation.update_stack(StackName="shop", TemplateBody=json.dumps(template))
    assert shop.rests() == "UPDATE_COMPLETE"
    assert shop.stage()["stageName"] == "dev"


def test_a_change_set_that_imports_cannot_change_anything_else(aws: EmulatedAws) -> None:
    shop = Shop(aws)
    unprotected = {key: one for key, one in KEPT_STAGE.items() if key != "DeletionPolicy"}
    changed = plain_with(Stage=KEPT_STAGE)
    changed["Resources"]["Api"]["Properties"]["Name"] = "another"
    more = plain_with(Stage=KEPT_STAGE, Topic={"Type": "AWS::SNS::Topic", "DeletionPolicy": "Retain", "Properties": {}})
    told = {**plain_with(Stage=KEPT_STAGE), "Outputs": {**PLAIN["Outputs"], "More": {"Value": "x"}}}
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        (plain_with(Stage=unprotected), "must have DeletionPolicy"),
        (changed, "modified resources"),
        (more, "missing from ResourceToImport"),
        (told, "cannot modify or add"),
        (PLAIN, "do not exist in the template"),
    )
    for template, said in refused:
        with pytest.raises(ClientError, match=said):
            shop.change_set(template)
    with pytest.raises(ClientError, match="cannot modify or add"):
        shop.change_set(plain_with(Stage=KEPT_STAGE), Tags=[{"Key": "a", "Value": "b"}])
    assert shop.take_in(plain_with(Stage=KEPT_STAGE)) == "IMPORT_COMPLETE"
    with pytest.raises(ClientError, match="at least one new resource"):
        shop.change_set(plain_with(Stage=KEPT_STAGE))


def test_an_import_of_a_missing_resource_fails(aws: EmulatedAws) -> None:
    shop = Shop(aws)
    template = plain_with(Stage=KEPT_STAGE)
    template["Resources"]["Stage"]["Properties"]["StageName"] = "prod"
    made = shop.change_set(template, stage="prod")["Id"]
    found = shop.cloudformation.describe_change_set(ChangeSetName=made, StackName="shop")
    assert (found["Status"], found["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert "Invalid stage identifier" in found["StatusReason"]
