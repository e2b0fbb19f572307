"""HTTP APIs (API Gateway v2) and function URLs: turns requests into events of payload format 2.0 or 1.0, and results
into responses.

An HTTP API differs from a REST API in this: the path and its parameters are decoded in both formats, header names are
in lower case, the content type alone decides whether a body is text, a failed handler gives a 500, and in format 2.0 a
result without `statusCode` is used as the body. A function URL has format 2.0 with the differences in `_as_url_event`.
Sources: docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html; captures of the
real service for the path (hotsock/voker#8) and for the content types of text (ministackorg/ministack#766);
docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html and captures of function URLs (tests/conformance).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from hitless.worker.cors import CorsEventBuilder, allow_origin
from hitless.worker.environment import ACCOUNT_ID
from hitless.worker.event import (
    HOP_BY_HOP,
    ApiFlavour,
    Event,
    EventBuilder,
    HeaderNames,
    HeadView,
    Render,
    event_body,
    extended_id,
    grouped,
    split,
)
from hitless.worker.handler import marshalled
from hitless.worker.mapping import MappingEventBuilder
from hitless.worker.request import Request, header
from hitless.worker.response import MalformedResponse, render
from hitless.worker.spec import PoolSpec

STAGE: Final = "$default"
"""The stage to which Serverless Framework deploys an HTTP API."""
URL_PAYLOAD: Final = "url"
"""Stands for a function URL's events in a route (`hitless.service.event_sources`, which no worker imports)."""
_TEXT: Final = frozenset({"application/json", "application/javascript", "application/xml"})
_PLAIN: Final = "text/plain; charset=utf-8"


def event_builder(spec: PoolSpec) -> EventBuilder:
    """The event builder for one function: for HTTP API routes, for REST routes with non-proxy integrations or CORS, or
    for plain REST routes.

    For a function with HTTP API and REST routes, the HTTP API builder picks the kind for each request.
    """
    if any(route.payload for route in spec.routes):
        return HttpApiEventBuilder(spec)
    if any(route.mapped is not None for route in spec.routes):
        return MappingEventBuilder(spec)
    return CorsEventBuilder(spec) if any(route.cors for route in spec.routes) else EventBuilder(spec)


class HttpApiEventBuilder(MappingEventBuilder):
    """Builds the events of a function with HTTP API routes, including those of its REST routes if it has any."""

    def __init__(self, spec: PoolSpec) -> None:
        super().__init__(spec)
        self._flavours = {"1.0": HTTP_1, "2.0": HTTP_2, URL_PAYLOAD: URL}
        self._http_names = HeaderNames(HOP_BY_HOP)
        self._origin: str | None = None
        self._cors = next((route.cors for route in spec.routes if route.payload and route.cors), None)
        if self._cors is not None:
            self._flavours = {
                name: flavour._replace(render=partial(self._render_with_cors, flavour.render))
                for name, flavour in self._flavours.items()
            }

    def _render_with_cors(self, render: Render, result: Any, *, head_only: bool, extra: str) -> tuple[int, bytes]:
        """Render the result with the API's own CORS headers instead of the handler's."""
        assert self._cors is not None
        if isinstance(result, dict) and "statusCode" in result:
            for name in ("headers", "multiValueHeaders"):
                if isinstance(given := result.get(name), dict):
                    kept = {key: value for key, value in given.items() if not _is_cors(key)}
                    result = {**result, name: kept}
        if self._origin is not None:
            extra = allow_origin(self._cors, self._origin, self._cors.response) + extra
        return render(result, head_only=head_only, extra=extra)

    def build(self, request: Request, request_id: str, now_s: float) -> Event | None:
        """The event, or None if no route of the function matches. Sets `flavour` to that of the route."""
        self.flavour = HTTP_2
        self._preflight = self._find_preflight(request) if request.method == "OPTIONS" else None
        if self._preflight is not None:
            return None
        self._origin = header(request, b"origin") if self._cors is not None else None
        path, query = split(request.target)
        found = self._routes.match(request.method, path)
        if found is None:
            return None
        self.route, parameters = found
        route = self.route
        if not route.payload:
            return super().build(request, request_id, now_s)
        view = self._view(request, self._http_names)
        _, multi = self._headers(view, request_id, now_s)
        headers = {name.lower(): values for name, values in multi.items()}
        body, encoded = event_body(request.body, binary=not _is_text(headers.get("content-type", [""])[0]))
        common = {
            "pathParameters": {name: unquote(value) for name, value in parameters.items()} if parameters else None,
            "stageVariables": None,
            "body": body,
            "isBase64Encoded": encoded,
        }
        decoded = unquote(path)
        self.flavour = self._flavours[route.payload]
        if route.payload == "1.0":
            return {**self._event_1(view, decoded, query, headers, request_id, now_s), **common}
        cookie = headers.get("cookie")
        event = self._event_2(request, decoded, query, headers, request_id, now_s)
        if route.payload == URL_PAYLOAD:
            _as_url_event(event, path, cookie, request_id)
        return event | {name: value for name, value in common.items() if value is not None}

    def _event_2(
        self, request: Request, path: str, query: str, headers: dict[str, list[str]], request_id: str, now_s: float
    ) -> Event:
        cookies = [one for value in headers.pop("cookie", ()) for one in value.split("; ")]
        joined = {name: ",".join(values) for name, values in headers.items()}
        values: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            values[name] = f"{values[name]},{value}" if name in values else value
        host = joined.get("host", "")
        event: Event = {"version": "2.0", "routeKey": self.route.key, "rawPath": path, "rawQueryString": query}
        if cookies:
            event["cookies"] = cookies
        event["headers"] = joined
        if values:
            event["queryStringParameters"] = values
        event["requestContext"] = {
            "accountId": ACCOUNT_ID,
            "apiId": self._api_id,
            "domainName": host.partition(":")[0],
            "domainPrefix": host.partition(".")[0].partition(":")[0],
            "http": {
                "method": request.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": joined["x-forwarded-for"].rpartition(",")[2].strip(),
                "userAgent": joined.get("user-agent", ""),
            },
            "requestId": extended_id(request_id),
            "routeKey": self.route.key,
            "stage": STAGE,
            "time": self._second_text,
            "timeEpoch": int(now_s * 1000),
        }
        return event

    def _event_1(
        self, view: HeadView, decoded: str, query: str, headers: dict[str, list[str]], request_id: str, now_s: float
    ) -> Event:
        pairs = parse_qsl(query, keep_blank_values=True)
        route, path = self.route, view.base + decoded
        context = self._context(view, route.resource, path, request_id, now_s)
        del context["deploymentId"]
        resource = STAGE if route.key == STAGE else route.resource
        return {
            "version": "1.0",
            "resource": resource,
            "path": path,
            "httpMethod": context["httpMethod"],
            "headers": {name: values[-1] for name, values in headers.items()},
            "multiValueHeaders": headers,
            "queryStringParameters": dict(pairs) or None,
            "multiValueQueryStringParameters": grouped(pairs) or None,
            "requestContext": {
                **context,
                "requestId": extended_id(request_id),
                "resourcePath": resource,
                "stage": STAGE,
                "authorizer": {"claims": None, "scopes": None},
            },
        }


