"""`cors` of http events and `provider.httpApi.cors`: what Serverless Framework makes of them for API Gateway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from hitless.service.event_sources import Cors
from hitless.service.events import RouteEvent
from hitless.service.reader import whole
from hitless.service.routes import ANY, METHODS
from hitless.service.value import Value

_HEADERS = (
    "Content-Type", "X-Amz-Date", "Authorization", "X-Api-Key", "X-Amz-Security-Token", "X-Amz-User-Agent",
    "X-Amzn-Trace-Id",
)  # fmt: skip
_OTHER_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
"""What ANY stands for in a REST API's preflight response."""
_AGE = whole(-1, 86400 * 365)


def rest_cors(events: Iterable[RouteEvent]) -> dict[str, Cors]:
    """Path → what its preflight responses say. Events of one path add up, the later ones first."""
    found: dict[str, Cors] = {}
    for event in events:
        cors = event.at.get("cors") if not event.http_api and isinstance(event.at.data, Mapping) else None
        if cors is not None and cors.data is not False:
            path = event.route.path
            found[path] = _united(_rest_event(cors, event.route.method), found.get(path))
    for path, read in found.items():
        each = ((_OTHER_METHODS if method == ANY else (method,)) for method in read.methods)
        found[path] = replace(read, methods=tuple(method for group in each for method in group))
    return found


def _rest_event(cors: Value, method: str) -> Cors:
    if not isinstance(cors.data, Mapping):
        cors.flag()
        return Cors(("*",), ("OPTIONS", method), _HEADERS)
    origin = cors.optional("origin", _line, "*")
    origins = cors.optional("origins", _texts, ()) or tuple(one.strip() for one in origin.split(","))
    methods = cors.optional("methods", _texts, ()) or ("OPTIONS",)
    return Cors(
        origins=origins,
        methods=tuple(dict.fromkeys((*methods, "OPTIONS", method))),
        headers=cors.optional("headers", _texts, ()) or _HEADERS,
        max_age_s=cors.optional("maxAge", _AGE, None),
        credentials=cors.optional("allowCredentials", Value.flag, False),
        cache_control=cors.optional("cacheControl", _line, ""),
    )


def _united(new: Cors, old: Cors | None) -> Cors:
    if old is None:
        return new
    return Cors(
        origins=new.origins if new.origins == ("*",) else tuple(dict.fromkeys((*new.origins, *old.origins))),
        methods=tuple(dict.fromkeys((*new.methods, *old.methods))),
        headers=tuple(dict.fromkeys((*new.headers, *old.headers))),
        max_age_s=new.max_age_s or old.max_age_s,
        credentials=new.credentials or old.credentials,
        cache_control=new.cache_control or old.cache_control,
    )


def http_api_cors(cors: Value | None, events: Iterable[RouteEvent]) -> Cors | None:
    """What the HTTP API or function URL says to pages of other origins; None if it says nothing. Both have the same
    keys.
    """
    if cors is None or cors.data is False:
        return None
    used = ("OPTIONS", *(event.route.method for event in events if event.http_api))
    filled = tuple(dict.fromkeys(method for one in used for method in (METHODS if one == ANY else (one,))))
    if not isinstance(cors.data, Mapping):
        cors.flag()
        return Cors(("*",), filled, _HEADERS)
    return Cors(
        origins=cors.optional("allowedOrigins", _texts, ()) or ("*",),
        methods=cors.optional("allowedMethods", _texts, ()) or filled,
        headers=cors.optional("allowedHeaders", _texts, ()) or _HEADERS,
        exposed=cors.optional("exposedResponseHeaders", _texts, ()),
        max_age_s=cors.optional("maxAge", _AGE, None),
        credentials=cors.optional("allowCredentials", Value.flag, False),
    )


def _texts(value: Value) -> tuple[str, ...]:
    return tuple(map(_line, value.listed()))


def _line(value: Value) -> str:
    text = value.text()
    if not text.isprintable() or not text.isascii():
        raise value.fault("is not valid in a header", "write printable ASCII characters")
    return text
