"""The wrapper's part of a template: a layer, and each handler that answers API requests called through it.

A layer and not a file in the zip: the bytes that are built and tested are those that are shipped, on either home. The
layer is named by its bytes, so a version's hash holds them too.
"""

from __future__ import annotations

from hitless.cloud.transform.model import FunctionIds, ReleaseInput, Resource, of_type, references

HANDLER = "hitless_wrapper.handler"
HANDLER_VARIABLE, SHIELD_VARIABLE, IDEMPOTENT_VARIABLE = "HITLESS_HANDLER", "HITLESS_SHIELD", "HITLESS_IDEMPOTENT"
LAYERS_LIMIT = 5


def wrap_handlers(resources: dict[str, Resource], functions: dict[FunctionIds, str], release: ReleaseInput) -> None:
    """Wrap each Python function that answers API requests and has room for a layer."""
    if release.layer is None:
        return
    layer = f"HitlessLayer{release.layer.sha256[:16]}"
    called = {name for method in of_type(resources, "AWS::ApiGateway::Method").values() for name in references(method)}
    wrapped = [ids for ids in functions if ids.function in called and _fits(resources[ids.function])]
    for ids in wrapped:
        properties = resources[ids.function]["Properties"]
        variables = properties.setdefault("Environment", {}).setdefault("Variables", {})
        variables[HANDLER_VARIABLE] = properties["Handler"]
        if release.shield:
            variables[SHIELD_VARIABLE] = ids.shield_variable
            if release.idempotent:
                variables[IDEMPOTENT_VARIABLE] = ",".join(release.idempotent)
        properties["Handler"] = HANDLER
        properties["Layers"] = [*properties.get("Layers", []), {"Ref": layer}]
    if wrapped:
        resources[layer] = {
            "Type": "AWS::Lambda::LayerVersion",
            "DeletionPolicy": "RetainExceptOnCreate",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "LayerName": f"{release.service}-{release.stage}-hitless",
                "Description": "Counts failed answers; shields a canary",
                "Content": {"S3Bucket": release.bucket, "S3Key": release.layer.key},
            },
        }


def is_wrapped(function: Resource) -> bool:
    """Whether the function's handler is called through the wrapper."""
    return bool(function["Properties"].get("Handler") == HANDLER)


def is_shielded(function: Resource) -> bool:
    """Whether the function's release asks for a shield."""
    return SHIELD_VARIABLE in function["Properties"].get("Environment", {}).get("Variables", {})


def _fits(function: Resource) -> bool:
    properties = function["Properties"]
    is_python = str(properties.get("Runtime", "")).startswith("python")
    return is_python and len(properties.get("Layers", [])) < LAYERS_LIMIT
