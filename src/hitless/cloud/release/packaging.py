"""Packages a service's folder and its artifacts into the template that a release wants. Calls no AWS."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import structs

from hitless.artifact.archive import ZipMember, digest_of, write
from hitless.artifact.model import Artifact
from hitless.aws.buckets import artifact_key
from hitless.aws.layer import hitless_wrapper
from hitless.aws.osls import Osls, Packaged, make_overlay
from hitless.cloud.stage.core_outputs import CoreOutputs
from hitless.cloud.transform.desired import desired
from hitless.cloud.transform.guard import hooks_of
from hitless.cloud.transform.model import ApiSettings, Code, ReleaseInput, Template
from hitless.errors import ServiceFileError
from hitless.release.document import ArtifactRef, ReleaseDocument
from hitless.service.model import Function, Service
from hitless.service.strategy import Strategy


@dataclass(frozen=True, slots=True)
class ServicePackage:
    """A packaged service without a release number: osls' template, the artifacts, core's outputs."""

    service: Service
    packaged: Packaged
    artifacts: Mapping[str, Artifact]
    core: CoreOutputs

    def wanted(self, *, number: int, previous: int | None, commit: str | None, strategy: Strategy) -> Template:
        """The template that this release wants, independent of what is live. Raises ServiceFileError."""
        code = {}
        for name, artifact in self.artifacts.items():
            sha256 = artifact.digest.removeprefix("sha256:")
            code[name] = Code(sha256, artifact_key(sha256), artifact.unpacked_bytes)
        release = ReleaseInput(
            service=self.service.name,
            stage=self.service.stage,
            code=code,
            function_names=self.packaged.function_names,
            bucket=self.core.bucket,
            strategy=strategy,
            alarms=self.service.settings.alarms,
            number=number,
            previous=previous,
            commit=commit,
            subnets=self.core.private_subnet_ids,
            security_group=self.core.security_group_id,
            domain=self.core.domain,
            base_path=self.service.settings.base_path,
            permissions_boundary=self.core.permissions_boundary_arn,
            alarm_topic=self.core.alarm_topic_arn,
            hooks=self.service.settings.hooks,
            layer=layer_code(),
            shield=self.service.settings.shield,
            scaled={
                one.name: (one.max_provisioned, one.provisioned_target_percent)
                for one in self.service.functions
                if one.max_provisioned
            },
            api=replace(api_settings(self.packaged.provider), throttle=self.service.settings.throttle),
            log_retention_days=int(self.packaged.provider.get("logRetentionInDays", 30)),
            traced=not _is_off(self.packaged.provider, "tracing", "lambda"),
            stack_tags={key: str(value) for key, value in self.packaged.provider.get("stackTags", {}).items()},
            idempotent=tuple(map(str, self.service.settings.idempotent)),
        )
        return desired(self.packaged.template, release)

    def document(self, *, commit: str | None, message: str | None) -> ReleaseDocument:
        """The release's document, from which an engine can start the same release."""
        service = self.service
        return ReleaseDocument(
            service=service.name,
            region=service.region,
            functions=tuple(map(self._with_values, service.functions)),
            artifacts={name: ArtifactRef(one.digest, local=False) for name, one in self.artifacts.items()},
            settings=service.settings,
            commit=commit,
            message=message,
        )

    def _with_values(self, function: Function) -> Function:
        """The function with the texts of its environment as osls resolved them, which may have asked AWS."""
        made = (resource.get("Properties", {}) for resource in self.packaged.template["Resources"].values())
        names = self.packaged.function_names
        (own,) = (one for one in made if names.get(str(one.get("FunctionName"))) == function.name)
        given = own.get("Environment", {}).get("Variables", {})
        texts = ((name, str(given.get(name, text))) for name, text in function.environment)
        return structs.replace(function, environment=tuple(texts))

    @property
    def hooks(self) -> dict[str, str]:
        """CodeDeploy's lifecycle event → the name in Lambda of the function that it calls."""
        lambda_names = {ours: theirs for theirs, ours in self.packaged.function_names.items()}
        return hooks_of(self.service.settings.hooks, lambda_names)


