"""`integration` of http events: `lambda` with the framework's default templates, and what the engine cannot serve.

A proxy integration, the default, passes requests and results on as they are. The engine runs no mapping templates.
Source: `validate.js` and `method/integration.js` of Serverless Framework (osls).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hitless.errors import ServiceFileError
from hitless.service.event_sources import MappedRoute
from hitless.service.events import RouteEvent
from hitless.service.value import Value

_PROXY = ("LAMBDA_PROXY", "AWS_PROXY")
_LAMBDA = ("LAMBDA", "AWS")
_LITERAL = re.compile(r"'([\x20-\x7e]*)'")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_OWN_TYPE = "integration.response.header.Content-Type"
"""The content type of Lambda's own response, which is JSON."""


def mapped_routes(events: Iterable[RouteEvent]) -> tuple[MappedRoute, ...]:
    """The routes with `integration: lambda`."""
    return tuple(MappedRoute(event.route, _headers(event.at)) for event in events if _kind(event) in _LAMBDA)


def integration_fault(event: RouteEvent) -> ServiceFileError | None:
    """The error with which the engine refuses the event's integration, or None."""
    kind = _kind(event)
    if kind in _PROXY:
        return None
    hint = "use `integration: lambda-proxy`, or set `home: aws` for the stage"
    if kind not in _LAMBDA:
        value = event.at.get("integration") or event.at
        return value.fault(f"the engine runs functions only, so it cannot serve the integration {value.shown()}", hint)
    for parent, keys in (("request", ("template", "passThrough", "contentHandling")), ("response", None)):
        for key, value in _entries(event.at, parent):
            if key in keys if keys is not None else key != "headers":
                return value.fault("the engine runs no mapping templates of API Gateway, only the default ones", hint)
    for name, value in _entries(event.at, "response", "headers"):
        if not _NAME.fullmatch(name) or not (_LITERAL.fullmatch(value.text()) or value.text() == _OWN_TYPE):
            return value.fault("is not a fixed value in single quotes", "write \"'max-age=120'\", or use lambda-proxy")
    return None


def _kind(event: RouteEvent) -> str:
    value = event.at.get("integration") if not event.http_api and isinstance(event.at.data, Mapping) else None
    return _PROXY[0] if value is None else value.text().upper().replace("-", "_")


def _headers(event: Value) -> tuple[tuple[str, str], ...]:
    headers = {"content-type": "application/json"}
    cors = event.get("cors")
    if cors is not None and cors.data is not False:
        origins = cors.get("origins") or cors.get("origin") if isinstance(cors.data, Mapping) else None
        listed = origins.listed() if origins is not None else ()
        headers["access-control-allow-origin"] = ",".join(one.text() for one in listed) or "*"
        if isinstance(cors.data, Mapping) and cors.optional("allowCredentials", Value.flag, False):
            headers["access-control-allow-credentials"] = "true"
    for name, value in _entries(event, "response", "headers"):
        if _NAME.fullmatch(name) and (literal := _LITERAL.fullmatch(value.text())):
            headers[name.lower()] = literal[1]
    return tuple(headers.items())


def _entries(event: Value, *path: str) -> list[tuple[str, Value]]:
    """Key and value of each entry of the map at `path`, if there is one."""
    found: Value | None = event
    for key in path:
        found = found.get(key) if found is not None and isinstance(found.data, Mapping) else None
    if found is None or not isinstance(found.data, Mapping):
        return []
    return [(key, value) for key, value in found.mapping().items() if value.data is not None]
