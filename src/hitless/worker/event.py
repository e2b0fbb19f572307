"""Turns an HTTP request into an event of API Gateway's REST proxy integration (payload format 1.0).

Header names: over HTTP/2, API Gateway lower-cases them, except for a few that it writes itself (see _CASED). Over
HTTP/1.1 it probably keeps the client's case. The gateway in front of the workers has lost that case, which is one of
the documented differences to AWS. `x-hl-*` are the gateway's own headers and never reach a handler.

Routes are matched on the path as sent, so an encoded slash divides nothing, and `path` and the path parameters keep
their percent-encoding. A trailing slash stays in `path` only.
"""

from __future__ import annotations

import base64
import re
import time
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from hitless.worker.binary import BinaryMediaTypes, render_text
from hitless.worker.environment import ACCOUNT_ID
from hitless.worker.handler import HandlerFailure
from hitless.worker.request import Request
from hitless.worker.response import INTERNAL_ERROR, http_response, render
from hitless.worker.spec import PoolSpec, RouteSpec

Event = dict[str, Any]

_CASED: Final = {
    name.lower().encode(): name
    for name in (
        "Host",
        "User-Agent",
        "Authorization",
        "X-Forwarded-For",
        "X-Forwarded-Port",
        "X-Forwarded-Proto",
        "X-Amzn-Trace-Id",
    )
}
HOP_BY_HOP: Final = frozenset(
    {b"connection", b"expect", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_DROPPED: Final = HOP_BY_HOP | {b"content-md5", b"max-forwards", b"proxy-authenticate", b"server", b"www-authenticate"}
"""Request headers that a REST API does not pass on (AWS's table of dropped and remapped headers)."""
_INTERNAL: Final = b"x-hl-"
_TRACE: Final = "X-Amzn-Trace-Id"
_MOST_NAMES: Final = 1000
_PARAMETER: Final = re.compile(r"\{([^{}+]+)\+?\}")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


Render = Callable[..., tuple[int, bytes]]


class ApiFlavour(NamedTuple):
    """The differences between kinds of API: header names, their own responses, the meaning of a result.

    `extended_ids`: its request ids have API Gateway's own form. `fail`: status, body and header lines for a handler's
    failure, if they depend on it.
    """

    id_header: str
    extended_ids: bool
    trace_header: str
    unknown_status: int
    unknown_body: str
    failed_status: int
    failed_body: str
    failed_lines: str
    """The other header lines of a failure."""
    render: Render
    fail: Callable[[HandlerFailure], tuple[int, str, str]] | None = None


REST: Final = ApiFlavour(
    id_header="x-amzn-requestid",
    extended_ids=False,
    trace_header="X-Amzn-Trace-Id",
    unknown_status=403,
    unknown_body='{"message": "Missing Authentication Token"}',
    failed_status=502,
    failed_body=INTERNAL_ERROR,
    failed_lines="content-type: application/json\r\nx-amzn-errortype: InternalServerErrorException\r\n",
    render=render,
)

_TEXT_REST: Final = REST._replace(render=render_text)


class RouteTable:
    """Finds the route of a request. Routes come most specific first, as the service's model orders them."""

    def __init__(self, routes: Sequence[RouteSpec]) -> None:
        self._literal: dict[tuple[str, str], RouteSpec] = {}
        self._patterns: list[tuple[str, re.Pattern[str], RouteSpec, list[str]]] = []
        for route in routes:
            if "{" in route.resource:
                pattern = re.compile(route.regex if route.payload else _without_trailing_slash(route.regex))
                names = _PARAMETER.findall(route.resource) if pattern.groups else []  # the default route has none
                self._patterns.append((route.method, pattern, route, names))
            else:
                self._literal.setdefault((route.method, route.resource), route)

    def match(self, method: str, path: str) -> tuple[RouteSpec, dict[str, str] | None] | None:
        """Route and path parameters as sent (None if it has none); None without such a route."""
        found = self._match(method, path)
        if found is None and path.endswith("/") and len(path) > 1:
            found = self._match(method, path.rstrip("/") or "/")
            return None if found is not None and found[0].payload else found  # to an HTTP API it is another path
        return found

    def _match(self, method: str, path: str) -> tuple[RouteSpec, dict[str, str] | None] | None:
        literal = self._literal.get((method, path)) or self._literal.get(("ANY", path))
        if literal is not None:
            return literal, None
        for route_method, pattern, route, names in self._patterns:
            if route_method in (method, "ANY") and (match := pattern.fullmatch(path)):
                # Paired in order, because {zone-id} is not a valid group name in a regular expression.
                return route, dict(zip(names, match.groups(), strict=True))
        return None


class HeaderNames(dict[bytes, str | None]):
    """Header name as received → the event's name for it, or None if the handler does not get the header."""

    def __init__(self, dropped: frozenset[bytes]) -> None:
        super().__init__()
        self._dropped = dropped

    def __missing__(self, raw: bytes) -> str | None:
        lower = raw.lower()
        hidden = lower.startswith(_INTERNAL) or lower in self._dropped
        name = None if hidden else _CASED.get(lower) or lower.decode("latin-1")
        if len(self) < _MOST_NAMES:
            self[raw] = name
        return name


class HeadView:
    """The parts of an event that depend on a request's head only. If it is shared, events get copies."""

    def __init__(self, names: HeaderNames, single: dict[str, str], multi: dict[str, list[str]], shared: bool) -> None:
        self.names = names
        self.shared = shared
        self.single, self.multi = single, multi
        self.lists = list(multi.items()) if shared else []
        self.traced = _TRACE in single
        if not self.traced:
            single[_TRACE], multi[_TRACE] = "", []
        self.context: dict[str, Any] = {}
        self.identity: dict[str, Any] = {}
        self.base = self.sent = ""


class EventBuilder:
    """Builds the events of one function. Each event is a new object, because a handler may change it."""

    def __init__(self, spec: PoolSpec) -> None:
        self.flavour = REST
        self.route: RouteSpec  # of the last event
        self._stage = spec.stage
        self._api_id = f"{spec.service}-{spec.stage}"
        self._region = spec.region
        self._routes = RouteTable([route for route in spec.routes if route.cors is None])
        self._names = HeaderNames(_DROPPED)
        self._binary = BinaryMediaTypes(spec.binary_media_types) if spec.binary_media_types else None
        self._blank = _keys(
            "resource path httpMethod headers multiValueHeaders queryStringParameters multiValueQueryStringParameters",
            "pathParameters stageVariables requestContext body isBase64Encoded",
        )
        self._blank_context = _keys(
            "resourceId resourcePath httpMethod extendedRequestId requestTime path accountId protocol stage",
            "domainPrefix requestTimeEpoch requestId identity domainName deploymentId apiId",
        ) | {
            "accountId": ACCOUNT_ID,
            "protocol": "HTTP/1.1",
            "stage": spec.stage,
            "deploymentId": str(spec.release),
            "apiId": self._api_id,
        }
        self._blank_identity = _keys(
            "cognitoIdentityPoolId accountId cognitoIdentityId caller sourceIp principalOrgId accessKey",
            "cognitoAuthenticationType cognitoAuthenticationProvider userArn userAgent user",
        )
        self._second = -1
        self._second_text = self._second_hex = ""

    def build(self, request: Request, request_id: str, now_s: float) -> Event | None:
        """The event, or None if no route of the function matches. `now_s` is wall time."""
        raw_path, query = split(request.target)
        found = self._routes.match(request.method, raw_path)
        if found is None:
            return None
        self.route, parameters = found
        resource = self.route.resource
        view = self._view(request, self._names)
        single, multi = self._headers(view, request_id, now_s)
        pairs = parse_qsl(query, keep_blank_values=True) if query else []
        if self._binary is None:
            body, encoded = event_body(request.body)
        else:
            body, encoded = self._binary_body(request, self._binary)
        path = view.base + raw_path
        event = self._blank.copy()
        event["resource"], event["path"], event["httpMethod"] = resource, path, request.method
        event["headers"], event["multiValueHeaders"] = single, multi
        if pairs:
            event["queryStringParameters"], event["multiValueQueryStringParameters"] = dict(pairs), grouped(pairs)
        if parameters:
            event["pathParameters"] = parameters
        event["requestContext"] = self._context(view, resource, path, request_id, now_s)
        event["body"], event["isBase64Encoded"] = body, encoded
        return event

    def _binary_body(self, request: Request, types: BinaryMediaTypes) -> tuple[str | None, bool]:
        self.flavour = REST if types.accepted(request) else _TEXT_REST
        return event_body(request.body, binary=types.takes(request))

    def respond(self, request: Request, extra: str) -> bytes:
        """The response to a request that became no event; `extra`: the worker's header lines."""
        api, lines = self.flavour, "content-type: application/json\r\n" + extra
        return http_response(api.unknown_status, api.unknown_body.encode(), lines, head_only=request.method == "HEAD")

    def _view(self, request: Request, names: HeaderNames) -> HeadView:
        """The request's head as the builder shows it, from earlier requests with this head if there were any."""
        head = request.head
        if head is not None:
            view = head.view
            if isinstance(view, HeadView) and view.names is names:
                return view
        single: dict[str, str] = {}
        multi: dict[str, list[str]] = {}
        for raw, raw_value in request.headers:
            name = names[raw]
            if name is None:
                continue
            value = raw_value.decode("latin-1")
            if name in multi:
                multi[name].append(value)
            else:
                multi[name] = [value]
            single[name] = value
        self._forwarded(request, single, multi)
        view = HeadView(names, single, multi, head is not None)
        view.base = base_path(request)
        view.sent = request.internal.get(b"x-hl-path", b"").decode("latin-1")
        host = single.get("Host", "")
        context, identity = self._blank_context.copy(), self._blank_identity.copy()
        context["httpMethod"], context["domainName"] = request.method, host.partition(":")[0]
        context["domainPrefix"] = host.partition(".")[0].partition(":")[0]
        identity["sourceIp"] = single["X-Forwarded-For"].rpartition(",")[2].strip()
        identity["userAgent"] = single.get("User-Agent")
        view.context, view.identity = context, identity
        if head is not None:
            head.view = view
        return view

    def _headers(self, view: HeadView, request_id: str, now_s: float) -> tuple[dict[str, str], dict[str, list[str]]]:
        self._renew_second(int(now_s))
        single, multi = view.single, view.multi
        if view.shared:
            single, multi = single.copy(), multi.copy()
            for name, values in view.lists:
                multi[name] = values.copy()
        if not view.traced:
            trace = trace_id(request_id, self._second_hex)
            single[_TRACE], multi[_TRACE] = trace, [trace]
        return single, multi

    @staticmethod
    def _forwarded(request: Request, single: dict[str, str], multi: dict[str, list[str]]) -> None:
        chain = ", ".join(multi.get("X-Forwarded-For", ())) or "127.0.0.1"
        gateway = request.internal
        port = gateway.get(b"x-hl-port", b"").decode("latin-1") or single.get("X-Forwarded-Port", "80")
        scheme = gateway.get(b"x-hl-proto", b"").decode("latin-1")
        if not scheme:  # a gateway that sends only its port uses HTTP, whatever the client claims
            scheme = "http" if b"x-hl-port" in gateway else single.get("X-Forwarded-Proto", "http")
        single["X-Forwarded-For"], single["X-Forwarded-Port"], single["X-Forwarded-Proto"] = chain, port, scheme
        multi["X-Forwarded-For"], multi["X-Forwarded-Port"], multi["X-Forwarded-Proto"] = [chain], [port], [scheme]

    def _context(self, view: HeadView, resource: str, path: str, request_id: str, now_s: float) -> dict[str, Any]:
        context, identity = view.context, view.identity
        if view.shared:
            context, identity = context.copy(), identity.copy()
        context["resourcePath"], context["path"] = resource, view.base + view.sent if view.sent else path
        context["extendedRequestId"], context["requestId"] = extended_id(request_id), request_id
        context["requestTime"], context["requestTimeEpoch"] = self._second_text, int(now_s * 1000)
        context["identity"] = identity
        return context

    def _renew_second(self, second: int) -> None:
        """Renew the texts that are the same for a second."""
        if second != self._second:
            at = time.gmtime(second)
            month = _MONTHS[at.tm_mon - 1]
            self._second, self._second_hex = second, f"{second:08x}"
            self._second_text = (
                f"{at.tm_mday:02d}/{month}/{at.tm_year}:{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} +0000"
            )


def _keys(*names: str) -> dict[str, Any]:
    """A part of an event in which every value is None. A copy takes half the instructions of a literal."""
    return dict.fromkeys(" ".join(names).split())


def base_path(request: Request) -> str:
    """The base path of the stage's domain, which the paths in a REST API's event have and its routes do not."""
    return request.internal.get(b"x-hl-base", b"").decode("latin-1")


def split(target: str) -> tuple[str, str]:
    """Path and query."""
    path, _, query = target.partition("?")
    if not path.startswith("/"):  # absolute form: http://host/path
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path, query


def _without_trailing_slash(regex: str) -> str:
    """The route's expression, with a trailing slash left out of a greedy parameter."""
    return f"{regex[:-1]}?)/?" if regex.endswith(".+)") else regex


def extended_id(request_id: str) -> str:
    """An id in the form of API Gateway's own: 15 letters and `=`."""
    return b2a_base64(request_id.encode()[:11]).decode()[:-1]


def trace_id(request_id: str, second_hex: str) -> str:
    """An X-Ray header for a request without one: `Root=1-<time>-<24 hex digits>`."""
    digits = request_id.replace("-", "")[-24:]
    return f"Root=1-{second_hex}-{digits if len(digits) == 24 else digits.rjust(24, '0')}"


def grouped(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


def event_body(body: bytes, *, binary: bool = False) -> tuple[str | None, bool]:
    """The event's `body` and `isBase64Encoded`. What is no UTF-8 comes as base64 too."""
    if not body:
        return None, False
    try:
        return (base64.b64encode(body).decode(), True) if binary else (body.decode(), False)
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), True
