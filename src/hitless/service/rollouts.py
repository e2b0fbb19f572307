"""What a stage says of its rollouts: alarms, hooks, stickiness; and which routes of a service may run twice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hitless.service.model import (
    DEFAULT_PATH,
    AlarmSettings,
    Function,
    Hooks,
    Notify,
    NotifyBy,
    RehearsalSettings,
    Route,
    Sticky,
    StickyBy,
)
from hitless.service.routes import ANY, METHODS, normal_path
from hitless.service.smoke import HEADER_NAME
from hitless.service.value import Value, check_known, did_you_mean

ALARM_KEYS = ("error_rate_percent", "minimum_requests", "p99_ms", "p99_relative_percent", "guard_s", "also")
ALSO_AT_MOST = 7
"""CodeDeploy watches ten alarms a function, of which up to three are the release's own."""

URL = re.compile(r"https?://[!-~]+")
REHEARSAL_KEYS = ("beside_s", "shift_s", "rate")
HOOK_KEYS = ("pre_traffic", "post_traffic")


def read_alarms(value: Value | None) -> AlarmSettings:
    """`alarms` of a stage."""
    if value is None:
        return AlarmSettings()
    check_known(value, ALARM_KEYS)
    default = AlarmSettings()
    rate, requests, guard = value.get("error_rate_percent"), value.get("minimum_requests"), value.get("guard_s")
    absolute, relative = value.get("p99_ms"), value.get("p99_relative_percent")
    return AlarmSettings(
        error_rate_percent=rate.number(0, 100) if rate is not None else default.error_rate_percent,
        minimum_requests=requests.integer(1, 1_000_000) if requests is not None else default.minimum_requests,
        p99_ms=absolute.number(0.1, 900_000) if absolute is not None else None,
        p99_relative_percent=relative.number(100, 100_000) if relative is not None else None,
        guard_s=guard.integer(0, 3600) if guard is not None else default.guard_s,
        also=_own_alarms(value.get("also")),
    )


def _own_alarms(value: Value | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(item.text().strip() for item in value.items())) if value is not None else ()
    if value is not None and (len(names) > ALSO_AT_MOST or not all(0 < len(name) <= 255 for name in names)):
        raise value.fault(f"{value.shown()} are not up to {ALSO_AT_MOST} names of alarms", "name alarms of CloudWatch")
    return names


def read_hooks(value: Value | None) -> Hooks:
    """`hooks` of a stage: names of functions, which `check_references` looks up."""
    if value is None:
        return Hooks()
    check_known(value, HOOK_KEYS)
    before, after = (value.get(key) for key in HOOK_KEYS)
    return Hooks(before.text() if before is not None else None, after.text() if after is not None else None)


def read_sticky(value: Value | None) -> Sticky | None:
    """`sticky` of a stage: `address`, `header:NAME`, `cookie:NAME`, or false."""
    if value is None or value.data in (False, None):
        return None
    by, colon, name = value.text().partition(":")
    if by == StickyBy.ADDRESS and not colon:
        return Sticky(StickyBy.ADDRESS)
    if by not in (StickyBy.HEADER, StickyBy.COOKIE) or not HEADER_NAME.fullmatch(name) or len(name) > 64:
        raise value.fault(
            f"{value.shown()} does not tell clients apart", "write address, header:X-User-Id or cookie:session"
        )
    return Sticky(StickyBy(by), name.lower() if by == StickyBy.HEADER else name)


def read_rehearsal(value: Value | None) -> RehearsalSettings | None:
    """`rehearsal` of a stage: true, false, or how long and how hard."""
    if value is None or not isinstance(value.data, Mapping):
        return RehearsalSettings() if value is not None and value.flag() else None
    check_known(value, REHEARSAL_KEYS)
    default = RehearsalSettings()
    beside, shift, rate = (value.get(key) for key in REHEARSAL_KEYS)
    return RehearsalSettings(
        beside_s=beside.number(1, 3600) if beside is not None else default.beside_s,
        shift_s=shift.number(1, 3600) if shift is not None else default.shift_s,
        rate_per_s=rate.number(1, 10_000) if rate is not None else default.rate_per_s,
    )


def read_notify(value: Value | None) -> tuple[Notify, ...]:
    """`notify` of a stage: a list of `{slack: URL}`, `{webhook: URL}` or `{command: WORDS}`."""
    found = []
    for item in value.items() if value is not None else ():
        check_known(item, tuple(NotifyBy))
        named = item.mapping()
        if len(named) != 1:
            raise item.fault(
                "names not exactly one way to tell", "write {slack: URL}, {webhook: URL} or {command: WORDS}"
            )
        (by, target), *_ = named.items()
        text = target.text()
        if by != NotifyBy.COMMAND and not URL.fullmatch(text):
            raise target.fault("is not an http or https URL", "for example https://hooks.example.org/T0/B0/x")
        if not text.strip() or len(text) > 2000:
            raise target.fault("is empty or longer than 2000 characters")
        found.append(Notify(NotifyBy(by), text))
    return tuple(found)


def read_routes(value: Value | None) -> tuple[Route, ...]:
    """`idempotent` or `open` of the service: routes as `PUT /items/{id}`, which `check_references` looks up."""
    routes = []
    for item in value.items() if value is not None else ():
        method, _, path = item.text().strip().partition(" ")
        if (method, path) == ("$default", ""):
            method, path = ANY, DEFAULT_PATH
        if method.upper() not in (*METHODS, ANY) or not path.strip().startswith("/"):
            raise item.fault(f"{item.shown()} is not a route", "write PUT /items/{id}, as in the function's events")
        routes.append(Route(method.upper(), normal_path(path.strip())))
    return tuple(routes)


def check_references(hitless: Value | None, functions: Iterable[Function]) -> None:
    """ServiceFileError on a hook that is no function, or one that serves requests; on a route that nobody serves."""
    known = {function.name: function for function in functions}
    routes = {route for function in known.values() for route in function.routes}
    for item, route in (*named_routes(hitless, "idempotent"), *named_routes(hitless, "open")):
        if route not in routes:
            hint = did_you_mean(str(route), [str(r) for r in routes]) or "write it as in the function's events"
            raise item.fault(f"no function has the route {route}", hint)
    stages = hitless.get("stages") if hitless is not None else None
    for stage in stages.mapping().values() if stages is not None else ():
        hooks = stage.get("hooks")
        for name in hooks.mapping().values() if hooks is not None else ():
            function = known.get(name.text())
            if function is None:
                raise name.fault(f"there is no function {name.shown()}", did_you_mean(name.text(), known))
            if function.routes:
                raise name.fault(f"{function.name} serves http routes", "a hook is a function without http events")


def named_routes(hitless: Value | None, key: str) -> Iterable[tuple[Value, Route]]:
    """The routes of `custom.hitless.KEY`, each with the item that names it."""
    value = hitless.get(key) if hitless is not None else None
    return zip(value.items(), read_routes(value), strict=True) if value is not None else ()
