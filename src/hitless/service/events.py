"""`http` and `httpApi` events: the routes of a service's REST API and of its HTTP API (API Gateway v2).

Routes are read as Serverless Framework reads them. An HTTP API's default route, `'*'`, takes what no other route takes.
A function URL is read as such a default route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from hitless.service.event_sources import DEFAULT_PATH, DEFAULT_PAYLOAD, Authorizer, Route
from hitless.service.routes import ANY, METHODS, find_conflict, normal_path, path_fault
from hitless.service.value import Notices, Value, did_you_mean

_SHORT_FORM = re.compile(r"(\S+)\s+(\S+)")
_EVERY = "*"
_REST_FORM = "write GET /path, or a map with method and path"
_HTTP_API_FORM = "write GET /path, '*' for the default route, or a map with method and path"


class RouteEvent(msgspec.Struct, frozen=True):
    """One event with its route. `at` is what stands under `http`, `httpApi` or `url`."""

    at: Value
    route: Route
    http_api: bool
    url: bool = False
    authorizer: Authorizer | None = None
    """The one that the engine asks."""


def read_events(function: Value) -> tuple[RouteEvent, ...]:
    """The routes of a function, in the file's order; ServiceFileError on what API Gateway would refuse."""
    found: list[RouteEvent] = []
    for event in function.optional("events", Value.items, ()):
        if not isinstance(event.data, Mapping):
            continue
        for key in {"http", "httpApi"} & event.data.keys():
            if event.data[key].data is None:
                raise event.data[key].fault("is empty", "indent method and path further than this line")
        if (http := event.get("http")) is not None:
            found.append(RouteEvent(http, _read_route(http, http_api=False), http_api=False))
        if (http_api := event.get("httpApi")) is not None:
            found.append(RouteEvent(http_api, _read_route(http_api, http_api=True), http_api=True))
    return tuple(found)


def with_url(
    events: Mapping[str, tuple[RouteEvent, ...]], functions: Mapping[str, Value], notices: Notices
) -> Mapping[str, tuple[RouteEvent, ...]]:
    """The events of each function, with the function URL if the service has one and no route.

    On AWS each URL is a host of its own. A stage has one listener here, so a URL beside other routes is not served.
    """
    urls = {name: url for name, one in functions.items() if (url := one.get("url")) is not None and url.data}
    if len(urls) == 1 and not any(events.values()):
        [(name, url)] = urls.items()
        return {**events, name: (RouteEvent(url, Route(ANY, DEFAULT_PATH), http_api=True, url=True),)}
    for url in urls.values():
        notices.add("functions.*.url", url, "a function URL is served here only if the service has no other route")
    return events


def read_payload(provider: Value, function: Value) -> str:
    """The payload format version of a function's HTTP API events: its own, or the provider's, or 2.0."""
    for owner in (function, provider):
        if (payload := owner.get("httpApi", "payload")) is not None:
            return payload.choice(("1.0", "2.0", "1", "2"))[0] + ".0"  # 2.0 without quotes is the number 2
    return DEFAULT_PAYLOAD


def check_conflicts(events: Iterable[RouteEvent]) -> None:
    """ServiceFileError on routes that API Gateway does not accept together in one API."""
    rest = [event for event in events if not event.http_api]
    conflict = find_conflict([event.route for event in rest])
    if conflict is not None:
        first, second, reason = conflict
        raise _conflict(rest[first].at, rest[second].at, reason)
    seen: dict[Route, Value] = {}
    for event in events:
        if event.http_api and (other := seen.setdefault(event.route, event.at)) is not event.at:
            raise _conflict(other, event.at, f"{event.route} is routed twice")


def without_doubles(events: Iterable[RouteEvent], rest: Iterable[Route], notices: Notices) -> tuple[RouteEvent, ...]:
    """The events without HTTP API routes that are REST routes too: both APIs share one listener here."""
    taken, kept = set(rest), []
    for event in events:
        if event.http_api and event.route in taken:
            sentence = f"{event.route} is an http event too; both APIs share one listener here, and that one is served"
            notices.add(f"both {event.route}", event.at, sentence)
        else:
            kept.append(event)
    return tuple(kept)


def _conflict(first: Value, second: Value, reason: str) -> Exception:
    return second.fault(
        f"{reason}; the other is {first.path} in {first.place}",
        "remove one" if "twice" in reason else "give both parameters the same name",
    )


def _read_route(event: Value, *, http_api: bool) -> Route:
    form = _HTTP_API_FORM if http_api else _REST_FORM
    if isinstance(event.data, str):
        if http_api and event.data.strip() == _EVERY:
            return Route(ANY, DEFAULT_PATH)
        found = _SHORT_FORM.fullmatch(event.text().strip())
        if found is None:
            raise event.fault(f"{event.shown()} is not a route", form)
        return _route(event, found[1], event, found[2], every=http_api)
    if http_api and _required(event, "path", form).text() == _EVERY:
        method = event.get("method")
        if method is not None and method.text() != _EVERY:
            raise method.fault(f"{method.shown()} cannot be the default route's method", "write method: '*'")
        return Route(ANY, DEFAULT_PATH)
    method, path = _required(event, "method", form), _required(event, "path", form)
    return _route(method, method.text(), path, path.text(), every=http_api)


def _required(event: Value, key: str, form: str) -> Value:
    if (value := event.get(key)) is None:
        raise event.fault(f"has no {key}", form)
    return value


def _route(method_at: Value, method: str, path_at: Value, path: str, *, every: bool) -> Route:
    upper = ANY if every and method == _EVERY else method.upper()
    if upper not in (*METHODS, ANY):
        hint = "write ANY for all methods" if method == _EVERY else did_you_mean(upper, (*METHODS, ANY))
        known = ", ".join((*METHODS, ANY))
        raise method_at.fault(f"{method_at.shown()} has an unknown method; known: {known}", hint)
    normal = normal_path(path)
    if (fault := path_fault(normal)) is not None or normal == DEFAULT_PATH:
        raise path_at.fault(
            f"the path {normal} {fault or 'is reserved'}",
            "write {name} for a parameter, and {proxy+} for the rest of the path: /zones/{zone}/now",
        )
    return Route(upper, normal)
