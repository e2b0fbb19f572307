"""A pool's specification: everything that a zygote needs to run one function of one release, as JSON in the pool's
folder.

Standard library only, because worker processes read it. The round trip through JSON is exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class CorsSpec:
    """The CORS headers for browsers: which pages from other origins may send requests. `*` matches any characters.

    `preflight` and `response` are header lines of preflight responses and of an HTTP API's others.
    """

    origins: tuple[str, ...]
    preflight: str
    response: str = ""


@dataclass(frozen=True, slots=True)
class AuthorizerSpec:
    """A Lambda authorizer (TOKEN or REQUEST), or what a token must have (JWT or COGNITO): `service.event_sources`."""

    function: str
    kind: str
    sources: tuple[tuple[str, str], ...]
    validation: str
    ttl_s: int
    payload: str = ""
    simple: bool = False
    issuer: str = ""
    audience: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    keys: str = ""


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One route: method (or ANY), API Gateway's resource path, and a regular expression with a group for each
    parameter.

    `payload` is the payload format version of an HTTP API's route and `key` its route key. REST routes have neither.
    A route with `cors` is for preflight requests alone, and calls no handler. `mapped` is None for a proxy
    integration; for another it is the header lines of its responses.
    """

    method: str
    resource: str
    regex: str
    payload: str = ""
    key: str = ""
    cors: CorsSpec | None = None
    mapped: str | None = None
    authorizer: AuthorizerSpec | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """One function of one release. `key` names the pool forever; `environment` is the file's own, without Lambda's.

    `workers` is the pool's maximum; its size, which changes, is how many run. `runtime` is the declared one.
    `binary_media_types` are the REST API's. `release_key` is the release's at the gateway, and `response_s` how long a
    response may take (0: the timeout), with a route's authorizer. With `fresh` each worker imports the handler itself.
    `node` is the path of the Node.js that runs the handler, "" if there is none.
    `storage_mb` is the room of /tmp. `cpu_weight` is the function's part of the service's; 0 if it has none.
    """

    key: str
    service: str
    stage: str
    release: int
    function: str
    handler: str
    task_root: str
    environment: Mapping[str, str] = field(repr=False)
    timeout_s: int
    memory_mb: int
    workers: int
    region: str
    routes: tuple[RouteSpec, ...]
    log_dir: str
    release_header: bool
    commit: str
    runtime: str = ""
    binary_media_types: tuple[str, ...] = ()
    release_key: str = ""
    response_s: int = 0
    fresh: bool = False
    node: str = ""
    storage_mb: int = 512
    cpu_weight: float = 0

    @property
    def function_name(self) -> str:
        """The function's name on AWS: `service-stage-function`."""
        return f"{self.service}-{self.stage}-{self.function}"

    @property
    def is_program(self) -> bool:
        """Whether the function runs in a process of its own that asks the Runtime API: Node.js, or a custom runtime."""
        return self.runtime.startswith(("nodejs", "provided"))

    @property
    def only_http_api(self) -> bool:
        """Whether all routes are an HTTP API's."""
        return bool(self.routes) and all(route.payload for route in self.routes if route.cors is None)

    @property
    def title(self) -> str:
        """The pool's name for people: `worldclock/dev r3 api`."""
        return f"{self.service}/{self.stage} r{self.release} {self.function}"

    def to_json(self) -> str:
        """One JSON object; `from_json` gives the same spec back.

        What has its default is left out, so that an earlier version of hitless can read specs without newer features.
        """
        document: dict[str, Any] = {}
        for each in fields(self):
            if (value := getattr(self, each.name)) != each.default:
                document[each.name] = value
        document["environment"] = dict(self.environment)
        document["routes"] = [asdict(route) for route in self.routes]
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> PoolSpec:
        """Read what `to_json` wrote. Raises ValueError if it is not a spec."""
        try:
            fields: dict[str, Any] = json.loads(text)
            routes = tuple(_route(route) for route in fields.pop("routes"))
            fields["binary_media_types"] = tuple(fields.get("binary_media_types", ()))
            return cls(routes=routes, **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a pool's spec: {error}") from error


def _route(fields: dict[str, Any]) -> RouteSpec:
    cors = fields.pop("cors", None)
    if (asked := fields.pop("authorizer", None)) is not None:
        lists = {name: tuple(asked.get(name, ())) for name in ("audience", "scopes")}
        fields["authorizer"] = AuthorizerSpec(**{**asked, **lists, "sources": tuple(map(tuple, asked["sources"]))})
    return RouteSpec(**fields, cors=CorsSpec(**{**cors, "origins": tuple(cors["origins"])}) if cors else None)
