"""The templates by which a stack of Serverless Framework becomes one of hitless. Pure.

The stack itself shows its phase, so that a run that was cut off is continued. *Plain*: the Stage is imported.
*Imported*: versions of the running code, aliases and permissions are added. *Expanded*: the Stage moves to a Deployment
that calls the aliases. *Adopted*. Until that last update the plain stack's own Deployment serves clients. Functions are
never touched. The plain stack's other resources leave with the next release, but its Deployment and its bucket are
retained. docs/decisions/adoption.md gives the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hitless.aws.follow import Stack
from hitless.aws.lambdas import Running
from hitless.cloud.transform import api
from hitless.cloud.transform.desired import add_version, call_aliases, outputs_of
from hitless.cloud.transform.functions import call_function
from hitless.cloud.transform.model import (
    ADOPTION_OUTPUT,
    API_ID,
    BUCKET_ID,
    BUCKET_IDS,
    RELEASE_OUTPUT,
    STAGE_ID,
    Code,
    FunctionIds,
    LiveState,
    Resource,
    Template,
    copied,
    of_type,
    short_hash,
)
from hitless.cloud.transform.updates import ALIAS_TYPE, FUNCTION, VERSION, contract, expand

IMPORTED = "hitless:imported"
STAGE = "AWS::ApiGateway::Stage"
_OUTLIVE = (api.DEPLOYMENT, "AWS::S3::Bucket", "AWS::S3::BucketPolicy")

_STAGE_FIELDS = {
    "Description": "description",
    "Variables": "variables",
    "TracingEnabled": "tracingEnabled",
    "CacheClusterEnabled": "cacheClusterEnabled",
    "CacheClusterSize": "cacheClusterSize",
    "ClientCertificateId": "clientCertificateId",
    "DocumentationVersion": "documentationVersion",
}
_METHOD_FIELDS = (
    "MetricsEnabled", "LoggingLevel", "DataTraceEnabled", "ThrottlingBurstLimit", "ThrottlingRateLimit",
    "CachingEnabled", "CacheTtlInSeconds", "CacheDataEncrypted",
)  # fmt: skip


class AdoptionPhase(StrEnum):
    """How far a stack is taken over."""

    PLAIN = "plain"
    IMPORTED = "imported"
    EXPANDED = "expanded"
    ADOPTED = "adopted"


@dataclass(frozen=True, slots=True)
class PlainStack:
    """A stack and the code that it runs. Everything is by logical id, except `importers` (by export)."""

    stack: Stack
    template: Template
    physical: Mapping[str, str] = field(default_factory=dict)
    stage: Mapping[str, Any] | None = None
    """As GetStage shows it; None if the stack deploys no API, or the stage is not there."""
    running: Mapping[FunctionIds, Running] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    """The numbers of the Versions that the stack holds."""
    importers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mappings: tuple[tuple[str, str], ...] = ()
    """(domain, base path) of the custom domains that lead to the stage."""


def phase(template: Template) -> AdoptionPhase:
    outputs, resources = template.get("Outputs", {}), template.get("Resources", {})
    if RELEASE_OUTPUT in outputs:
        return AdoptionPhase.ADOPTED
    if ADOPTION_OUTPUT in outputs:
        return AdoptionPhase.EXPANDED
    return (
        AdoptionPhase.IMPORTED if IMPORTED in resources.get(STAGE_ID, {}).get("Metadata", {}) else AdoptionPhase.PLAIN
    )


def begun(template: Template) -> int | None:
    """The number of the release that a half adopted stack will be; None in any other phase."""
    value = template.get("Outputs", {}).get(ADOPTION_OUTPUT, {}).get("Value")
    return int(value) if value is not None else None


def functions_in(template: Template) -> dict[FunctionIds, str]:
    """The functions of a plain stack, with Lambda's name of each."""
    return {
        FunctionIds(name.removesuffix("LambdaFunction")): str(one["Properties"]["FunctionName"])
        for name, one in of_type(template.get("Resources", {}), FUNCTION).items()
        if name.endswith("LambdaFunction") and isinstance(one["Properties"].get("FunctionName"), str)
    }


def deployment_in(template: Template) -> tuple[str, str] | None:
    """The logical id of the Deployment that makes the stage, and the stage's name; None if there is none."""
    for name, one in of_type(template.get("Resources", {}), api.DEPLOYMENT).items():
        if isinstance(stage := one["Properties"].get("StageName"), str):
            return name, stage
    return None


def with_stage(template: Template, stage: Mapping[str, Any]) -> Template:
    """The plain template with the Stage added exactly as it is.

    An import changes nothing, so later updates start from what is written here. `DeletionPolicy: Retain`: if the Stage
    is taken out of the stack again, it keeps serving.
    """
    found = deployment_in(template)
    assert found is not None, "there is a stage, so there is a Deployment that made it"
    made = copied(template)
    properties: dict[str, Any] = {
        "RestApiId": {"Ref": API_ID},
        "StageName": found[1],
        "DeploymentId": {"Ref": found[0]},
    }
    properties |= {name: stage[key] for name, key in _STAGE_FIELDS.items() if stage.get(key)}
    if settings := _method_settings(stage.get("methodSettings") or {}):
        properties["MethodSettings"] = settings
    if (logs := stage.get("accessLogSettings") or {}).get("destinationArn"):
        properties["AccessLogSetting"] = {"DestinationArn": logs["destinationArn"], "Format": logs.get("format", "")}
    if tags := {key: value for key, value in (stage.get("tags") or {}).items() if not key.startswith("aws:")}:
        properties["Tags"] = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
    made["Resources"][STAGE_ID] = {
        "Type": STAGE,
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Metadata": {IMPORTED: True},
        "Properties": properties,
    }
    return made


