"""Smoke requests on a version by itself, before any client reaches it: API Gateway's event, straight to Lambda."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from hitless.aws.lambdas import Invocation
from hitless.aws.layer.hitless_wrapper import QUIET
from hitless.errors import CandidateFailedError
from hitless.service.model import Function, Route, SmokeRequest
from hitless.service.routes import compile_route, order_routes, parameters

SHOWN_BODY_LETTERS = 300


class Invoker(Protocol):
    """Invokes one version of a function: aws.lambdas.Lambdas."""

    def invoke(self, function: str, version: str, event: Mapping[str, Any]) -> Invocation: ...


def send_smoke_requests(
    requests: Sequence[SmokeRequest], functions: Sequence[Function], versions: Mapping[str, tuple[str, str]],
    invoker: Invoker, *, stage: str,
) -> None:  # fmt: skip
    """Send each to the version of the function that its route names; `versions`: function → (Lambda's name, version).

    CandidateFailedError at the first answer that is not the expected one.
    """
    for request in requests:
        parts = urlsplit(request.path)
        found = find_route(functions, request.method, parts.path)
        if found is None:
            raise CandidateFailedError(
                f"smoke request {request.method} {request.path}: no route of the release answers it",
                hint="mend the route, or the smoke request under custom.hitless",
            )
        function, route = found
        name, version = versions[function.name]
        invocation = invoker.invoke(name, version, make_event(request, route, stage))
        status, shown = _status(invocation)
        if status != request.status:
            raise CandidateFailedError(
                f"smoke request {request.method} {request.path}: {status} instead of {request.status}: {shown}",
                hint=f"see `hitless aws logs {function.name}`",
            )


def find_route(functions: Sequence[Function], method: str, path: str) -> tuple[Function, Route] | None:
    """The function and its route that answer the request, by API Gateway's precedence."""
    owner = {route: function for function in functions for route in function.routes}
    for route in order_routes(owner):
        if route.method in (method, "ANY") and re.fullmatch(compile_route(route.path), path):
            return owner[route], route
    return None


def make_event(request: SmokeRequest, route: Route, stage: str) -> dict[str, Any]:
    """The event of API Gateway's REST proxy integration (payload format 1.0) for the request."""
    parts = urlsplit(request.path)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    multi: dict[str, list[str]] = {}
    for name, value in pairs:
        multi.setdefault(name, []).append(value)
    headers = {"User-Agent": "hitless-smoke", "Host": "localhost", **dict(request.headers)}
    match = re.fullmatch(compile_route(route.path), parts.path)
    values = [unquote(value) for value in match.groups()] if match else []
    request_id = str(uuid.uuid4())
    return {
        "resource": route.path,
        "path": unquote(parts.path),
        "httpMethod": request.method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": dict(pairs) or None,
        "multiValueQueryStringParameters": multi or None,
        "pathParameters": dict(zip(parameters(route.path), values, strict=False)) or None,
        "stageVariables": {QUIET: "1"},
        "requestContext": {
            "resourcePath": route.path,
            "httpMethod": request.method,
            "path": f"/{stage}{unquote(parts.path)}",
            "protocol": "HTTP/1.1",
            "stage": stage,
            "requestId": request_id,
            "requestTimeEpoch": 0,
            "identity": {"sourceIp": "127.0.0.1", "userAgent": "hitless-smoke"},
            "apiId": "hitless-smoke",
        },
        "body": request.body,
        "isBase64Encoded": False,
    }


def _status(invocation: Invocation) -> tuple[int | str, str]:
    answer = invocation.payload
    if invocation.error or not isinstance(answer, dict) or not isinstance(answer.get("statusCode"), int | str):
        return "no answer", str(answer)[:SHOWN_BODY_LETTERS]
    body = str(answer.get("body") or "")
    if answer.get("isBase64Encoded"):
        body = base64.b64decode(body).decode("utf-8", "replace")
    status = answer["statusCode"]
    return int(status) if str(status).isdecimal() else str(status), body[:SHOWN_BODY_LETTERS]
