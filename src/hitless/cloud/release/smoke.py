"""Sends smoke requests to versions of Lambda functions, as API Gateway's events, before any client reaches them."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from hitless.aws.lambdas import Invocation
from hitless.aws.layer.hitless_wrapper import QUIET
from hitless.release.smoke import SmokeResponse, send_smoke_requests
from hitless.service.model import Function, Route, SmokeRequest
from hitless.service.routes import compile_route, parameters


class Invoker(Protocol):
    """Invokes one version of a function: aws.lambdas.Lambdas."""

    def invoke(self, function: str, version: str, event: Mapping[str, Any]) -> Invocation: ...


def smoke_versions(
    requests: Sequence[SmokeRequest], functions: Sequence[Function], versions: Mapping[str, tuple[str, str]],
    invoker: Invoker, *, stage: str,
) -> None:  # fmt: skip
    """Send the requests to versions (`versions`: function → Lambda's name, version). Raises CandidateFailedError at the
    first unexpected response.
    """

    def send(request: SmokeRequest, function: Function, route: Route) -> SmokeResponse:
        return _response(invoker.invoke(*versions[function.name], make_event(request, route, stage)))

    send_smoke_requests(requests, functions, send, logs="hitless aws logs")


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


def _response(invocation: Invocation) -> SmokeResponse:
    answer = invocation.payload
    if invocation.error or not isinstance(answer, dict) or not isinstance(answer.get("statusCode"), int | str):
        return SmokeResponse("no response", str(answer))
    body = str(answer.get("body") or "")
    if answer.get("isBase64Encoded"):
        body = base64.b64decode(body).decode("utf-8", "replace")
    status = answer["statusCode"]
    return SmokeResponse(int(status) if str(status).isdecimal() else str(status), body)
