"""Reads a stage's settings for releases: steps, smoke requests, alarms, hooks, stickiness, notifications.

`source`, `build` and `deploy` are always among the steps. Without `steps`, so are `test` and `verify`, and `rehearse`
and `approve` if their own keys ask for them. With `steps` the list decides, and a key that contradicts it is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hitless.service.event_sources import DEFAULT_PATH, Route
from hitless.service.model import (
    AlarmSettings,
    Approval,
    Function,
    Hooks,
    Notify,
    NotifyBy,
    RehearsalSettings,
    SmokeRequest,
    Sticky,
    StickyBy,
)
from hitless.service.reader import (
    FLAG,
    TEXT,
    Reader,
    Readers,
    any_map,
    list_of,
    map_of,
    matching,
    number,
    reads,
    struct,
    whole,
)
from hitless.service.routes import ANY, METHODS, normal_path
from hitless.service.value import Value, check_known, did_you_mean

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_TARGET = re.compile(r"/[!-~]*")


def _smoke_request(item: Value) -> SmokeRequest:
    if isinstance(item.data, str):
        method, _, path = item.data.strip().partition(" ")
        return SmokeRequest(_method(item, method), _target(item, path.strip()))
    read = item.fields(SMOKE)
    if "path" not in read:
        raise item.fault("has no path", "write GET /path, or a map with method and path")
    read["body"], read["headers"] = _body(item.get("body"), read.get("headers", ()))
    return SmokeRequest(**({"method": "GET"} | read))


def _method(at: Value, method: str) -> str:
    if method.upper() not in METHODS:
        raise at.fault(
            f"{at.shown()} has an unknown method; known: {', '.join(METHODS)}",
            f"write GET {method if method[:1] == '/' else '/path'}",
        )
    return method.upper()


def _target(at: Value, path: str) -> str:
    if not _TARGET.fullmatch(path):
        raise at.fault("needs a path that begins with a slash and contains no spaces", "write GET /path?query=value")
    return path


@reads(any_map(TEXT.schema))
def _headers(value: Value) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for name, entry in value.mapping().items():
        text = entry.text()
        if not HEADER_NAME.fullmatch(name) or not text.isprintable():
            raise entry.fault("is not a header: a name of letters, digits and -, and a value in one line")
        pairs.append((name, text))
    return tuple(pairs)


def _body(value: Value | None, headers: tuple[tuple[str, str], ...]) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """The body as sent, and the headers. Maps and lists become JSON, with a content type unless there is one."""
    if value is None or not isinstance(value.data, Mapping | tuple):
        return (None if value is None else value.text()), headers
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers = (*headers, ("content-type", "application/json"))
    return json.dumps(value.plain(), ensure_ascii=False, separators=(",", ":")), headers


SMOKE: Readers = {
    "method": Reader(lambda at: _method(at, at.text()), matching("[A-Za-z]+")),
    "path": Reader(lambda at: _target(at, at.text()), matching(_TARGET.pattern)),
    "headers": _headers,
    "body": Reader(lambda at: at, {}),
    "status": whole(100, 599),
}


@reads(list_of({"anyOf": [matching(" *[A-Za-z]+ +/[!-~]* *"), map_of(SMOKE, "path")]}))
def read_smoke(value: Value) -> tuple[SmokeRequest, ...]:
    """The requests in the file's order; ServiceFileError on a wrong one."""
    return tuple(_smoke_request(item) for item in value.items())


ALSO_AT_MOST = 7
"""CodeDeploy watches ten alarms a function, of which up to three are the release's own."""

URL = re.compile(r"https?://[!-~]+")


@reads(list_of(TEXT.schema))
def _own_alarms(value: Value) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(item.text().strip() for item in value.items()))
    if len(names) > ALSO_AT_MOST or not all(0 < len(name) <= 255 for name in names):
        raise value.fault(
            f"{value.shown()} is not a list of up to {ALSO_AT_MOST} alarm names", "name CloudWatch alarms"
        )
    return names


ALARMS: Readers = {
    "error_rate_percent": number(0, 100),
    "minimum_requests": whole(1, 1_000_000),
    "p99_ms": number(0.1, 900_000),
    "p99_relative_percent": number(100, 100_000),
    "guard_s": whole(0, 3600),
    "also": _own_alarms,
}
read_alarms = struct(AlarmSettings, ALARMS)
"""`alarms` of a stage."""

read_hooks = struct(Hooks, {"pre_traffic": TEXT, "post_traffic": TEXT})
"""`hooks` of a stage: names of functions, which `check_references` looks up."""


@reads({"anyOf": [{"const": False}, matching("address|(header|cookie):.+")]})
def read_sticky(value: Value) -> Sticky | None:
    """`sticky` of a stage: `address`, `header:NAME`, `cookie:NAME`, or false."""
    if value.data is False:
        return None
    by, colon, name = value.text().partition(":")
    if by == StickyBy.ADDRESS and not colon:
        return Sticky(StickyBy.ADDRESS)
    if by not in (StickyBy.HEADER, StickyBy.COOKIE) or not HEADER_NAME.fullmatch(name) or len(name) > 64:
        raise value.fault(f"{value.shown()} cannot distinguish clients", "write address, header:NAME or cookie:NAME")
    return Sticky(StickyBy(by), name.lower() if by == StickyBy.HEADER else name)


