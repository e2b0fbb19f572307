"""Each obstacle to an adoption is reported with a fix; a plain stack has none."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from hitless.aws.follow import Stack
from hitless.aws.lambdas import Running
from hitless.cloud.adoption.checks import later, lost_exports, reasons, remarks
from hitless.cloud.adoption.templates import PlainStack, adopted, functions_in, with_stage
from hitless.cloud.transform.desired import desired
from hitless.cloud.transform.model import STAGE_ID, Resource, Template
from hitless.cloud.transform.refusals import Refusal
from tests.unit.definitions import Definition, Function
from tests.unit.transitions import BASE, ITEM, ITEMS, OTHER, of

pytestmark = pytest.mark.unit

DEPLOYMENT = "ApiGatewayDeployment1795562478305"


def seen(template: Template | None = None, **changed: Any) -> PlainStack:
    """A plain stack that can be adopted, except for the given changes."""
    made = template if template is not None else BASE.compiled()
    given: dict[str, Any] = {
        "stack": stack(),
        "template": made,
        "physical": {DEPLOYMENT: "d1", "ServerlessDeploymentBucket": "the-bucket"},
        "stage": {"stageName": "prod", "deploymentId": "d1"},
        "running": {ids: Running(name, "a" * 64, 1000) for ids, name in functions_in(made).items()},
    }
    return PlainStack(**{**given, **changed})


def stack(status: str = "UPDATE_COMPLETE", tags: Mapping[str, str] | None = None) -> Stack:
    return Stack("demo-prod", "demo-prod", status, "", {}, {}, tags or {"STAGE": "prod"}, protected=False)


def holding(name: str, kind: str, **properties: Any) -> PlainStack:
    made = BASE.compiled()
    made["Resources"][name] = {"Type": kind, "Properties": properties}
    return seen(made)


def without(name: str) -> PlainStack:
    made = BASE.compiled()
    del made["Resources"][name]
    return seen(made)


def running(**changed: Any) -> PlainStack:
    plain = seen()
    return replace(plain, running={ids: replace(one, **changed) for ids, one in plain.running.items()})


def unnamed() -> PlainStack:
    made = BASE.compiled()
    made["Resources"]["Helper"] = made["Resources"].pop("CheckLambdaFunction")
    return seen(made)


REASONS: Mapping[str, tuple[Callable[[], PlainStack], str]] = {
    "a stuck stack": (lambda: seen(stack=stack("UPDATE_ROLLBACK_FAILED")), "the stack is UPDATE_ROLLBACK_FAILED"),
    "another service's": (
        lambda: seen(stack=stack(tags={"hitless:service": "other", "hitless:stage": "prod"})),
        "the stack belongs to service other, stage prod",
    ),
    "a macro": (lambda: seen({**BASE.compiled(), "Transform": "AWS::Serverless"}), "made by a macro"),
    "a nested stack": (lambda: holding("Part", "AWS::CloudFormation::Stack"), "Part is a nested stack"),
    "an HTTP API": (lambda: holding("HttpApi", "AWS::ApiGatewayV2::Api"), "HttpApi is an HTTP or WebSocket API"),
    "an API key": (lambda: holding("Key", "AWS::ApiGateway::ApiKey"), "Key is an API key"),
    "a mapping in the stack": (lambda: holding("Map", "AWS::ApiGateway::BasePathMapping"), "Map is a mapping"),
    "a custom resource": (lambda: holding("Own", "Custom::S3"), "Own is a custom resource"),
    "a foreign function": (unnamed, "Helper is a function without a name of Serverless Framework"),
    "no function": (lambda: seen({"Resources": {}}, running={}), "the stack has no function"),
    "a function that is gone": (lambda: seen(running={}), "function demo-prod-alpha does not exist any more"),
    "an image": (lambda: running(package="Image"), "function demo-prod-alpha runs a container image"),
    "an alias of another's": (lambda: running(has_live_alias=True), "function demo-prod-alpha has an alias `live`"),
    "a Stage of a plugin's": (
        lambda: holding("TheStage", "AWS::ApiGateway::Stage"), "the stack already contains the API's stage as TheStage",
    ),
    "an API of another stack": (lambda: without("ApiGatewayRestApi"), "the API is another stack's"),
    "two Deployments": (
        lambda: holding("Second", "AWS::ApiGateway::Deployment", StageName="prod"), "the stack has 2 Deployments",
    ),
    "no stage": (lambda: seen(stage=None), "the API has no stage prod"),
    "a deployment by hand": (
        lambda: seen(stage={"deploymentId": "d2"}), "the stage serves deployment d2, which is not the stack's",
    ),
    "stage variables": (
        lambda: seen(stage={"deploymentId": "d1", "variables": {"a": "b"}}), "the stage has stage variables",
    ),
    "a stage's canary": (
        lambda: seen(stage={"deploymentId": "d1", "canarySettings": {"x": 1}}), "the stage has a canary",
    ),
    "a stage's cache": (
        lambda: seen(stage={"deploymentId": "d1", "cacheClusterEnabled": True}), "the stage has a cache",
    ),
    "an export in use": (lambda: seen(importers={"sls-demo": ("other-stack",)}), "other-stack imports sls-demo"),
}  # fmt: skip


@pytest.mark.parametrize("what", REASONS)
def test_each_obstacle_to_adoption_is_reported_with_a_fix(what: str) -> None:
    make, said = REASONS[what]
    found = list(reasons(make(), service="demo", stage="prod"))
    assert found, "nothing was said"
    assert found[0].what.startswith(said) or said in found[0].what, found
    assert all(one.way for one in found)


def test_a_plain_stack_passes_every_adoption_check() -> None:
    plain = seen()
    assert list(reasons(plain, service="demo", stage="prod")) == []
    assert list(remarks(plain, domain="")) == []


def test_a_partly_adopted_stack_is_not_refused_because_of_changes_by_hitless() -> None:
    plain = seen()
    assert plain.stage is not None
    imported = replace(plain, template=with_stage(plain.template, plain.stage))
    assert list(reasons(imported, service="demo", stage="prod")) == []


def _later(wanted: Definition, change: Callable[[dict[str, Resource]], None] = lambda _: None) -> list[Refusal]:
    plain = seen()
    assert plain.stage is not None
    imported = with_stage(plain.template, plain.stage)
    change(imported["Resources"])
    first = desired(wanted.compiled(), wanted.release(2))
    return list(later(adopted(imported, plain, number=1), imported, first))


def test_adoption_is_refused_if_the_first_release_would_replace_a_function() -> None:
    renamed = of(BASE, alpha=Function((ITEMS, ITEM), name="another"))
    found = [one.what for one in _later(renamed)]
    assert any("demo-prod-alpha would be replaced" in one for one in found), found
    assert _later(of(BASE, beta=Function((OTHER,), letter="b"))) == []


def test_an_endpoint_that_will_change_is_reported_before_adoption() -> None:
    (found,) = _later(replace(BASE, api={"EndpointConfiguration": {"Types": ["REGIONAL"]}}))
    assert found.way == "keep `provider.endpointType: EDGE`"


def test_resources_that_will_be_replaced_are_reported_before_adoption() -> None:
    def subscribe(resources: dict[str, Resource]) -> None:
        resources["Subscription"] = {
            "Type": "AWS::SNS::Subscription",
            "Properties": {"Protocol": "lambda", "Endpoint": {"Fn::GetAtt": ["AlphaLambdaFunction", "Arn"]}},
        }  # fmt: skip

    assert [one.what.split()[0] for one in _later(BASE, subscribe)] == ["Subscription"]


def test_adoption_reports_other_domains_and_refuses_if_the_stages_domain_is_taken() -> None:
    plain = seen(mappings=(("api.example.com", "(none)"), ("old.example.com", "v1")))
    refused, said = list(remarks(plain, domain="api.example.com"))
    assert isinstance(refused, Refusal)
    assert said == "old.example.com (v1) leads to the API by a mapping outside the stack: it stays"


def test_stack_exports_that_a_release_would_remove_are_found() -> None:
    template = copy.deepcopy(BASE.compiled())
    template["Outputs"] = {
        "AlphaLambdaFunctionQualifiedArn": {"Value": "x", "Export": {"Name": "sls-alpha"}},
        "ServiceEndpoint": {"Value": "x", "Export": {"Name": "sls-endpoint"}},
    }
    assert lost_exports(template) == {"AlphaLambdaFunctionQualifiedArn": "sls-alpha"}
    assert STAGE_ID not in template["Resources"]
