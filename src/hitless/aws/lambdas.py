"""Lambda's functions, versions and aliases, single invocations, provisioned concurrency and its scaling, and logs."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from hitless.aws.buckets import save
from hitless.aws.layer.hitless_wrapper import WARM
from hitless.aws.session import Ignoring, error_code, is_denied
from hitless.errors import CloudError

READY_TIMEOUT_S, PROVISION_TIMEOUT_S = 180.0, 1800.0
KNOWN_WITHIN_S = 20.0
"""For some seconds Lambda may not find what was just made (terraform-provider-aws#7214, "Function not found")."""
WARM_S = 0.3
"""How long a warmed environment stays busy if several are wanted."""

POLL_S = 1.0
LATEST = "$LATEST"
DOWNLOAD_TIMEOUT_S = 60.0

_NOT_PROVISIONED = ("ResourceNotFoundException", "ProvisionedConcurrencyConfigNotFoundException")


@dataclass(frozen=True, slots=True)
class AliasState:
    """The versions that an alias sends invocations to: `version`, except for the shares (0–1) of `others`."""

    version: str
    others: Mapping[str, float] = field(default_factory=dict)

    def weights_percent(self) -> dict[str, float]:
        """Version → percent, whole numbers as integers."""
        shares = {**self.others, self.version: 1 - sum(self.others.values())}
        return {version: _whole(100 * share) for version, share in shares.items() if share > 0}


@dataclass(frozen=True, slots=True)
class Invocation:
    """The result of an invocation. `error` is Lambda's word for a handler that failed, empty if it returned."""

    payload: Any
    error: str = ""


_HELD = (
    "CodeSha256", "Runtime", "Role", "Handler", "Timeout", "MemorySize", "Environment", "VpcConfig", "DeadLetterConfig",
    "KMSKeyArn", "TracingConfig", "Layers", "FileSystemConfigs", "Architectures", "EphemeralStorage", "LoggingConfig",
    "ImageConfigResponse", "PackageType",
)  # fmt: skip
"""The fields that make two versions equal: Lambda publishes no new version "if the function's configuration and code
haven't changed" (PublishVersion). Other fields of GetFunctionConfiguration, such as the state, are not compared.
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A function's `$LATEST`. `version` is the newest published one if it has the same code and configuration."""

    name: str
    sha256: str
    zip_bytes: int
    version: str | None = None
    package: str = "Zip"
    has_live_alias: bool = False


class Lambdas:
    """Functions of one account and region. botocore's errors leave as they are: callers are inside `aws_errors`."""

    def __init__(self, client: Any) -> None:
        self._lambda = client

    def alias(self, function: str, name: str) -> AliasState | None:
        """The alias, or None if it or the function is not there."""
        with Ignoring("ResourceNotFoundException"):
            found = self._lambda.get_alias(FunctionName=function, Name=name)
            weights = (found.get("RoutingConfig") or {}).get("AdditionalVersionWeights", {})
            others = {str(version): float(share) for version, share in weights.items()}
            return AliasState(str(found["FunctionVersion"]), others)
        return None

    def point(self, function: str, name: str, version: str) -> None:
        """Move all of the alias's traffic to that version at once."""
        self._lambda.update_alias(
            FunctionName=function, Name=name, FunctionVersion=version, RoutingConfig={"AdditionalVersionWeights": {}}
        )

    def may_share(self, function: str, one: str, other: str) -> bool:
        """Whether an alias may split its traffic between these versions. Lambda requires the same role and the same
        dead-letter target (Lambda Developer Guide, "Create a routing configuration for a Lambda alias").
        """
        first, second = (self._configuration(function, version) or {} for version in (one, other))
        return _terms(first) == _terms(second)

    def code_sha256(self, function: str, version: str) -> str | None:
        """The SHA-256 (hex) of a version's code; None if there is no such version."""
        found = self._configuration(function, version)
        return base64.b64decode(found["CodeSha256"]).hex() if found is not None else None

    def wake(self, function: str, version: str) -> None:
        """Wait until the version can be invoked. An inactive one (State Inactive) is invoked once to wake it."""
        began = time.monotonic()
        while True:
            found = self._configuration(function, version)
            state = found.get("State", "Active") if found is not None else "Missing"
            if state == "Active":
                return
            waited_s, limit_s = time.monotonic() - began, KNOWN_WITHIN_S if state == "Missing" else READY_TIMEOUT_S
            if state == "Failed" or waited_s > limit_s:
                reason = (found or {}).get("StateReason", "there is no such version")
                raise CloudError(
                    f"{function}: version {version} cannot serve: {reason}",
                    hint="ship a new release: `hitless aws deploy`",
                )
            if state == "Inactive":
                self._wake_by_invoking(function, version)
            time.sleep(POLL_S)

    def may_be_invoked_by(self, service: str, function: str, qualifier: str) -> bool:
        """Whether the policy of that version or alias names the service (`apigateway.amazonaws.com`)."""
        with Ignoring("ResourceNotFoundException"):
            found = self._lambda.get_policy(FunctionName=function, Qualifier=qualifier)
            principals = [one.get("Principal") for one in json.loads(found["Policy"]).get("Statement", ())]
            return any(isinstance(one, dict) and one.get("Service") == service for one in principals)
        return False

    def allow_invoke(self, function: str, version: str, *, role_of: str) -> None:
        """Allow the role of the function's version `role_of` to invoke its `version`."""
        found = self._configuration(function, role_of)
        if found is None:
            raise CloudError(f"{function}: there is no version {role_of}", hint="repeat the command")
        with Ignoring("ResourceConflictException"):
            self._lambda.add_permission(
                FunctionName=function,
                Qualifier=version,
                StatementId=_shield_statement(version),
                Action="lambda:InvokeFunction",
                Principal=found["Role"],
            )

    def revoke_invoke(self, function: str, version: str) -> None:
        """Remove that permission, if it exists."""
        with Ignoring("ResourceNotFoundException"):
            self._lambda.remove_permission(
                FunctionName=function, Qualifier=version, StatementId=_shield_statement(version)
            )

    def warm(self, function: str, version: str, environments: int) -> Invocation:
        """Invoke the wrapper of that version that many times at once, so that as many environments have imported its
        handler. Returns the first invocation that failed, else the last.
        """
        event = {WARM: WARM_S if environments > 1 else 0}
        with ThreadPoolExecutor(max_workers=environments) as pool:
            given = list(pool.map(lambda _: self.invoke(function, version, event), range(environments)))
        return next((one for one in given if one.error), given[-1])

    def provision(self, function: str, version: str, environments: int) -> None:
        """Request provisioned environments for the version. Raises CloudError if the account has no room."""
        try:
            self._lambda.put_provisioned_concurrency_config(
                FunctionName=function, Qualifier=version, ProvisionedConcurrentExecutions=environments
            )
        except ClientError as error:
            if error_code(error) not in ("InvalidParameterValueException", "LimitExceededException"):
                raise
            raise CloudError(
                f"{function}: {environments} environments of version {version} cannot be provisioned: {error}",
                hint="`hitless aws plan` shows the account's concurrency; ask for more in Service Quotas",
            ) from error

    def await_provisioned(self, function: str, version: str) -> None:
        """Wait until the provisioned environments are ready. Raises CloudError if Lambda gives up."""
        deadline = time.monotonic() + PROVISION_TIMEOUT_S
        while True:
            found = self._lambda.get_provisioned_concurrency_config(FunctionName=function, Qualifier=version)
            if found["Status"] == "READY":
                return
            if found["Status"] == "FAILED" or time.monotonic() > deadline:
                why = found.get("StatusReason", f"not within {PROVISION_TIMEOUT_S / 60:.0f} minutes")
                raise CloudError(
                    f"{function}: version {version} is not provisioned: {why}", hint="repeat the command later"
                )
            time.sleep(POLL_S)

    def provisioned(self, function: str, version: str) -> int:
        """The number of provisioned environments requested for that version."""
        with Ignoring(*_NOT_PROVISIONED):
            found = self._lambda.get_provisioned_concurrency_config(FunctionName=function, Qualifier=version)
            return int(found["RequestedProvisionedConcurrentExecutions"])
        return 0

    def concurrency(self) -> tuple[int, int]:
        """The account's concurrency limit, and the part of it that is neither reserved nor provisioned."""
        found = self._lambda.get_account_settings()["AccountLimit"]
        return int(found["ConcurrentExecutions"]), int(found["UnreservedConcurrentExecutions"])

    def remove_provisioned(self, function: str, version: str) -> None:
        """Remove the version's provisioned concurrency, if it has any."""
        with Ignoring(*_NOT_PROVISIONED):
            self._lambda.delete_provisioned_concurrency_config(FunctionName=function, Qualifier=version)

    def invoke(self, function: str, version: str, event: Mapping[str, Any]) -> Invocation:
        """Invoke that version once, independent of the alias."""
        answer = self._lambda.invoke(FunctionName=function, Qualifier=version, Payload=json.dumps(event).encode())
        body = answer["Payload"].read()
        return Invocation(json.loads(body) if body else None, str(answer.get("FunctionError", "")))

    def running(self, function: str, *, alias: str) -> Running | None:
        """The function's `$LATEST`, or None if there is no such function. `alias` is the name of the live alias."""
        if (latest := self._configuration(function, LATEST)) is None:
            return None
        aliases = self._lambda.get_paginator("list_aliases").paginate(FunctionName=function)
        return Running(
            name=function,
            sha256=base64.b64decode(latest["CodeSha256"]).hex(),
            zip_bytes=int(latest.get("CodeSize", 0)),
            version=self._same_as(latest, function),
            package=str(latest.get("PackageType", "Zip")),
            has_live_alias=any(one["Name"] == alias for page in aliases for one in page["Aliases"]),
        )

    def _same_as(self, latest: dict[str, Any], function: str) -> str | None:
        """The newest version's number if it equals `$LATEST`. Both are read by GetFunctionConfiguration, because the
        list of versions leaves out some of the fields.
        """
        if not (numbers := self.versions(function)):
            return None
        newest = max(numbers, key=int)
        found = self._configuration(function, newest) or {}
        return newest if all(found.get(key) == latest.get(key) for key in _HELD) else None

    def versions(self, function: str) -> list[str]:
        """The numbers of the function's published versions."""
        pages = self._lambda.get_paginator("list_versions_by_function").paginate(FunctionName=function)
        return [one["Version"] for page in pages for one in page["Versions"] if one["Version"].isdecimal()]

    def delete_version(self, function: str, version: str) -> None:
        """Delete a version. Lambda keeps one that an alias names."""
        assert version.isdecimal(), "without a version the whole function would be deleted"
        with Ignoring("ResourceNotFoundException", "ResourceConflictException"):
            self._lambda.delete_function(FunctionName=function, Qualifier=version)

    def download(self, function: str, sha256: str, to: Path, *, version: str = LATEST) -> None:
        """Write the zip of this version to a file. Raises CloudError if its SHA-256 (hex) is not `sha256`."""
        location = self._lambda.get_function(FunctionName=function, Qualifier=version)["Code"]["Location"]
        with urllib.request.urlopen(location, timeout=DOWNLOAD_TIMEOUT_S) as response:
            found = save(response, to)
        if found != sha256:
            raise CloudError(
                f"{function}: the downloaded code has the SHA-256 {found}, not {sha256}",
                hint="another deployment is in progress: repeat the command when it has ended",
            )

    def _wake_by_invoking(self, function: str, version: str) -> None:
        with Ignoring("ResourceNotReadyException", "ResourceConflictException"):
            self._lambda.invoke(FunctionName=function, Qualifier=version, InvocationType="DryRun")
            self._lambda.invoke(FunctionName=function, Qualifier=version, Payload=b"{}")

    def _configuration(self, function: str, version: str) -> dict[str, Any] | None:
        with Ignoring("ResourceNotFoundException"):
            return dict(self._lambda.get_function_configuration(FunctionName=function, Qualifier=version))
        return None


def _terms(version: Mapping[str, Any]) -> tuple[Any, Any]:
    return version.get("Role"), version.get("DeadLetterConfig", {}).get("TargetArn")


def _shield_statement(version: str) -> str:
    return f"hitless-shield-{version}"


class Logs:
    """CloudWatch's log lines of functions."""

    def __init__(self, client: Any) -> None:
        self._logs = client

    def lines(self, group: str, *, since_ms: int, stream_part: str = "") -> Iterator[tuple[int, str, str]]:
        """(milliseconds, id, line) of the group's events from `since_ms` on, of streams whose name has that part."""
        with Ignoring("ResourceNotFoundException"):
            pages = self._logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=since_ms)
            for page in pages:
                for event in page["events"]:
                    if stream_part in event.get("logStreamName", ""):
                        yield int(event["timestamp"]), str(event.get("eventId", "")), str(event["message"]).rstrip("\n")


