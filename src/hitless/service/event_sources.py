"""What a function is invoked by: its routes with CORS, integrations and authorizers, HTTP APIs, schedules."""

from __future__ import annotations

import msgspec

from hitless.documents import Discreet

DEFAULT_PATH = "/{$default+}"
"""The path of an HTTP API's default route: any path, the root too. No path of a file can be written so."""
DEFAULT_PAYLOAD = "2.0"
"""The payload format version of an HTTP API's events."""
URL_PAYLOAD = "url"
"""Stands for the events of a function URL, which are 2.0 with some differences."""


class Route(msgspec.Struct, frozen=True):
    """A method (or ANY) and an API Gateway resource path: `/zones/{area}/{city}`, `/{proxy+}`, the root `/`."""

    method: str
    path: str

    def __str__(self) -> str:
        return "$default" if self.path == DEFAULT_PATH else f"{self.method} {self.path}"


class Cors(msgspec.Struct, frozen=True):
    """What browsers are told about requests of pages from other origins. `*` in an origin stands for any characters."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    exposed: tuple[str, ...] = ()
    """Response headers that such a page may read."""
    max_age_s: int | None = None
    credentials: bool = False
    cache_control: str = ""


class Preflight(msgspec.Struct, frozen=True):
    """A path of a REST API whose preflight requests are answered without the handler."""

    path: str
    cors: Cors


class MappedRoute(msgspec.Struct, frozen=True):
    """A route with `integration: lambda`, and the headers of its responses."""

    route: Route
    headers: tuple[tuple[str, str], ...]


class Authorizer(msgspec.Struct, frozen=True):
    """A function that permits requests: TOKEN or REQUEST, or JWT for CHECKS. `sources`: where an identity is
    (`header`), and its name. `payload` is the format version of an HTTP API's authorizer, and a `simple` one returns
    `isAuthorized`. A token must have the issuer, any of the audience and any of the scopes. `keys` is the issuer's JSON
    Web Key Set, if the service gives it.
    """

    function: str
    kind: str
    sources: tuple[tuple[str, str], ...]
    validation: str = ""
    ttl_s: int = 300
    payload: str = ""
    simple: bool = False
    issuer: str = ""
    audience: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    keys: str = ""


class Schedule(Discreet, frozen=True):
    """When the engine invokes a function by itself: `rate(…)` or `cron(…)`. `input` is the event as JSON, if given."""

    HIDDEN = ("input",)
    expression: str
    input: str | None = None


class HttpApi(msgspec.Struct, frozen=True):
    """Those of a function's routes that are an HTTP API's, the format version of their events, and the API's CORS.

    The version of a function URL's events is `URL_PAYLOAD`.
    """

    routes: tuple[Route, ...]
    payload: str = DEFAULT_PAYLOAD
    cors: Cors | None = None
