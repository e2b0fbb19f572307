"""Adoption of a plain stack and later releases: a model refuses what AWS refuses, and shows the served picture."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from hitless.aws.follow import Stack
from hitless.aws.lambdas import Running
from hitless.cloud.adoption.templates import (
    AdoptionPhase,
    PlainStack,
    adopted,
    begun,
    contracted,
    expanded,
    functions_in,
    phase,
    rollback_template,
    with_stage,
)
from hitless.cloud.transform.desired import version_ids
from hitless.cloud.transform.model import BUCKET_ID, STAGE_ID, Code, FunctionIds, LiveState, Template, changes, of_type
from tests.unit.definitions import Definition, Function
from tests.unit.modelled_aws import ModelledAws, picture
from tests.unit.release_support import packaged, with_provisioned
from tests.unit.transitions import BASE, ITEM, ITEMS, OTHER, of, table
from tests.unit.walk import Walk

pytestmark = pytest.mark.unit

SCHEDULED = of(BASE, beta=Function((OTHER,), schedule="rate(5 minutes)"))
KINDS: Mapping[str, Definition] = {
    "a small API": BASE,
    "a schedule beside it": SCHEDULED,
    "a table": replace(BASE, resources={"Table": table()}),
    "no API": Definition({"alpha": Function(schedule="rate(5 minutes)")}),
}


def plain(definition: Definition, *, published: bool) -> Template:
    """The stack that `osls deploy` makes; `published`: with versionFunctions, the default."""
    template = copy.deepcopy(definition.compiled())
    resources = template["Resources"]
    resources[BUCKET_ID] = {"Type": "AWS::S3::Bucket", "Properties": {}}
    resources["ServerlessDeploymentBucketPolicy"] = {
        "Type": "AWS::S3::BucketPolicy",
        "Properties": {
            "Bucket": {"Ref": BUCKET_ID},
            "PolicyDocument": {"Statement": [{"Effect": "Deny", "Action": "s3:*", "Principal": "*", "Resource": "*"}]},
        },
    }
    template["Outputs"] = {"ServerlessDeploymentBucketName": {"Value": {"Ref": BUCKET_ID}}}
    for ids in functions_in(template) if published else ():
        resources[f"{ids.base}LambdaVersionAbc"] = {
            "Type": "AWS::Lambda::Version",
            "DeletionPolicy": "Retain",
            "Properties": {"FunctionName": {"Ref": ids.function}, "CodeSha256": "x"},
        }
    return template


class Adopting:
    """A plain stack in the model, and its adoption."""

    def __init__(self, definition: Definition, *, published: bool = True, past_the_stack: bool = False) -> None:
        self.aws = ModelledAws()
        self.template = plain(definition, published=published)
        for function in of_type(self.template["Resources"], "AWS::Lambda::Function").values():
            function["Properties"]["Code"]["S3Key"] = "serverless/demo/1/demo.zip"
        self.aws.update(self.template)
        versions = dict.fromkeys(functions_in(self.template), "1" if published else None)
        physical = {BUCKET_ID: "the-bucket"} | {
            name: f"arn:version:{number}" for name, number in self.aws.versions.items()
        }
        if past_the_stack:  # somebody has published what the stack does not hold
            versions = dict.fromkeys(versions, "7")
        running = {
            ids: Running(name, "a" * 64, 1000, versions[ids]) for ids, name in functions_in(self.template).items()
        }
        stage = {"deploymentId": "d", "stageName": "prod"}
        stack = Stack("demo-prod", "demo-prod", "UPDATE_COMPLETE", "", {}, {}, {}, protected=False)
        self.seen = PlainStack(stack, self.template, physical, stage, running)
        has_api = "ApiGatewayRestApi" in self.template["Resources"]
        self.imported = with_stage(self.template, stage) if has_api else self.template
        self.wanted = adopted(self.imported, self.seen, number=1)
        self.expanded = expanded(self.wanted, self.imported, self.seen)

    def take_in(self) -> None:
        """The import, which may add only the Stage."""
        made = changes(self.aws.template, self.imported)
        assert [(one.action, one.resource) for one in made] in ([("add", STAGE_ID)], [])
        self.aws.template = copy.deepcopy(self.imported)

    def walk(self) -> Walk:
        """All three steps; returns a walk for further releases."""
        before = picture(self.aws.resources) if STAGE_ID in self.imported["Resources"] else None
        self.take_in()
        assert self.served == before
        functions = copy.deepcopy(of_type(self.aws.resources, "AWS::Lambda::Function"))
        self.aws.update(self.expanded)
        assert self.served == before, "clients are served as before, until the Stage moves"
        self.aws.update(contracted(self.wanted, self.aws.live))
        after = of_type(self.aws.resources, "AWS::Lambda::Function")
        for name, one in functions.items():
            one["Properties"]["Code"]["S3Bucket"] = "the-bucket"
            assert after[name] == one, "no function is touched"
        walk = Walk(self.aws, live=self.wanted, number=1)
        walk._passed = set(self.aws.resources)
        walk._answers()
        return walk

    @property
    def served(self) -> Any:
        return copy.deepcopy(self.aws.served) if STAGE_ID in self.aws.resources else picture_or_none(self.aws)


def picture_or_none(aws: ModelledAws) -> Any:
    return next(iter(aws.pictures.values()), None)


@pytest.mark.parametrize("published", [True, False], ids=["versions published", "no versions"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_stack_is_adopted_and_four_releases_ship_after_it(kind: str, published: bool) -> None:
    definition = KINDS[kind]
    walk = Adopting(definition, published=published).walk()
    for letter in "bcde":
        functions = {key: replace(one, letter=letter) for key, one in definition.functions.items()}
        walk.ship(replace(definition, functions=functions))
    now = walk.aws.resources
    assert BUCKET_ID not in now
    assert "IamRoleLambdaExecution" not in now
    assert len(of_type(now, "AWS::ApiGateway::Deployment")) <= 1


def test_if_the_first_shift_after_adoption_fails_the_adopted_release_keeps_serving() -> None:
    walk = Adopting(BASE).walk()
    changed = of(BASE, alpha=Function((ITEMS, ITEM), letter="b"))
    walk.ship(changed, shifts=False)
    walk.ship(changed)
    walk.ship(of(BASE, alpha=Function((ITEMS, ITEM), letter="c"), beta=None))


def test_an_alias_refers_to_a_version_outside_the_stack_by_its_number() -> None:
    adopting = Adopting(BASE, published=False, past_the_stack=True)
    ids = FunctionIds("Alpha")
    assert adopting.expanded["Resources"][ids.alias]["Properties"]["FunctionVersion"] == "7"
    assert not of_type(adopting.expanded["Resources"], "AWS::Lambda::Version")
    assert version_ids(adopting.wanted)[ids] in adopting.wanted["Resources"], "a roll-back asks for it by its id"
    live = LiveState(adopting.expanded, {each.alias: "7" for each in functions_in(adopting.template)})
    after = contracted(adopting.wanted, live)
    assert after["Resources"][ids.alias]["Properties"]["FunctionVersion"] == "7"
    assert not of_type(after["Resources"], "AWS::Lambda::Version")


def test_the_adopted_release_has_only_the_versions_that_its_aliases_serve() -> None:
    adopting = Adopting(BASE)
    followed = set(version_ids(adopting.wanted).values())
    assert of_type(adopting.wanted["Resources"], "AWS::Lambda::Version").keys() == followed
    assert "AlphaLambdaVersionAbc" in adopting.expanded["Resources"], "the stack keeps what osls published"


def test_callers_of_the_osls_alias_provisioned_call_the_alias_live_after_adoption() -> None:
    template = with_provisioned(packaged().template, "Meta", 2)
    stack = Stack("worldclock-prod", "worldclock-prod", "UPDATE_COMPLETE", "", {}, {}, {}, protected=False)
    running = {ids: Running(name, "a" * 64, 1000, "1") for ids, name in functions_in(template).items()}
    stage = {"deploymentId": "d", "stageName": "prod"}
    seen = PlainStack(stack, template, {BUCKET_ID: "the-bucket"}, stage, running)
    imported = with_stage(template, stage)
    wanted = adopted(imported, seen, number=1)
    first = expanded(wanted, imported, seen)
    versions = dict.fromkeys(of_type(template["Resources"], "AWS::Lambda::Version"), 1)
    after = contracted(wanted, LiveState(first, dict.fromkeys((ids.alias for ids in running), "1"), versions))
    assert "provisioned" not in str(of_type(after["Resources"], "AWS::ApiGateway::Method"))
    called = after["Resources"]["ApiGatewayMethodHealthGet"]["Properties"]["Integration"]["Uri"]
    assert {"Ref": "MetaAliasLive"} in called["Fn::Join"][1]
    for each in (first, after):
        assert "MetaProvConcLambdaAlias" in each["Resources"]
    assert "hitless:retired" in after["Resources"]["MetaProvConcLambdaAlias"]["Metadata"]


def test_a_new_version_is_published_only_of_code_with_the_observed_digest() -> None:
    adopting = Adopting(BASE, published=False)
    for version in of_type(adopting.expanded["Resources"], "AWS::Lambda::Version").values():
        assert version["Properties"]["CodeSha256"] == "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo="


def test_resources_to_retain_get_their_deletion_policy_one_update_before_removal() -> None:
    adopting = Adopting(BASE)
    resources = adopting.expanded["Resources"]
    leaving = {name for name, one in resources.items() if one["Type"] in ("AWS::S3::Bucket", "AWS::S3::BucketPolicy")}
    leaving |= of_type(resources, "AWS::ApiGateway::Deployment").keys()
    assert len(leaving) == 3
    assert {resources[name]["DeletionPolicy"] for name in leaving} == {"Retain"}
    (old,) = of_type(adopting.template["Resources"], "AWS::ApiGateway::Deployment")
    assert resources[old]["Properties"] == adopting.template["Resources"][old]["Properties"], "with its StageName"


def test_the_old_invoke_permissions_stay_until_the_next_release() -> None:
    walk = Adopting(BASE).walk()
    assert "AlphaLambdaPermissionApiGateway" in walk.aws.resources
    walk.ship(of(BASE, alpha=Function((ITEMS, ITEM), letter="b")))
    assert "AlphaLambdaPermissionApiGateway" not in walk.aws.resources


def test_the_phase_of_an_adoption_is_read_from_the_template() -> None:
    adopting = Adopting(BASE)
    live = LiveState(adopting.expanded, {each.alias: "1" for each in functions_in(adopting.template)})
    after = contracted(adopting.wanted, live)
    found = [phase(one) for one in (adopting.template, adopting.imported, adopting.expanded, after)]
    assert found == [AdoptionPhase.PLAIN, AdoptionPhase.IMPORTED, AdoptionPhase.EXPANDED, AdoptionPhase.ADOPTED]
    assert [begun(one) for one in (adopting.template, adopting.expanded, after)] == [None, 1, None]


def test_the_existing_stage_is_described_in_the_template_unchanged() -> None:
    stage = {
        "deploymentId": "d",
        "description": "theirs",
        "tracingEnabled": True,
        "cacheClusterEnabled": False,
        "variables": {},
        "methodSettings": {
            "*/*": {"metricsEnabled": True, "loggingLevel": "INFO", "unauthorizedCacheControlHeaderStrategy": "x"},
            "~1items~1{id}/GET": {"throttlingRateLimit": 5.0},
            "items/POST": {"throttlingBurstLimit": 2},
        },
        "accessLogSettings": {"destinationArn": "arn:logs", "format": "$context.requestId"},
        "tags": {"STAGE": "prod", "aws:cloudformation:stack-name": "demo-prod"},
    }
    made = with_stage(plain(BASE, published=True), stage)["Resources"][STAGE_ID]
    assert made["DeletionPolicy"] == "Retain"
    assert made["Properties"] == {
        "RestApiId": {"Ref": "ApiGatewayRestApi"},
        "StageName": "prod",
        "DeploymentId": {"Ref": "ApiGatewayDeployment1795562478305"},
        "Description": "theirs",
        "TracingEnabled": True,
        "MethodSettings": [
            {"ResourcePath": "/*", "HttpMethod": "*", "MetricsEnabled": True, "LoggingLevel": "INFO"},
            {"ResourcePath": "/~1items", "HttpMethod": "POST", "ThrottlingBurstLimit": 2},
            {"ResourcePath": "/~1items~1{id}", "HttpMethod": "GET", "ThrottlingRateLimit": 5.0},
        ],
        "AccessLogSetting": {"DestinationArn": "arn:logs", "Format": "$context.requestId"},
        "Tags": [{"Key": "STAGE", "Value": "prod"}],
    }


def test_the_adopted_releases_rollback_template_uses_code_in_the_artifact_bucket() -> None:
    adopting = Adopting(BASE)
    code = {name: Code("a" * 64, "artifacts/a.zip") for name in functions_in(adopting.template).values()}
    kept = rollback_template(adopting.wanted, code, "artifact-bucket")
    for function in of_type(kept["Resources"], "AWS::Lambda::Function").values():
        assert function["Properties"]["Code"] == {"S3Bucket": "artifact-bucket", "S3Key": "artifacts/a.zip"}
