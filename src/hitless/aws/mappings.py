"""Where a custom domain's base path leads: to which stage of which REST API."""

from __future__ import annotations

from typing import Any

from hitless.aws.api_stages import ApiStage
from hitless.aws.session import Ignoring

NO_PATH = "(none)"
"""API Gateway's word for a mapping of the whole domain."""


class Mappings:
    """Base path mappings. botocore's errors leave as they are: callers are inside `aws_errors`."""

    def __init__(self, client: Any) -> None:
        self._apigateway = client

    def get(self, domain: str, path: str) -> ApiStage | None:
        """Where it leads; None where there is no such mapping, or no such domain."""
        with Ignoring("NotFoundException"):
            found = self._apigateway.get_base_path_mapping(domainName=domain, basePath=path)
            return ApiStage(str(found["restApiId"]), str(found.get("stage", "")))
        return None

    def put(self, domain: str, path: str, stage: ApiStage, *, there: bool) -> None:
        """Have it lead to that stage. One that is `there` is changed in place: deleting it first would answer 403."""
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
