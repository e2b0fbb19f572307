"""Decides whether a plain stack can be taken over without a failed request. Pure: from the stack that was observed and
the service's file. Each refusal says what to do instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hitless.aws.follow import WELL
from hitless.aws.stacks import SERVICE_TAG, STAGE_TAG
from hitless.cloud.adoption.templates import (
    IMPORTED,
    STAGE,
    AdoptionPhase,
    PlainStack,
    deployment_in,
    functions_in,
    phase,
)
from hitless.cloud.transform import api
from hitless.cloud.transform.model import API_ID, BUCKET_ID, LiveState, Resource, Template, of_type
from hitless.cloud.transform.refusals import Refusal
from hitless.cloud.transform.updates import FUNCTION
from hitless.cloud.transition import plan

SETTLED = WELL | {"UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"}

_FOREIGN_KINDS: Mapping[str, tuple[str, str]] = {
    "AWS::CloudFormation::Stack": (
        "is a nested stack: hitless does not see its resources",
        "deploy once without the plugin that splits the stack, then adopt",
    ),
    "AWS::ApiGatewayV2::Api": (
        "is an HTTP or WebSocket API, which releases do not cover",
        "write its routes as `http` events, in a stage of another name, and move the clients there",
    ),
    "AWS::ApiGateway::ApiKey": (
        "is an API key: a release names keys by their content, so clients' keys would end two releases later",
        "import the key into a stack of its own (CloudFormation, `DeletionPolicy: Retain` first), then adopt",
    ),
    "AWS::ApiGateway::BasePathMapping": (
        "is a mapping of a domain in the service's stack: a release would remove it",
        "give it `DeletionPolicy: Retain` and remove it from the stack: it keeps leading to the API",
    ),
}
_STAGE_STATE: Mapping[str, tuple[str, str]] = {
    "variables": ("stage variables", "pass the values by `environment`, then remove the variables"),
    "canarySettings": ("a canary of API Gateway's own", "promote it or delete it"),
    "cacheClusterEnabled": ("a cache", "turn the stage's cache off"),
    "clientCertificateId": ("a client certificate", "take it off the stage"),
}
"""Settings of a stage that a release's Stage has not: the first release would remove them."""


def reasons(seen: PlainStack, *, service: str, stage: str) -> Iterator[Refusal]:
    """Everything that prevents taking the stack over as it is."""
    status, tags = seen.stack.status, seen.stack.tags
    if status not in SETTLED:
        yield Refusal(
            f"the stack is {status}",
            "deploy it once more as before, or continue its roll-back in CloudFormation",
        )
    if SERVICE_TAG in tags and (tags[SERVICE_TAG], tags.get(STAGE_TAG)) != (service, stage):
        yield Refusal(
            f"the stack belongs to service {tags[SERVICE_TAG]}, stage {tags.get(STAGE_TAG)}",
            "rename the service or the stage",
        )
    if "Transform" in seen.template:
        yield Refusal("the stack's template is made by a macro (Transform)", "deploy once without it, then adopt")
    resources: dict[str, Resource] = seen.template.get("Resources", {})
    for name, one in sorted(resources.items()):
        if one["Type"] in _FOREIGN_KINDS:
            what, way = _FOREIGN_KINDS[one["Type"]]
            yield Refusal(f"{name} {what}", way)
        elif one["Type"].startswith("Custom::") or one["Type"] == "AWS::CloudFormation::CustomResource":
            yield Refusal(
                f"{name} is a custom resource, which calls a function of the stack by its ARN",
                "remove the event on an existing resource (`existing: true`) that made it, deploy, then adopt",
            )
    yield from _functions(seen)
    yield from _api(seen)
    yield from _exports(seen)


def _functions(seen: PlainStack) -> Iterator[Refusal]:
    known = functions_in(seen.template)
    names = {ids.function for ids in known}
    for name in sorted(of_type(seen.template.get("Resources", {}), FUNCTION).keys() - names):
        yield Refusal(
            f"{name} is a function without a name of Serverless Framework",
            "write it under `functions`, or move it to a stack of its own",
        )
    if not known:
        yield Refusal("the stack has no function", "delete it, and `hitless aws deploy` creates the stage")
    for ids, name in sorted(known.items(), key=lambda item: item[1]):
        running = seen.running.get(ids)
        if running is None:
            yield Refusal(
                f"function {name} does not exist any more", "deploy the stack once more as before, then adopt"
            )
        elif running.package != "Zip":
            yield Refusal(f"function {name} runs a container image", "package it as a zip, deploy, then adopt")
        elif running.has_live_alias and phase(seen.template) in (AdoptionPhase.PLAIN, AdoptionPhase.IMPORTED):
            yield Refusal(
                f"function {name} has an alias `live` that the stack does not hold",
                "delete that alias once nothing calls it, or remove the plugin that made it",
            )


