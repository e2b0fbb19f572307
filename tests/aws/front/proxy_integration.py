"""API Gateway's Lambda proxy integration, payload format 1.0: turns a request into an event and a result into a
response.

Source: docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html, "Input format" and
"Output format". What that page leaves open is as simple as can be; where the engine does otherwise there, the table in
docs/differences-from-aws.md says so.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from tests.aws.front.calls import ACCOUNT

_KEYS: Final = frozenset({"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"})
_NOBODY: Final = dict.fromkeys(
    (
        *("accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType"),
        *("cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "user", "userArn"),
    )
)


def message(status: int, text: str, kind: str = "") -> Response:
    """A response of API Gateway's own."""
    headers = {"x-amzn-requestid": str(uuid.uuid4())} | ({"x-amzn-errortype": kind} if kind else {})
    return Response(json.dumps({"message": text}), status, media_type="application/json", headers=headers)


def proxy_response(content: bytes) -> Response:
    """A handler's result as an HTTP response; a malformed result is a 502."""
    document = json.loads(content)
    if not _is_well_formed(document):
        return message(502, "Internal server error", "InternalServerErrorException")
    try:
        status = int(document.get("statusCode", 200))
    except ValueError:
        return message(502, "Internal server error", "InternalServerErrorException")
    if not 100 <= status <= 599:
        return message(502, "Internal server error", "InternalServerErrorException")
    body = document.get("body") or ""
    data = base64.b64decode(body) if document.get("isBase64Encoded") else body.encode()
    answer = Response(data, status)
    answer.raw_headers[:] = [] if status in (204, 304) else [(b"content-length", str(len(data)).encode())]
    headers = _merged(document)
    if not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/json"))
    answer.raw_headers += [(name.encode(), value.encode()) for name, value in headers if name != "content-length"]
    answer.raw_headers.append((b"x-amzn-requestid", str(uuid.uuid4()).encode()))
    return answer


def _is_well_formed(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and document.keys() <= _KEYS
        and all(isinstance(document.get(key) or {}, dict) for key in ("headers", "multiValueHeaders"))
        and isinstance(document.get("body") or "", str)
    )


def _merged(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`headers` and `multiValueHeaders` in one list; a pair in both is listed once."""
    merged = [
        (name.lower(), value if isinstance(value, str) else json.dumps(value))
        for name, values in (document.get("multiValueHeaders") or {}).items()
        for value in values or []
    ]
    for name, value in (document.get("headers") or {}).items():
        pair = (name.lower(), value if isinstance(value, str) else json.dumps(value))
        if pair not in merged:
            merged.append(pair)
    return merged


async def event_of(
    request: Request, api: str, stage: str, path: str, resource: str, path_parameters: Mapping[str, str]
) -> dict[str, Any]:
    """The event; `path` is as sent, below the stage."""
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(request.scope["query_string"].decode(), keep_blank_values=True):
        query.setdefault(name, []).append(value)
    headers = _headers(request)
    body = await request.body()
    identifier, now_s = str(uuid.uuid4()), time.time()
    host = request.url.hostname or ""
    return {
        "resource": resource,
        "path": path,
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": dict(path_parameters) or None,
        "stageVariables": None,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": api,
            "stage": stage,
            "resourcePath": resource,
            "httpMethod": request.method,
            "path": f"/{stage}{path}",
            "protocol": "HTTP/1.1",
            "domainName": host,
            "domainPrefix": host.partition(".")[0],
            "requestId": identifier,
            "extendedRequestId": base64.b64encode(identifier.encode()[:11]).decode(),
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now_s)),
            "requestTimeEpoch": int(now_s * 1000),
            "identity": _NOBODY | {"sourceIp": "127.0.0.1", "userAgent": request.headers.get("user-agent")},
        },
        "body": body.decode("utf-8", "replace") if body else None,
        "isBase64Encoded": False,
    }


def _headers(request: Request) -> dict[str, list[str]]:
    """The client's headers, with those that API Gateway adds or rewrites."""
    cased = ("host", "user-agent", "authorization", "x-amzn-trace-id")
    headers: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        if not name.startswith("x-forwarded-"):
            headers.setdefault(name.title() if name in cased else name, []).append(value)
    chain = [*request.headers.getlist("x-forwarded-for"), "127.0.0.1"]
    headers.setdefault("X-Amzn-Trace-Id", [f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]}"])
    added = {"For": ", ".join(chain), "Port": str(request.url.port), "Proto": "http"}
    return headers | {f"X-Forwarded-{name}": [value] for name, value in added.items()}
