"""The load of a rehearsal, its rate, and the stage's strategy at higher speed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hitless.drill.requests import DrillRequest, from_routes, from_smoke
from hitless.pipeline.rehearsal.recorded import SAFE, Routes, Weighed, to_compare
from hitless.release.document import ReleaseDocument
from hitless.service.routes import ANY
from hitless.service.strategy import Canary, Linear, Strategy, weights

BUSY = 0.4
"""Share of a function's workers that a rehearsal keeps busy. Beyond it queues are measured instead of releases."""

MOST_OFTEN = 20
"""How often a quick request is sent for each slow one, at most."""

LONGEST_S = 60.0
"""A round with slow requests is lengthened up to this."""


def faster(strategy: Strategy, shift_s: float) -> Strategy:
    """The same weights within about `shift_s`; a shorter bake stays as it is. AllAtOnce has no bake to rehearse, so
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
    """A request as load: the function that it calls, and the seconds that one takes on live's copy."""

    request: DrillRequest
    function: str | None
    took_s: float


def balanced(costs: Sequence[Cost]) -> list[Cost]:
    """Generated requests with weights: the quicker one is, the more often it is sent, up to `MOST_OFTEN`. So a slow one
    does not take the place of all others.
    """
    slowest_s = max((one.took_s for one in costs), default=0.0)
    weights = [min(MOST_OFTEN, max(1, round(slowest_s / max(one.took_s, 1e-4)))) for one in costs]
    return [
        replace(one, request=replace(one.request, weight=weight)) for one, weight in zip(costs, weights, strict=True)
    ]


def bearable_rate(asked_per_s: float, costs: Sequence[Cost], workers: Mapping[str, int]) -> float:
    """The rate asked for, or the highest that keeps no function's workers busier than `BUSY` with live's code.

    `workers` by function.
    """
    busy_s: dict[str, float] = {}
    everything = sum(one.request.weight for one in costs)
    for one in costs:
        if one.function is not None:
            share = one.request.weight / everything * one.took_s / workers[one.function]
            busy_s[one.function] = busy_s.get(one.function, 0.0) + share
    most = max(busy_s.values(), default=0.0)
    return min(asked_per_s, BUSY / most) if most else asked_per_s


def long_enough_s(seconds: float, rate_per_s: float, requests: int) -> float:
    """The seconds asked for, or the longer time in which that many requests arrive at random, up to `LONGEST_S`."""
    return max(seconds, min(LONGEST_S, 1.5 * requests / rate_per_s))


def rate_for(strategy: Strategy, minimum_requests: int, least_per_s: float) -> float:
    """Requests a second that give the alarms twice their minimum at the first weight."""
    percent, bake_s = weights(strategy)[0]
    return max(least_per_s, 2 * minimum_requests / (percent / 100 * max(1, bake_s)))


@dataclass(frozen=True, slots=True)
class PlannedLoad:
    """The requests of a rehearsal, in the proportions of their weights, of which `compared` go to both releases side by
    side. `lines`: how many logged requests they stand for.
    """

    source: str
    requests: tuple[DrillRequest, ...]
    compared: tuple[DrillRequest, ...]
    lines: int = 0


def planned_load(live: ReleaseDocument, candidate: ReleaseDocument, recorded: Sequence[Weighed]) -> PlannedLoad:
    """The recorded requests, all smoke requests, and a generated one for each other route that has none."""
    generated = generated_requests(live, candidate)
    if not recorded:
        return PlannedLoad("generated", generated, generated)
    routes, known = Routes(live), {one.route for one in recorded}
    smoke = {f"{one.method} {one.path}" for document in (live, candidate) for one in document.settings.smoke}
    more = tuple(one for one in generated if one.name in smoke or routes.route_of(one) not in known)
    compared = tuple(one.request for one in to_compare(recorded))
    requests = tuple(one.request for one in recorded)
    return PlannedLoad("access_log", (*requests, *more), (*compared, *more), sum(one.lines for one in recorded))


def as_load(planned: PlannedLoad, compared: Sequence[Cost], routes: Routes) -> list[Cost]:
    """The requests that may be sent as load, each at the cost of its own or of its route's comparison. A request that
    live did not answer well is left out.
    """
    of_route = {routes.route_of(one.request): one for one in reversed(compared)}
    own = {one.request: one for one in compared}
    asked = set(planned.compared)
    costs = []
    for request in planned.requests:
        like = own.get(request) or (None if request in asked else of_route.get(routes.route_of(request)))
        if like is not None and routes.may_repeat(request):
            costs.append(replace(like, request=request))
    return balanced(costs) if planned.source == "generated" else costs


def generated_requests(live: ReleaseDocument, candidate: ReleaseDocument) -> tuple[DrillRequest, ...]:
    """The smoke requests of both, and one for each safe route of live; each once."""
    smoke = [*candidate.settings.smoke, *live.settings.smoke]
    routes = [route for function in live.functions for route in function.routes if route.method in (*SAFE, ANY)]
    found = {one.name: one for one in (*from_routes(routes), *from_smoke(smoke))}
    return tuple(replace(one, check_release=False) for one in found.values())


def coverage(live: ReleaseDocument, compared: Sequence[Cost], left_out: Sequence[str]) -> str:
    """`2 of 3 routes were compared; left out: POST /items (no smoke request for it)`."""
    routes = Routes(live)
    every = [str(route) for function in live.functions for route in function.routes]
    done = {routes.route_of(one.request) for one in compared}
    why = {one.partition(" (/")[0].partition(": ")[0]: one.rpartition(": ")[2] for one in left_out}
    missing = [f"{one} ({why.get(one, 'no smoke request for it')})" for one in every if one not in done]
    said = f"{len(every) - len(missing)} of {len(every)} routes were compared"
    return f"{said}; left out: {', '.join(missing)}" if missing else said


def removed_routes(live: ReleaseDocument, candidate: ReleaseDocument) -> list[str]:
    """Objections to routes of live that the candidate does not have."""
    now = {route for function in candidate.functions for route in function.routes}
    before = sorted({str(route) for function in live.functions for route in function.routes if route not in now})
    return [f"{route} is gone" for route in before]
