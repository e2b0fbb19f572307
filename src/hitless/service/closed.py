"""Refuses services that the engine must not serve: with routes that only API Gateway protects or maps, or without
routes.

The engine checks no API key, no resource policy and only some authorizers (`hitless.service.authorizers`), so it serves
a route with another one only if `custom.hitless.open` names it. A stage on AWS is never refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hitless.errors import ServiceFileError
from hitless.service.events import RouteEvent
from hitless.service.functions import PYTHON_HERE
from hitless.service.integrations import integration_fault
from hitless.service.model import Home, Service
from hitless.service.rollouts import named_routes
from hitless.service.value import Notices, Value

_NEEDS = {
    "functions.*.events.*.http.authorizer": "needs an authorizer",
    "functions.*.events.*.http.private": "needs an API key",
    "functions.*.events.*.httpApi.authorizer": "needs an authorizer",
    "functions.*.url.authorizer": "needs an authorizer",
    "provider.apiGateway.resourcePolicy": "is under a resource policy",
    "provider.resourcePolicy": "is under a resource policy",
}
_UNSERVED = re.compile(r"functions\.\*\.(events\.\*\.\w+|url)")


def check_served(service: Service | None) -> None:
    """Raise ServiceFileError if the stage's home is the engine and the engine refuses the service."""
    if service is not None and service.refusal is not None and service.settings.home is Home.ENGINE:
        raise service.refusal


def another_python(runtime: Value) -> ServiceFileError:
    """The error with which the engine refuses a declared Python that is not its own, if `exact_runtime` is set."""
    return runtime.fault(
        f"{runtime.text()} is declared, this engine's Python is {PYTHON_HERE}, and exact_runtime is true",
        f"declare {PYTHON_HERE}, or install hitless with the other: docs/serverless-yml.md#the-declared-python",
    )


def why_refused(root: Value, routes: Sequence[RouteEvent], notices: Notices) -> ServiceFileError | None:
    """The error with which the engine refuses the service, or None. `routes`: each event that the engine serves.
    `notices`: those of the file's keys; an entry of `custom.hitless.open` that changes nothing becomes one more.
    """
    if not routes:
        have = ", ".join(key.rpartition(".")[2] for key in notices.values if _UNSERVED.fullmatch(key))
        return (root.get("functions") or root).fault(
            "the engine would serve nothing: it serves http and httpApi events or one function URL, "
            f"and the functions have {f'only {have}' if have else 'none of them'}",
            "write http: GET /path, or set `home: aws` for the stage; `hitless invoke` runs a function by hand",
        )
    if (fault := next(filter(None, map(integration_fault, routes)), None)) is not None:
        return fault
    asked = [(value, need) for key, need in _NEEDS.items() for value in notices.values.get(key, {}).values()]
    guards = {each.route: one for each in routes for one in asked if _is_guarded(each, one[0].path)}
    opened = {route: item for item, route in named_routes(root, "open")}
    for route, item in opened.items():
        if route not in guards:
            notices.add(f"open {route}", item, f"{route} needs no authorizer, API key or resource policy: it is open")
    closed = [route for route in guards if route not in opened]
    if not closed:
        return None
    (at, need), more = guards[closed[0]], f" (and {len(closed) - 1} more)" if closed[1:] else ""
    lines = ["custom:", "  hitless:", "    open:", *(f"      - '{route}'" for route in (*opened, *closed))]
    return at.fault(
        f"{closed[0]}{more} {need}, which the engine does not enforce: anybody could call it",
        "set `home: aws` for the stage, or say in serverless.yml that anybody may call it:\n" + "\n".join(lines),
    )


def _is_guarded(event: RouteEvent, key: str) -> bool:
    """Whether the key protects the route; a resource policy is a REST API's."""
    return key.startswith(f"{event.at.path}.") or (key.startswith("provider.") and not event.http_api)
