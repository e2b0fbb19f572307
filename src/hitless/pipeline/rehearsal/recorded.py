"""Recorded requests as load: which of a stage's logged requests are sent again, and how often each. Pure.

Only what may be repeated without asking anybody: safe methods, no body, no header of the client's. A request that was
answered otherwise than by 2xx, or whose query had a value masked, tells nothing when it is sent again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hitless.drill.requests import MAX_WEIGHT, DrillRequest
from hitless.gateway.accesslog import MASK, AccessLine
from hitless.release.document import ReleaseDocument
from hitless.service.routes import ANY, compile_route, order_routes

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LINES_AT_MOST = 10_000
"""The newest of a log that count."""

REQUESTS_AT_MOST = 200
"""Different requests that are sent; the most frequent, and one of each route at least."""

COMPARED_A_ROUTE = 3
"""Recorded requests of a route whose answers are compared: the most frequent ones."""

_SENDABLE = re.compile(r"/[!-~]*\Z")


@dataclass(frozen=True, slots=True)
class Weighed:
    """A request with how often it is sent, the route that it takes, and how many lines it stands for."""

    request: DrillRequest
    route: str
    lines: int = 1


class Routes:
    """Who answers what in one release."""

    def __init__(self, document: ReleaseDocument) -> None:
        every = [route for function in document.functions for route in function.routes]
        owner = {route: function.name for function in document.functions for route in function.routes}
        self._compiled = [
            (route.method, re.compile(compile_route(route.path)), owner[route], str(route))
            for route in order_routes(every)
        ]

    def of(self, method: str, path: str) -> tuple[str | None, str | None]:
        """Function and route (`GET /zones/{zone+}`) of a request; None twice for what the release does not have."""
        for known, pattern, function, route in self._compiled:
            if known in (method, ANY) and pattern.fullmatch(path):
                return function, route
        return None, None


def weighed(lines: Iterable[AccessLine], live: ReleaseDocument) -> list[Weighed]:
    """The requests to send, in the proportions in which they came: the most frequent first, of every route one."""
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
    kept = set(sorted(first_of.values(), key=ordered.index)[:REQUESTS_AT_MOST])
    for key in ordered:
        if len(kept) >= REQUESTS_AT_MOST:
            break
        kept.add(key)
    return [key for key in ordered if key in kept]
