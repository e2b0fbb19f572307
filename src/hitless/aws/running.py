"""Reads what AWS runs now: a function's code and configuration, and a REST API's stage.

For stacks that have no hitless releases yet, and for repairs.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.aws.session import Ignoring
from hitless.errors import CloudError

LATEST = "$LATEST"
DOWNLOAD_TIMEOUT_S = 60.0

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


class RunningCode:
    """Reads functions of one account and region. Raises botocore's errors: callers convert them by `aws_errors`."""

    def __init__(self, client: Any) -> None:
        self._lambda = client

    def running(self, function: str, *, alias: str) -> Running | None:
        """The function's `$LATEST`, or None if there is no such function. `alias` is the name of the live alias."""
        latest = None
        with Ignoring("ResourceNotFoundException"):
            latest = self._lambda.get_function_configuration(FunctionName=function)
        if latest is None:
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
        pages = self._lambda.get_paginator("list_versions_by_function").paginate(FunctionName=function)
        numbers = [int(one["Version"]) for page in pages for one in page["Versions"] if one["Version"].isdecimal()]
        if not numbers:
            return None
        newest = str(max(numbers))
        found = self._lambda.get_function_configuration(FunctionName=function, Qualifier=newest)
        return newest if all(found.get(key) == latest.get(key) for key in _HELD) else None

    def download(self, function: str, sha256: str, to: Path, *, version: str = LATEST) -> None:
        """Write the zip of this version to a file. Raises CloudError if its SHA-256 (hex) is not `sha256`."""
        location = self._lambda.get_function(FunctionName=function, Qualifier=version)["Code"]["Location"]
        with urllib.request.urlopen(location, timeout=DOWNLOAD_TIMEOUT_S) as response, to.open("wb") as file:
            shutil.copyfileobj(response, file)
        with to.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise CloudError(
                f"{function}: the downloaded code has the SHA-256 {found}, not {sha256}",
                hint="another deployment is in progress: repeat the command when it has ended",
            )


class ServedApi:
    """Reads the deployed stages of REST APIs and the domains mapped to them."""

    def __init__(self, client: Any) -> None:
        self._apigateway = client

    def stage(self, api: str, name: str) -> dict[str, Any] | None:
        """The stage as GetStage shows it, or None."""
        with Ignoring("NotFoundException"):
            found = dict(self._apigateway.get_stage(restApiId=api, stageName=name))
            found.pop("ResponseMetadata", None)
            return found
        return None

    def mappings(self, api: str, stage: str) -> list[tuple[str, str]]:
        """(domain, base path) of each custom domain that is mapped to the stage; `(none)` means the root."""
        found = []
        for page in self._apigateway.get_paginator("get_domain_names").paginate():
            for domain in (str(one["domainName"]) for one in page.get("items", ())):
                pages = self._apigateway.get_paginator("get_base_path_mappings").paginate(domainName=domain)
                held = [one for each in pages for one in each.get("items", ())]
                found += [
                    (domain, str(one.get("basePath") or "(none)"))
                    for one in held
                    if (one.get("restApiId"), one.get("stage")) == (api, stage)
                ]
        return found
