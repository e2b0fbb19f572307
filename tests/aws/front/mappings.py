"""UpdateBasePathMapping, which ministack does not have: its CreateBasePathMapping overwrites an existing mapping."""

from __future__ import annotations

import json
from urllib.parse import quote, unquote

from starlette.responses import Response

from tests.aws.front.backend import Backend
from tests.aws.front.calls import Request

_FIELDS = {"/restapiId": "restApiId", "/stage": "stage"}
_NOT_FOUND = {"content-type": "application/json", "x-amzn-errortype": "NotFoundException"}


async def update_mapping(backend: Backend, request: Request) -> Response:
    """Applies the patch to the mapping in one step; 404 if there is no mapping (API_UpdateBasePathMapping)."""
    region = request.scope[1] if request.scope else "us-east-1"
    collection, _, path = request.path.rpartition("/")
    found = await backend.rest("GET", request.path, service="apigateway", region=region)
    if found.status_code != 200:
        return Response('{"message": "Invalid base path mapping identifier specified"}', 404, headers=_NOT_FOUND)
    patch = json.loads(request.body)["patchOperations"]
    changed = {_FIELDS[one["path"]]: one["value"] for one in patch if one["op"] == "replace"}
    whole = found.json() | changed
    kept = {key: whole[key] for key in ("restApiId", "stage")} | {"basePath": unquote(path)}
    answer = await backend.rest(
        "POST", quote(unquote(collection)), service="apigateway", region=region, content=json.dumps(kept).encode()
    )
    return Response(answer.content, 200, media_type="application/json")