def package(service: Service, artifacts: Mapping[str, Artifact], core: CoreOutputs, osls: Osls) -> ServicePackage:
    """Compile the service with osls. Raises ServiceFileError if osls (a Serverless fork) or Lambda would refuse it."""
    missing = [function.name for function in service.functions if function.name not in artifacts]
    if missing:
        raise ServiceFileError(
            f"functions.{missing[0]}: there is no artifact for the platform that it declares",
            hint="the build's warnings above say why",
        )
    with tempfile.TemporaryDirectory(prefix="hitless-osls-") as place:
        overlay = make_overlay(service.file, Path(place))
        packaged = osls.package(overlay, stage=service.stage, region=service.region, params=core.params())
    if packaged.stage != service.stage:  # osls would deploy it under any name
        raise ServiceFileError(
            f"provider.stage: the package is for stage {packaged.stage}, not {service.stage}",
            hint="write stage: ${opt:stage, 'dev'} in serverless.yml, so that --stage has an effect",
        )
    if packaged.stack_name != f"{service.name}-{service.stage}":
        raise ServiceFileError(
            f"provider.stackName: {packaged.stack_name}: the stack is always named {service.name}-{service.stage}",
            hint="remove provider.stackName: permissions are granted by that name",
        )
    check_provider(packaged.provider)
    return ServicePackage(service, packaged, artifacts, core)


def check_provider(provider: Mapping[str, Any]) -> None:
    """Raise ServiceFileError on a setting that has no effect here, though the file expects one."""
    if provider.get("rollbackConfiguration"):
        raise ServiceFileError(
            "provider.rollbackConfiguration: hitless does not give it to CloudFormation",
            hint="remove it; name alarms of your own in alarms: {also: […]} of custom.hitless.stages",
        )
    logs = provider.get("logs", {}).get("restApi")
    for key in ("role", "roleManagedExternally"):
        if isinstance(logs, Mapping) and logs.get(key):
            raise ServiceFileError(
                f"provider.logs.restApi.{key}: an account has one role for API Gateway's logs, and bootstrap sets it",
                hint="remove it",
            )


def api_settings(provider: Mapping[str, Any]) -> ApiSettings:
    """What `provider` says of the API's stage, which osls would set past CloudFormation."""
    logs = provider.get("logs", {}).get("restApi")
    told: Mapping[str, Any] = logs if isinstance(logs, Mapping) else {}
    executes = told.get("executionLogging", bool(told)) or logs is True
    return ApiSettings(
        traced=not _is_off(provider, "tracing", "apiGateway"),
        metrics=not _is_off(provider, "apiGateway", "metrics"),
        access_log=logs is not False and told.get("accessLogging") is not False,
        log_format=str(told["format"]) if "format" in told else None,
        level=str(told.get("level", "INFO")) if executes else None,
        whole_requests=bool(told.get("fullExecutionData", True)) if executes else False,
    )


def _is_off(provider: Mapping[str, Any], part: str, key: str) -> bool:
    """Whether the file says `false`. What it does not say, hitless turns on."""
    return isinstance(provider.get(part), Mapping) and provider[part].get(key) is False


WRAPPER = Path(hitless_wrapper.__file__)


def write_layer(path: Path) -> None:
    """Write the layer's zip, the same bytes on every machine. The path must not exist."""
    write(path, [ZipMember("python/hitless_wrapper.py", WRAPPER.read_bytes())])


@cache
def layer_code() -> Code:
    """The layer's digest and key."""
    with tempfile.TemporaryDirectory(prefix="hitless-layer-") as place:
        path = Path(place) / "layer.zip"
        write_layer(path)
        sha256 = digest_of(path).removeprefix("sha256:")
        return Code(sha256, artifact_key(sha256))
