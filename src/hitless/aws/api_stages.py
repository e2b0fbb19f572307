"""An API's stage: the Deployment that it serves, its variables, and the domains that lead to it.

Each event of the proxy integration carries the variables under `stageVariables`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from hitless.aws.session import Ignoring

NO_PATH = "(none)"
"""API Gateway's name for the mapping of the whole domain."""


@dataclass(frozen=True, slots=True)
class ApiStage:
    """A stage of a REST API, by the API's id."""

    api: str
    name: str


class ApiStages:
    """Stages of REST APIs, and their domains. botocore's errors leave as they are: callers are inside `aws_errors`."""

    def __init__(self, client: Any) -> None:
        self._apigateway = client

    def read(self, stage: ApiStage) -> dict[str, Any] | None:
        """The stage as GetStage shows it, or None."""
        with Ignoring("NotFoundException"):
            return dict(self._apigateway.get_stage(restApiId=stage.api, stageName=stage.name))
        return None

    def url(self, stage: ApiStage) -> str | None:
        """The stage's own URL; None on an emulator, which does not serve at AWS's addresses."""
        service, _, domain = (urlsplit(self._apigateway.meta.endpoint_url).hostname or "").partition(".")
        return f"https://{stage.api}.execute-api.{domain}/{stage.name}" if service == "apigateway" else None

    def variables(self, stage: ApiStage) -> dict[str, str]:
        found = self._apigateway.get_stage(restApiId=stage.api, stageName=stage.name)
        return dict(found.get("variables") or {})

    def deployment(self, stage: ApiStage) -> str | None:
        """The id of the Deployment that the stage serves; None if there is no such stage."""
        found = self.read(stage)
        return str(found["deploymentId"]) if found is not None else None

    def serve(self, stage: ApiStage, deployment: str) -> None:
        """Have the stage serve that Deployment, at once."""
        self._patch(stage, [{"op": "replace", "path": "/deploymentId", "value": deployment}])

    def set(self, stage: ApiStage, variables: Mapping[str, str]) -> None:
        """Add the variables to those that the stage has."""
        self._patch(
            stage, [{"op": "replace", "path": f"/variables/{name}", "value": v} for name, v in variables.items()]
        )

    def drop(self, stage: ApiStage, names: Iterable[str]) -> None:
        """Remove these variables. Does nothing if another process has removed them."""
        gone = list(names)
        try:
            self._patch(stage, [{"op": "remove", "path": f"/variables/{name}"} for name in gone])
        except ClientError:
            if set(gone) & self.variables(stage).keys():
                raise

    def _patch(self, stage: ApiStage, operations: list[dict[str, str]]) -> None:
        self._apigateway.update_stage(restApiId=stage.api, stageName=stage.name, patchOperations=operations)

    def mapping(self, domain: str, path: str) -> ApiStage | None:
        """Where it leads; None if there is no such mapping, or no such domain."""
        with Ignoring("NotFoundException"):
            found = self._apigateway.get_base_path_mapping(domainName=domain, basePath=path)
            return ApiStage(str(found["restApiId"]), str(found.get("stage", "")))
        return None

    def map(self, domain: str, path: str, stage: ApiStage, *, there: bool) -> None:
        """Map the path to that stage. An existing mapping (`there`) is changed in place: a gap would cause 403s."""
        if not there:
            given = {} if path == NO_PATH else {"basePath": path}
            self._apigateway.create_base_path_mapping(domainName=domain, restApiId=stage.api, stage=stage.name, **given)
            return
        self._apigateway.update_base_path_mapping(
            domainName=domain,
            basePath=path,
            patchOperations=[
                {"op": "replace", "path": "/restapiId", "value": stage.api},
                {"op": "replace", "path": "/stage", "value": stage.name},
            ],
        )

    def mappings(self, stage: ApiStage) -> list[tuple[str, str]]:
        """(domain, base path) of each custom domain that is mapped to the stage."""
        found = []
        for page in self._apigateway.get_paginator("get_domain_names").paginate():
            for domain in (str(one["domainName"]) for one in page.get("items", ())):
                pages = self._apigateway.get_paginator("get_base_path_mappings").paginate(domainName=domain)
                held = [one for each in pages for one in each.get("items", ())]
                found += [
                    (domain, str(one.get("basePath") or NO_PATH))
                    for one in held
                    if (one.get("restApiId"), one.get("stage")) == (stage.api, stage.name)
                ]
        return found
