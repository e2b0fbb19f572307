"""API Gateway's checks before it invokes a function: the caller's API key, and a Lambda authorizer.

* A method that wants a key takes one of a usage plan that names the API's stage, in `x-api-key`; else 403
  (docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-api-usage-plans.html). Keys and plans are as they
  are now; that a method wants one is what the deployment froze.
* An authorizer of type REQUEST is called with its identity source, one header; without that header 401, and what it
  said counts for `authorizerResultTtlInSeconds` (…/apigateway-use-lambda-authorizer.html). It is called by its alias,
  which has to permit it, as any integration.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tests.aws.front.backend import Backend

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Authorizer:
    """A REQUEST authorizer as a deployment froze it."""

    identifier: str
    function: str
    qualifier: str
    header: str
    ttl_s: float

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Authorizer:
        """From GetAuthorizers."""
        function, qualifier = lambda_of(said["authorizerUri"])
        header = said["identitySource"].removeprefix("method.request.header.")
        return cls(said["id"], function, qualifier, header, float(said["authorizerResultTtlInSeconds"]))


def lambda_of(uri: str) -> tuple[str, str]:
    """The function and qualifier of an integration's or authorizer's URI; an empty function if the URI names none."""
    reference = uri.partition(":function:")[2].partition("/")[0].split(":")
    return reference[0], reference[1] if len(reference) > 1 else "$LATEST"


class Admission:
    """`ask` invokes an alias: (region, function, qualifier, event) → its response, or None if it failed."""

    def __init__(self, backend: Backend, ask: Callable[[str, str, str, Event], Awaitable[Any]]) -> None:
        self._backend, self._ask = backend, ask
        self._said: dict[tuple[str, str], tuple[float, bool]] = {}

    def forget(self) -> None:
        self._said.clear()

    async def refusal(
        self, request: Request, region: str, *, key_required: bool, authorizer: Authorizer | None
    ) -> tuple[int, str] | None:
        """Status and message if the caller is refused, else None."""
        if authorizer is not None and (refused := await self._unauthorized(request, region, authorizer)):
            return refused
        if key_required and request.headers.get("x-api-key") not in await self._keys(request, region):
            return 403, "Forbidden"
        return None

    async def _unauthorized(self, request: Request, region: str, authorizer: Authorizer) -> tuple[int, str] | None:
        shown = request.headers.get(authorizer.header)
        if not shown:
            return 401, "Unauthorized"
        until_s, allowed = self._said.get((authorizer.identifier, shown), (0.0, False))
        if time.monotonic() >= until_s:
            given = request.path_params
            arn = f"arn:aws:execute-api:{region}:000000000000:{given['api']}/{given['stage']}/{request.method}/"
            event = {"type": "REQUEST", "methodArn": arn, "headers": {authorizer.header: shown}}
            answer = await self._ask(region, authorizer.function, authorizer.qualifier, event)
            if answer is None:
                return 500, "Internal server error"
            statements = answer["policyDocument"]["Statement"]
            allowed = any(one["Effect"] == "Allow" for one in statements)
            self._said[authorizer.identifier, shown] = (time.monotonic() + authorizer.ttl_s, allowed)
        return None if allowed else (403, "User is not authorized to access this resource")

    async def _keys(self, request: Request, region: str) -> set[str]:
        """The values of all keys that are valid for this stage."""
        here = {"apiId": request.path_params["api"], "stage": request.path_params["stage"]}
        found: set[str] = set()
        for plan in await self._items("/usageplans", region):
            stages = [{key: one.get(key) for key in here} for one in plan.get("apiStages") or ()]
            if here in stages:
                keys = await self._items(f"/usageplans/{plan['id']}/keys", region)
                found |= {str(one["value"]) for one in keys}
        return found

    async def _items(self, path: str, region: str) -> list[dict[str, Any]]:
        answer = await self._backend.rest("GET", path, service="apigateway", region=region)
        return list(answer.json().get("item") or ()) if answer.status_code == 200 else []


def refused(given: tuple[int, str]) -> Response:
    """A refusal in API Gateway's words."""
    status, message = given
    return Response(f'{{"message": "{message}"}}', status, media_type="application/json")
