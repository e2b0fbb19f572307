"""What a rehearsal sends, and the stage's strategy at higher speed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hitless.drill.requests import DrillRequest, from_routes, from_smoke
from hitless.pipeline.rehearsal.recorded import SAFE, Weighed, to_compare
from hitless.release.document import ReleaseDocument
from hitless.service.model import Route
from hitless.service.routes import ANY, compile_route, order_routes
from hitless.service.strategy import Canary, Linear, Strategy, weights

BUSY = 0.4
"""Share of a function's workers that a rehearsal keeps at work: beyond it queues, and not releases, are measured."""

MOST_OFTEN = 20
"""How often a quick request is sent for each slow one."""

LONGEST_S = 60.0
"""What a round of slow requests is lengthened to at most."""


def faster(strategy: Strategy, shift_s: float) -> Strategy:
    """The same weights within about `shift_s`; what bakes shorter stays as it is. All at once has no bake to rehearse:
    half of the traffic bakes instead.
    """
    match strategy:
        case Canary(percent, bake_s):
            return Canary(percent, min(bake_s, max(1, round(shift_s))))
        case Linear(percent, every_s):
            bakes = max(1, sum(1 for weight, _ in weights(strategy) if weight < 100))
            return Linear(percent, min(every_s, max(1, round(shift_s / bakes))))
        case _:
            return Canary(50, max(1, round(shift_s)))


@dataclass(frozen=True, slots=True)
class Cost:
    """A request as load: what it takes of which function on live's copy, seconds for one; `weight` is how often."""

    request: DrillRequest
    function: str | None
    took_s: float

    @property
    def weight(self) -> int:
        return self.request.weight


def balanced(costs: Sequence[Cost]) -> list[Cost]:
    """Requests that nobody weighed, weighed so that a slow one does not take the place of all others: the quicker one
    is, the more often it is sent, within `MOST_OFTEN`.
    """
    slowest_s = max((one.took_s for one in costs), default=0.0)
    weights = [min(MOST_OFTEN, max(1, round(slowest_s / max(one.took_s, 1e-4)))) for one in costs]
    return [
        replace(one, request=replace(one.request, weight=weight)) for one, weight in zip(costs, weights, strict=True)
    ]


def bearable_rate(asked_per_s: float, costs: Sequence[Cost], workers: Mapping[str, int]) -> float:
    """The rate asked for, or less: so much that no function's workers are busier than `BUSY` with live's own code.

    `workers` by function.
    """
    busy_s: dict[str, float] = {}
    everything = sum(one.weight for one in costs)
    for one in costs:
        if one.function is not None:
            share = one.weight / everything * one.took_s / workers[one.function]
            busy_s[one.function] = busy_s.get(one.function, 0.0) + share
    most = max(busy_s.values(), default=0.0)
    return min(asked_per_s, BUSY / most) if most else asked_per_s


def long_enough_s(seconds: float, rate_per_s: float, requests: int) -> float:
    """The seconds asked for, or as many as so many requests take, come as by chance; not above `LONGEST_S` for it."""
    return max(seconds, min(LONGEST_S, 1.5 * requests / rate_per_s))


def rate_for(strategy: Strategy, minimum_requests: int, least_per_s: float) -> float:
    """Requests a second by which the alarms have enough to judge at the first weight, twice over."""
    percent, bake_s = weights(strategy)[0]
    return max(least_per_s, 2 * minimum_requests / (percent / 100 * max(1, bake_s)))


@dataclass(frozen=True, slots=True)
class Sent:
    """What a rehearsal sends: `requests` as load, in the proportions of their weights, of which `compared` are asked
    of both releases side by side. `lines`: how many logged requests they stand for.
    """

    source: str
    requests: tuple[DrillRequest, ...]
    compared: tuple[DrillRequest, ...]
    lines: int = 0

    def to_json(self, load: Sequence[Cost], live: ReleaseDocument) -> dict[str, Any]:
        """`load`: those that were sent as load."""
        routes = {route_name(one.request, live) for one in load}
        return {"source": self.source, "requests": len(load), "routes": len(routes), "recorded": self.lines}


def sent_of(live: ReleaseDocument, candidate: ReleaseDocument, recorded: Sequence[Weighed]) -> Sent:
    """The recorded requests, and a generated one of each route that nobody asked for."""
    generated = requests_of(live, candidate)
    if not recorded:
        return Sent("generated", generated, generated)
    known = {one.route for one in recorded}
    more = tuple(one for one in generated if route_name(one, live) not in known)
    compared = tuple(one.request for one in to_compare(recorded))
    requests = tuple(one.request for one in recorded)
    return Sent("access_log", (*requests, *more), (*compared, *more), sum(one.lines for one in recorded))


def as_load(sent: Sent, compared: Sequence[Cost], live: ReleaseDocument) -> list[Cost]:
    """What is sent as load: what may be repeated, of routes that live answers well. One that was not compared itself is
    taken to cost what others of its route do.
    """
    of_route = {route_name(one.request, live): one for one in reversed(compared)}
    own = {one.request: one for one in compared}
    asked = set(sent.compared)
    costs = []
    for request in sent.requests:
        like = own.get(request) or (None if request in asked else of_route.get(route_name(request, live)))
        if like is not None and may_repeat(request, live):
            costs.append(replace(like, request=request))
    return balanced(costs) if sent.source == "generated" else costs


def route_name(request: DrillRequest, document: ReleaseDocument) -> str:
    """`GET /items/{id}`; the word None for what the release does not have."""
    return str(route_of(request, _routes(document)))


def _routes(document: ReleaseDocument) -> list[Route]:
    return [route for function in document.functions for route in function.routes]


def requests_of(live: ReleaseDocument, candidate: ReleaseDocument) -> tuple[DrillRequest, ...]:
    """The smoke requests of both, and one for each safe route of what is live; each once."""
    smoke = [*candidate.settings.smoke, *live.settings.smoke]
    routes = [route for function in live.functions for route in function.routes if route.method in (*SAFE, ANY)]
    found = {one.name: one for one in (*from_routes(routes), *from_smoke(smoke))}
    return tuple(replace(one, check_release=False) for one in found.values())


def may_repeat(request: DrillRequest, document: ReleaseDocument) -> bool:
    """Whether a request may be sent as load: a safe one, or one of a route that the service calls idempotent.

    A handler under rehearsal reaches whatever its environment names, a real database as well.
    """
    return request.method in SAFE or route_of(request, document.settings.idempotent) is not None


def route_of(request: DrillRequest, routes: Iterable[Route]) -> Route | None:
    """The route that answers a request."""
    path = request.path.partition("?")[0]
    for route in order_routes(routes):
        if route.method in (request.method, ANY) and re.fullmatch(compile_route(route.path), path):
            return route
    return None


def function_of(request: DrillRequest, document: ReleaseDocument) -> str | None:
    """The function that answers a request."""
    route = route_of(request, _routes(document))
    return next((function.name for function in document.functions if route in function.routes), None)


def name_of(request: DrillRequest, document: ReleaseDocument) -> str:
    """`GET /zones/{zone+} (/zones/UTC)`, or the request alone where its path is the route's."""
    route = route_of(request, _routes(document))
    if route is None or route.path == request.path:
        return request.name
    return f"{request.method} {route.path} ({request.path})"


def routes_gone(live: ReleaseDocument, candidate: ReleaseDocument) -> list[str]:
    """Routes that live answers and the candidate has not."""
    now = {route for function in candidate.functions for route in function.routes}
    before = sorted({str(route) for function in live.functions for route in function.routes if route not in now})
    return [f"{route} is gone" for route in before]