REHEARSAL: Readers = {"beside_s": number(1, 3600), "shift_s": number(1, 3600), "rate": number(1, 10_000)}


@reads({"anyOf": [FLAG.schema, map_of(REHEARSAL)]})
def read_rehearsal(value: Value) -> RehearsalSettings | None:
    """`rehearsal` of a stage: true, false, or how long and how hard."""
    if not isinstance(value.data, Mapping):
        return RehearsalSettings() if value.flag() else None
    read = value.fields(REHEARSAL)
    if "rate" in read:
        read["rate_per_s"] = read.pop("rate")
    return RehearsalSettings(**read)


@reads(list_of(map_of(dict.fromkeys(NotifyBy, TEXT)) | {"minProperties": 1, "maxProperties": 1}))
def read_notify(value: Value) -> tuple[Notify, ...]:
    """`notify` of a stage: a list of `{slack: URL}`, `{webhook: URL}` or `{command: WORDS}`."""
    found = []
    for item in value.items():
        check_known(item, tuple(NotifyBy))
        named = item.mapping()
        if len(named) != 1:
            raise item.fault("needs exactly one receiver", "write {slack: URL}, {webhook: URL} or {command: WORDS}")
        (by, target), *_ = named.items()
        text = target.text()
        if by != NotifyBy.COMMAND and not URL.fullmatch(text):
            raise target.fault("is not an http or https URL", "for example https://hooks.example.org/T0/B0/x")
        if not text.strip() or len(text) > 2000:
            raise target.fault("is empty or longer than 2000 characters")
        found.append(Notify(NotifyBy(by), text))
    return tuple(found)


@reads(list_of(matching(r" *([A-Za-z]+ +/.*|\$default *)")))
def read_routes(value: Value) -> tuple[Route, ...]:
    """`idempotent` or `open` of the service: routes as `PUT /items/{id}`, which `check_references` looks up."""
    routes = []
    for item in value.items():
        method, _, path = item.text().strip().partition(" ")
        if (method, path) == ("$default", ""):
            method, path = ANY, DEFAULT_PATH
        if method.upper() not in (*METHODS, ANY) or not path.strip().startswith("/"):
            raise item.fault(f"{item.shown()} is not a route", "write PUT /items/{id}, as in the function's events")
        routes.append(Route(method.upper(), normal_path(path.strip())))
    return tuple(routes)


def check_references(root: Value, functions: Iterable[Function]) -> None:
    """ServiceFileError for a hook that is not a function or serves requests, and for a route without a function."""
    known = {function.name: function for function in functions}
    routes = {route for function in known.values() for route in function.routes}
    for item, route in (*named_routes(root, "idempotent"), *named_routes(root, "open")):
        if route not in routes:
            hint = did_you_mean(str(route), [str(r) for r in routes]) or "write it as in the function's events"
            raise item.fault(f"no function has the route {route}", hint)
    stages = root.get("custom", "hitless", "stages")
    for stage in stages.mapping().values() if stages is not None else ():
        for name in stage.optional("hooks", Value.mapping, {}).values():
            function = known.get(name.text())
            if function is None:
                raise name.fault(f"there is no function {name.shown()}", did_you_mean(name.text(), known))
            if function.routes:
                raise name.fault(f"{function.name} serves http routes", "a hook must be a function without http events")


def named_routes(root: Value, key: str) -> Iterable[tuple[Value, Route]]:
    """The routes of `custom.hitless.KEY`, each with the item that names it."""
    value = root.get("custom", "hitless", key)
    return zip(value.items(), read_routes(value), strict=True) if value is not None else ()


ORDER = ("source", "test", "build", "rehearse", "approve", "deploy", "verify")


@reads(list_of({"enum": ORDER}))
def read_steps(value: Value) -> list[str]:
    """`steps` of a stage. ServiceFileError for an unknown step or a wrong order."""
    named = [item.choice(ORDER) for item in value.items()]
    if named != sorted(set(named), key=ORDER.index):
        raise value.fault("names a step twice, or out of order", f"their order is always {', '.join(ORDER)}")
    return named


def with_steps(stage: Value, read: dict[str, Any]) -> dict[str, Any]:
    """What was read of a stage, with the settings that `steps` says instead. ServiceFileError for a contradiction."""
    named = read.pop("steps", None)
    if named is None:
        return read
    settings, rehearsal, approval = read.get("rehearsal"), stage.get("rehearsal"), stage.get("approval")
    rehearsed, approved = "rehearse" in named, "approve" in named
    if rehearsal is not None and (settings is not None) != rehearsed:
        what = "asks for a rehearsal, but steps has no rehearse" if settings else "is false, but steps has rehearse"
        raise rehearsal.fault(what, "remove this setting: rehearse in steps decides")
    if approval is not None and (read["approval"] is Approval.MANUAL) != approved:
        what = "is manual, but steps has no approve" if not approved else "is none, but steps has approve"
        raise approval.fault(what, "remove this setting: approve in steps decides")
    return {
        **read,
        "test": "test" in named,
        "rehearsal": (settings or RehearsalSettings()) if rehearsed else None,
        "approval": Approval.MANUAL if approved else Approval.NONE,
        "verify": "verify" in named,
    }
