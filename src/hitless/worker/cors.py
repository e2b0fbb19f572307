"""CORS as API Gateway does it: preflight requests that no handler sees, and headers of an HTTP API's responses.

Sources: docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html and how-to-cors.html; for REST APIs
also the mock integration that Serverless Framework adds for `cors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hitless.worker.event import Event, EventBuilder, RouteTable
from hitless.worker.request import Request, header
from hitless.worker.response import http_response
from hitless.worker.spec import CorsSpec, PoolSpec


class CorsEventBuilder(EventBuilder):
    """The events of a function with CORS. A preflight request becomes no event, but `respond` answers it."""

    def __init__(self, spec: PoolSpec) -> None:
        super().__init__(spec)
        self._preflights = RouteTable([route for route in spec.routes if route.cors is not None])
        self._preflight: tuple[int, str] | None = None

    def build(self, request: Request, request_id: str, now_s: float) -> Event | None:
        """Build the event as for any function; None for a preflight request."""
        self._preflight = self._find_preflight(request) if request.method == "OPTIONS" else None
        return super().build(request, request_id, now_s) if self._preflight is None else None

    def respond(self, request: Request, extra: str) -> bytes:
        """The response to a request that became no event; `extra`: the worker's header lines."""
        if self._preflight is None:
            return super().respond(request, extra)
        status, lines = self._preflight
        return http_response(status, b"", lines + extra)

    def _find_preflight(self, request: Request) -> tuple[int, str] | None:
        found = self._preflights.match("OPTIONS", request.target.partition("?")[0])
        if found is None or found[0].cors is None:
            return None
        origin, cors = header(request, b"origin"), found[0].cors
        if not found[0].payload:
            allowed = origin if origin and allows(cors.origins, origin) and "*" not in cors.origins else cors.origins[0]
            return 200, f"access-control-allow-origin: {allowed}\r\n{cors.preflight}content-type: application/json\r\n"
        if origin is None or header(request, b"access-control-request-method") is None:
            return None
        return 204, allow_origin(cors, origin, cors.preflight)


def allow_origin(cors: CorsSpec, origin: str, lines: str) -> str:
    """An HTTP API's header lines for a request from that origin; none if the origin is not allowed."""
    if not allows(cors.origins, origin):
        return ""
    return f"access-control-allow-origin: {'*' if '*' in cors.origins else origin}\r\n{lines}"


def allows(origins: Iterable[str], origin: str) -> bool:
    """Whether the origin is one of these, in which `*` stands for any characters."""
    return any(re.fullmatch(re.escape(one).replace(r"\*", ".+"), origin) for one in origins)