def _method_settings(settings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Method settings in CloudFormation's form: slashes of a path are `~1`, all paths are `/*`."""
    found = []
    for key, held in sorted(settings.items()):
        path, _, verb = key.rpartition("/")
        resource = "/*" if path == "*" else "/" + (path if path.startswith("~1") else f"~1{path.replace('/', '~1')}")
        values = {name: held[key] for name in _METHOD_FIELDS if (key := name[0].lower() + name[1:]) in held}
        found.append({"ResourcePath": resource, "HttpMethod": verb, **values})
    return found


def adopted(imported: Template, seen: PlainStack, *, number: int) -> Template:
    """The plain stack as release `number`: the same functions, called through the alias `live` of a version of the
    running code; a Deployment named by its content; no osls bucket.

    Each alias follows a Version resource. `expanded` leaves out versions that Lambda has published already.
    """
    made = copied(imported)
    resources: dict[str, Resource] = made["Resources"]
    functions = functions_in(imported)
    for name in BUCKET_IDS:
        resources.pop(name, None)
    for name, one in of_type(resources, ALIAS_TYPE).items():
        # osls' `provisioned`: whoever called it calls `live`, and it goes with the release after
        if (called := one["Properties"]["FunctionName"].get("Ref", "")) in {ids.function for ids in functions}:
            del resources[name]
            call_function(resources, name, str(one["Properties"]["Name"]), called)
    for name in of_type(resources, VERSION):
        del resources[name]  # osls' own: the stack keeps them as long as any other
    call_aliases(resources, functions)
    for ids in functions:
        sha256 = seen.running[ids].sha256
        add_version(resources, ids, short_hash(["adopted", sha256]), sha256)
        _stay_with_code(resources[ids.function], seen.physical.get(BUCKET_ID, ""))
    api.name_permissions(resources)
    old = of_type(resources, api.DEPLOYMENT)
    if old and STAGE_ID in resources:
        for name in old:
            del resources[name]
        properties = resources[STAGE_ID]["Properties"]
        properties["DeploymentId"] = {"Ref": api.add_deployment(resources)}
        resources[STAGE_ID]["DependsOn"] = sorted(of_type(resources, "AWS::Lambda::Permission"))
        api.depend_on_stage(resources, old)
    made.get("Outputs", {}).pop(ADOPTION_OUTPUT, None)
    made["Outputs"] = outputs_of(made, number=number)
    return made


def _stay_with_code(function: Resource, bucket: str) -> None:
    """Name the bucket of the code literally. CloudFormation sees no change, and the bucket may leave the stack."""
    code = function["Properties"].get("Code", {})
    if code.get("S3Bucket") == {"Ref": BUCKET_ID}:
        code["S3Bucket"] = bucket


def expanded(wanted: Template, imported: Template, seen: PlainStack) -> Template:
    """The first update: versions, aliases and permissions are added. Resources that must outlive the stack get
    `DeletionPolicy: Retain` here, one update before they leave it.
    """
    made = expand(wanted, LiveState(imported))
    resources = made["Resources"]
    for ids in functions_in(imported):
        running = seen.running[ids]
        if running.version is not None:  # Lambda publishes no code twice: the alias uses the existing version
            del resources[resources[ids.alias]["Properties"]["FunctionVersion"]["Fn::GetAtt"][0]]
            resources[ids.alias]["Properties"]["FunctionVersion"] = running.version
    for name, one in imported["Resources"].items():
        if one["Type"] in _OUTLIVE and name not in wanted["Resources"]:
            resources[name] = {**copied(one), "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    made["Outputs"] = {
        **imported.get("Outputs", {}),
        ADOPTION_OUTPUT: {
            "Description": "hitless takes this stack over: what is to be its release",
            "Value": wanted["Outputs"][RELEASE_OUTPUT]["Value"],
        },
    }
    made["Resources"] = dict(sorted(resources.items()))
    return made


def contracted(wanted: Template, live: LiveState) -> Template:
    """The second update: the Stage moves to the Deployment that calls the aliases. `live` is the expanded stack; its
    functions stay as they are.
    """
    made = contract(wanted, live, live.aliases)
    for ids in functions_in(wanted):
        made["Resources"][ids.function] = copied(live.resources[ids.function])
    for name in of_type(wanted["Resources"], VERSION):
        if name not in live.resources:
            made["Resources"].pop(name, None)
    return made


def rollback_template(wanted: Template, code: Mapping[str, Code], bucket: str) -> Template:
    """The template that the release's record keeps: its code is in the artifact bucket. `code` is by Lambda's name."""
    kept = copied(wanted)
    for ids, name in functions_in(kept).items():
        kept["Resources"][ids.function]["Properties"]["Code"] = {"S3Bucket": bucket, "S3Key": code[name].key}
    return kept