def _api(seen: PlainStack) -> Iterator[Refusal]:
    resources: dict[str, Resource] = seen.template.get("Resources", {})
    deployments = of_type(resources, api.DEPLOYMENT)
    others = [name for name, one in of_type(resources, STAGE).items() if IMPORTED not in one.get("Metadata", {})]
    if others:
        yield Refusal(
            f"the stack already contains the API's stage as {others[0]}, which osls did not make",
            "give it `DeletionPolicy: Retain` and deploy; remove what makes it and deploy; then adopt",
        )
    if not deployments:
        return
    if API_ID not in resources:
        yield Refusal(
            "the API is another stack's (provider.apiGateway.restApiId): its stage shows other services' routes too",
            "give the service an API of its own, in a stage of another name, and move the clients there",
        )
        return
    made_by = deployment_in(seen.template)
    if len(deployments) > 1 or made_by is None:
        yield Refusal(
            f"the stack has {len(deployments)} Deployments instead of the one that makes the stage",
            "remove what a plugin or `resources` adds, deploy, then adopt",
        )
        return
    if seen.stage is None:
        yield Refusal(
            f"the API has no stage {made_by[1]}", "deploy the stack once more as before, which makes it, then adopt"
        )
        return
    if seen.stage.get("deploymentId") != seen.physical.get(made_by[0]):
        yield Refusal(
            f"the stage serves deployment {seen.stage.get('deploymentId')}, which is not the stack's: somebody has "
            "deployed the API by hand",
            "deploy the stack once more as before, so that it serves what the stack says, then adopt",
        )
    for key, (what, way) in _STAGE_STATE.items():
        if seen.stage.get(key):
            yield Refusal(f"the stage has {what}; a release's stage has none", way)


def _exports(seen: PlainStack) -> Iterator[Refusal]:
    for export, stacks in sorted(seen.importers.items()):
        yield Refusal(
            f"{', '.join(stacks)} imports {export}, which a release does not export",
            "write the value itself into those stacks, then adopt",
        )


def lost_exports(template: Template) -> dict[str, str]:
    """The plain stack's exports that a release does not have: output → the export's name, if it is literal."""
    return {
        name: str(one["Export"]["Name"])
        for name, one in template.get("Outputs", {}).items()
        if (name.endswith("QualifiedArn") or name.startswith(BUCKET_ID))
        and isinstance(one.get("Export", {}).get("Name"), str)
    }


def later(adopted: Template, imported: Template, wanted: Template) -> Iterator[Refusal]:
    """Everything that prevents the updates of the adoption, or the first release after it."""
    seen = set()
    for one in (
        *plan(LiveState(imported), adopted).refusals,
        *plan(LiveState(adopted), wanted).refusals,
        *_endpoint(adopted, wanted),
    ):
        if one.what not in seen:
            seen.add(one.what)
            yield one


def _endpoint(adopted: Template, wanted: Template) -> Iterator[Refusal]:
    before, after = (one["Resources"].get(API_ID, {}).get("Properties", {}) for one in (adopted, wanted))
    types = [sorted(one.get("EndpointConfiguration", {}).get("Types", ["EDGE"])) for one in (before, after)]
    if before and after and types[0] != types[1]:
        yield Refusal(
            f"the API's endpoint is {types[0][0]}, and the service's file says {types[1][0]}: while API Gateway moves "
            "it, requests fail",
            f"keep `provider.endpointType: {types[0][0]}`",
        )


def remarks(seen: PlainStack, *, domain: str) -> Iterator[Refusal | str]:
    """Notes on what somebody may notice, and a Refusal if the stage's own domain leads to the API already."""
    for where, path in seen.mappings:
        if where == domain:
            yield Refusal(
                f"{domain} leads to the API by a mapping that no stack holds: a release would create a second one",
                "remove `domain` from the stage's settings: the mapping keeps leading to the API",
            )
        else:
            yield f"{where} ({path}) leads to the API by a mapping outside the stack: it stays"
    stage: Mapping[str, Any] = seen.stage or {}
    if settings := stage.get("methodSettings"):
        yield f"settings of the stage ({', '.join(sorted(settings))}) are replaced by hitless's with the first release"
    for name, one in sorted(of_type(seen.template.get("Resources", {}), "AWS::Lambda::Alias").items()):
        if one["Properties"].get("ProvisionedConcurrencyConfig"):
            yield (
                f"{name}'s provisioned concurrency serves no request between the adoption and the first release: "
                "a burst of requests may start cold"
            )
