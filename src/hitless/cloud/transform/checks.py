"""What would fail on AWS in mid-deploy, refused before it begins: names, sizes, what is not ours to ship."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hitless.cloud.transform.model import API_ID, RESOURCES_LIMIT, ReleaseInput, Resource, of_type
from hitless.errors import ServiceFileError

FUNCTION_NAME_LIMIT = 64
UNPACKED_LIMIT_BYTES = 262_144_000
ENVIRONMENT_LIMIT_BYTES = 4096


def check_stage(packaged: str, wanted: str) -> None:
    """osls bakes the stage's name into a package and deploys it under any other: refuse that. ServiceFileError."""
    if packaged != wanted:
        raise ServiceFileError(
            f"provider.stage: the package is for stage {packaged}, not {wanted}",
            hint="write stage: ${opt:stage, 'dev'} in serverless.yml, so that --stage counts",
        )


def check_package(resources: Mapping[str, Resource], release: ReleaseInput) -> None:
    """ServiceFileError on what Lambda or CloudFormation would refuse, or what is not shipped."""
    for function in of_type(resources, "AWS::Lambda::Function").values():
        name = str(function["Properties"].get("FunctionName", ""))
        key = release.function_names.get(name)
        if key is None:
            if function["Properties"].get("Code", {}).get("S3Bucket") == {"Ref": "ServerlessDeploymentBucket"}:
                raise ServiceFileError(
                    f"{name or 'a function'} is a helper that Serverless Framework adds for an event of the service",
                    hint="events on resources that exist already (`existing: true`) are not shipped",
                )
            continue
        if len(name) > FUNCTION_NAME_LIMIT:
            raise ServiceFileError(
                f"functions.{key}: Lambda's name {name} has {len(name)} characters, over {FUNCTION_NAME_LIMIT}",
                hint="shorten the service's, the stage's or the function's name, or give the function a `name`",
            )
        if key not in release.code:
            raise ServiceFileError(
                f"functions.{key}: there is no artifact for the platform that it declares",
                hint="the build's warnings above say why",
            )
        if (size := release.code[key].unpacked_bytes) > UNPACKED_LIMIT_BYTES:
            raise ServiceFileError(
                f"functions.{key}: the package unpacks to {size / 1e6:.0f} MB, over Lambda's 262 MB",
                hint="leave files out by package.patterns, or take requirements out",
            )
    if of_type(resources, "AWS::ApiGateway::Deployment") and API_ID not in resources:
        raise ServiceFileError(
            "provider.apiGateway.restApiId: routes are not added to an API of another stack",
            hint="take restApiId out: two services' releases on one API would show each other's half-made routes",
        )
    if of_type(resources, "AWS::Lambda::LayerVersion"):
        raise ServiceFileError(
            "layers: layers that the service makes are not shipped",
            hint="put what they hold into requirements.txt or the service's folder, or name a layer by its ARN",
        )


def check_environment(resources: Mapping[str, Resource], release: ReleaseInput) -> None:
    """ServiceFileError where a function's variables, ours among them, are more than Lambda takes; it measures JSON."""
    for function in of_type(resources, "AWS::Lambda::Function").values():
        variables = function["Properties"].get("Environment", {}).get("Variables", {})
        size = len(json.dumps(variables, separators=(",", ":"), ensure_ascii=False).encode())
        key = release.function_names.get(str(function["Properties"].get("FunctionName", "")))
        if key is not None and size > ENVIRONMENT_LIMIT_BYTES:
            raise ServiceFileError(
                f"functions.{key}.environment is over Lambda's 4 KB: {size} bytes, with what hitless adds",
                hint="keep large values in a file or a parameter",
            )


def check_resources(resources: Mapping[str, Resource]) -> None:
    """ServiceFileError where one stack cannot hold the release and, beside it, what the one before it leaves."""
    if len(resources) > RESOURCES_LIMIT:
        raise ServiceFileError(
            f"the stack would hold {len(resources)} resources, over CloudFormation's {RESOURCES_LIMIT}",
            hint="split the service, or route with {proxy+} to fewer functions",
        )
