"""Smoke requests: a few requests to a candidate before it gets traffic. Both homes send them by the loop here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from hitless.errors import CandidateFailedError
from hitless.service.event_sources import Route
from hitless.service.model import Function, SmokeRequest
from hitless.service.routes import ANY, compile_route, is_literal, order_routes

SHOWN_LETTERS: Final = 300
ANY_STATUS: Final = 0
"""The expected status of a request that the stage's settings do not list."""


@dataclass(frozen=True, slots=True)
class SmokeResponse:
    """`status` is a phrase if there was no response, `body` the decoded text."""

    status: int | str
    body: str
    returned: str | None = None
    """What the handler returned, if API Gateway would refuse it as a response."""


SendSmoke = Callable[[SmokeRequest, Function, Route], SmokeResponse]
"""Sends a request to the candidate's function; blocking."""


def send_smoke_requests(
    requests: Sequence[SmokeRequest], functions: Sequence[Function], send: SendSmoke, *, logs: str = "hitless logs"
) -> str | None:
    """Send each request to the function whose route matches it. `logs` is the command that shows the function's logs.

    Raises CandidateFailedError at the first unexpected response, or if a handler returns no object or no `statusCode`
    and API Gateway refuses that. Returns a sentence about an error if any status is accepted.
    """
    for request in requests:
        name = f"{request.method} {request.path}"
        found = find_route(functions, request.method, urlsplit(request.path).path)
        if found is None:
            raise CandidateFailedError(
                f"smoke request {name}: no route of the candidate matches it",
                hint="fix the route, or the smoke request under custom.hitless",
            )
        function, route = found
        response = send(request, function, route)
        if response.returned is not None:
            module, _, handler = function.handler.rpartition(".")
            raise CandidateFailedError(
                f"{module.replace('.', '/')}.py: {handler} (function {function.name}) returned no statusCode to {name}:"
                f" {response.returned[:SHOWN_LETTERS]}"
            )
        if request.status == ANY_STATUS:
            if isinstance(response.status, str) or response.status >= 400:
                return f"{name}: {response.status}, see `{logs} {function.name}`"
        elif response.status != request.status:
            shown = response.body[:SHOWN_LETTERS]
            raise CandidateFailedError(
                f"smoke request {name}: {response.status} instead of {request.status}: {shown}",
                hint=f"see `{logs} {function.name}`",
            )
    return None


def first_request(functions: Sequence[Function]) -> tuple[SmokeRequest, ...]:
    """One GET to the first route that takes it and has no parameter, for a stage without smoke requests."""
    routes = [route for function in functions for route in function.routes if is_literal(route.path)]
    paths = (route.path for method in ("GET", ANY) for route in routes if route.method == method)
    return tuple(SmokeRequest("GET", path, status=ANY_STATUS) for path in paths)[:1]


def find_route(functions: Sequence[Function], method: str, path: str) -> tuple[Function, Route] | None:
    """The function and its route that match the request, by API Gateway's precedence."""
    owner = {route: function for function in functions for route in function.routes}
    for route in order_routes(owner):
        if route.method in (method, ANY) and re.fullmatch(compile_route(route.path), path):
            return owner[route], route
    return None
