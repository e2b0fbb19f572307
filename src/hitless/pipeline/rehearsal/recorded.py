"""Recorded requests as load: the logged requests of a stage that are sent again, and how often each. Pure.

Only requests that may be repeated: safe methods, no body, no header of the client's. One that got another status than
2xx, or whose query has a masked value, is left out, because it would tell nothing when it is sent again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hitless.drill.requests import MAX_WEIGHT, DrillRequest
from hitless.gateway.accesslog import MASK, AccessLine
from hitless.release.document import ReleaseDocument
from hitless.service.event_sources import Route
from hitless.service.routes import ANY, compile_route, order_routes

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LINES_AT_MOST = 10_000
"""The newest lines of a log count."""

REQUESTS_AT_MOST = 200
"""Different requests that are sent: the most frequent, and at least one of each route."""

COMPARED_A_ROUTE = 3
"""The most frequent requests of a route, whose responses are compared."""

_SENDABLE = re.compile(r"/[!-~]*\Z")


@dataclass(frozen=True, slots=True)
class Weighed:
    """A request with its weight, its route, and the number of lines that it stands for."""

    request: DrillRequest
    route: str
    lines: int = 1


class Routes:
    """The routes of one release: which function answers a request."""

    def __init__(self, document: ReleaseDocument) -> None:
        self._functions = {route: function.name for function in document.functions for route in function.routes}
        self._routes = _compiled(self._functions)
        self._idempotent = _compiled(document.settings.idempotent)

    @property
    def any(self) -> bool:
        """Whether requests can reach the release at all."""
        return bool(self._functions)

    def of(self, method: str, path: str) -> tuple[str | None, str | None]:
        """Function and route (`GET /zones/{zone+}`) of a request; None twice if the release has none for it."""
        route = _match(self._routes, method, path)
        return (self._functions[route], str(route)) if route else (None, None)

    def function_of(self, request: DrillRequest) -> str | None:
        return self.of(request.method, request.path)[0]

    def route_of(self, request: DrillRequest) -> str | None:
        return self.of(request.method, request.path)[1]

    def name_of(self, request: DrillRequest) -> str:
        """`GET /zones/{zone+} (/zones/UTC)`, or the request alone if its path is the route's."""
        route = _match(self._routes, request.method, request.path)
        if route is None or route.path == request.path:
            return request.name
        return f"{request.method} {route.path} ({request.path})"

    def may_repeat(self, request: DrillRequest) -> bool:
        """Whether a request may be sent as load: a safe one, or one of a route that the service calls idempotent.

        A handler under rehearsal reaches whatever its environment names, a real database as well.
        """
        return request.method in SAFE or _match(self._idempotent, request.method, request.path) is not None


def _compiled(routes: Iterable[Route]) -> list[tuple[Route, re.Pattern[str]]]:
    return [(route, re.compile(compile_route(route.path))) for route in order_routes(routes)]


def _match(routes: list[tuple[Route, re.Pattern[str]]], method: str, path: str) -> Route | None:
    """The route of the path, whose query does not count."""
    path, _, _ = path.partition("?")
    return next((one for one, pattern in routes if one.method in (method, ANY) and pattern.fullmatch(path)), None)


def weighed(lines: Iterable[AccessLine], live: ReleaseDocument) -> list[Weighed]:
    """The requests to send, in the proportions of the log: the most frequent first, at least one of every route."""
    routes = Routes(live)
    counts: Counter[tuple[str, str, str]] = Counter()
    for line in lines:
        if line.method not in SAFE or not 200 <= line.status < 300 or MASK in line.query:
            continue
        route = routes.of(line.method, line.path)[1]
        if route is not None and _SENDABLE.match(line.target):
            counts[line.method, line.target, route] += 1
    chosen = _of_every_route([key for key, _ in counts.most_common()])
    least = min((counts[key] for key in chosen), default=1)
    return [
        Weighed(
            DrillRequest(
                method,
                target,
                weight=min(MAX_WEIGHT, max(1, round(counts[method, target, route] / least))),
                check_release=False,
            ),
            route,
            counts[method, target, route],
        )
        for method, target, route in chosen
    ]


def to_compare(chosen: Sequence[Weighed]) -> list[Weighed]:
    """The first few of each route."""
    seen: Counter[str] = Counter()
    kept = []
    for one in chosen:
        seen[one.route] += 1
        if seen[one.route] <= COMPARED_A_ROUTE:
            kept.append(one)
    return kept


def _of_every_route(ordered: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The first of each route, then the others, `REQUESTS_AT_MOST` in all; in the order given."""
    first_of = {key[2]: key for key in reversed(ordered)}
    firsts = sorted(first_of.values(), key=ordered.index)
    kept = set(list(dict.fromkeys([*firsts, *ordered]))[:REQUESTS_AT_MOST])
    return [key for key in ordered if key in kept]