def _whole(value: float) -> float:
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded


POLICY = "hitless"
_WHAT = {"ServiceNamespace": "lambda", "ScalableDimension": "lambda:function:ProvisionedConcurrency"}


class Autoscaling:
    """Application Auto Scaling of provisioned concurrency, between two numbers, by how much of it is used.

    It belongs to one version (`function:NAME:VERSION`): two versions are scaled independently. botocore's errors leave
    as they are except for a denied call.
    """

    def __init__(self, client: Any) -> None:
        self._scaling = client

    def scale(self, function: str, version: str, *, least: int, most: int, target_percent: int) -> None:
        """Scale the version; fewer environments than `least` become `least`. Raises CloudError if it is denied."""
        what = {**_WHAT, "ResourceId": f"function:{function}:{version}"}
        try:
            self._scaling.register_scalable_target(**what, MinCapacity=least, MaxCapacity=most)
            self._scaling.put_scaling_policy(
                **what,
                PolicyName=POLICY,
                PolicyType="TargetTrackingScaling",
                TargetTrackingScalingPolicyConfiguration={
                    "TargetValue": target_percent / 100,
                    "PredefinedMetricSpecification": {
                        "PredefinedMetricType": "LambdaProvisionedConcurrencyUtilization"
                    },
                },
            )
        except ClientError as error:
            if not is_denied(error):
                raise
            raise CloudError(
                f"{function}: scaling its provisioned concurrency was denied: {error}",
                hint="update core with `hitless aws bootstrap`, or remove custom.hitless.provisioned",
            ) from error

    def stop_scaling(self, function: str, version: str) -> None:
        """Stop scaling and leave the number as it is. Removes the policies and their alarms."""
        with Ignoring("ObjectNotFoundException"):
            self._scaling.deregister_scalable_target(**_WHAT, ResourceId=f"function:{function}:{version}")

    def scaled(self, prefix: str) -> list[tuple[str, str]]:
        """(function, version) of all scaled versions of functions whose names have that prefix."""
        pages = self._scaling.get_paginator("describe_scalable_targets").paginate(**_WHAT)
        ids = [str(one["ResourceId"]).split(":") for page in pages for one in page["ScalableTargets"]]
        return [(one[1], one[2]) for one in ids if one[1].startswith(prefix)]