def _as_url_event(event: Event, path: str, cookie: list[str] | None, request_id: str) -> None:
    """Change an event of format 2.0 into a function URL's. The raw path stays encoded, and cookies are in the headers
    as well.
    """
    event["rawPath"] = path
    if cookie:
        event["headers"]["cookie"] = "; ".join(cookie)
    event["requestContext"].update(accountId="anonymous", requestId=request_id)


def _is_cors(name: Any) -> bool:
    return isinstance(name, str) and name.lower().startswith("access-control-")


def _is_text(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind in _TEXT or kind.startswith("text/")


def render_2(result: Any, *, head_only: bool, extra: str) -> tuple[int, bytes]:
    """The status and the complete HTTP response for a result in payload format 2.0. Raises MalformedResponse."""
    if not isinstance(result, dict) or "statusCode" not in result:
        body = result if isinstance(result, str) else marshalled(result)
        inferred = {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": body}
        return render(inferred, head_only=head_only, extra=extra)
    cookies, headers = result.get("cookies") or [], result.get("headers") or {}
    if not isinstance(headers, dict):
        raise MalformedResponse("headers must be an object")
    if not any(str(name).lower() == "content-type" for name in headers):
        headers = {**headers, "content-type": _PLAIN}
    known = {name: result[name] for name in ("statusCode", "body", "isBase64Encoded") if name in result}
    multi = {"set-cookie": cookies} if cookies else None
    return render({**known, "headers": headers, "multiValueHeaders": multi}, head_only=head_only, extra=extra)


def render_url(result: Any, *, head_only: bool, extra: str) -> tuple[int, bytes]:
    """Like `render_2`, for a function URL: its bodies are JSON unless the handler says otherwise."""
    if not isinstance(result, dict) or "statusCode" not in result:
        result = {
            "statusCode": 200,
            "body": result if isinstance(result, str) else marshalled(result, compact=True),
        }
    headers = result.get("headers") or {}
    if isinstance(headers, dict) and not any(str(name).lower() == "content-type" for name in headers):
        result = {**result, "headers": {**headers, "content-type": "application/json"}}
    return render_2(result, head_only=head_only, extra=extra)


def render_1(result: Any, *, head_only: bool, extra: str) -> tuple[int, bytes]:
    """Like `render_2`, for payload format 1.0, in which a result without `statusCode` is malformed."""
    if isinstance(result, dict) and "statusCode" not in result:
        raise MalformedResponse("the handler returned no statusCode")
    return render(result, head_only=head_only, extra=extra)


HTTP_2: Final = ApiFlavour(
    id_header="apigw-requestid",
    extended_ids=True,
    trace_header="x-amzn-trace-id",
    unknown_status=404,
    unknown_body='{"message":"Not Found"}',
    failed_status=500,
    failed_body='{"message":"Internal Server Error"}',
    failed_lines="content-type: application/json\r\n",
    render=render_2,
)
HTTP_1: Final = HTTP_2._replace(render=render_1)
URL: Final = HTTP_2._replace(
    id_header="x-amzn-requestid",
    extended_ids=False,
    failed_status=502,
    failed_body="Internal Server Error",
    render=render_url,
)
