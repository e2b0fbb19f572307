"""The gateway's desired state as one frozen value: stages, routes, pools.

Each change is a pure method that returns a new state; only `Gateway.apply` applies it. Invariants: listeners and pools
do not change after `GatewayState.initial`, because HAProxy reads both only at its start and no release may need a
reload; previews therefore share one listener and are told apart by host; a route points to an existing pool; a
release's routes are set once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256

from hitless.errors import ConflictError
from hitless.service.model import Sticky, TlsSettings
from hitless.service.routes import ANY, METHODS, path_fault
from hitless.worker.request import INVOKE

API_GATEWAY_LIMIT_MS = 29_000
"""API Gateway gives up on an integration after 29 s and responds with 504."""

HTTP_API_LIMIT_MS = 30_000
"""An HTTP API gives up after 30 s and responds with 503."""

QUEUE_TIMEOUT_S = 8
"""A request without a free worker gets 503 after this: longer than a stall, shorter than a client waits (10 s)."""

FULL_WEIGHT = 10_000
"""Weights are ten-thousandths of a stage's requests."""

LONGEST_PATH = 2000
"""Characters of a path template: longer ones would not fit a line of HAProxy's."""

LONGEST_SOCKET_BYTES = 97
"""HAProxy accepts no longer Unix address, for a listener or a server: it keeps room for a temporary name."""

SHARED, SHARED_TLS = "by_host", "by_host_tls"
"""The listeners of the stages with a host: HTTP and HTTPS. No name in serverless.yml may have an underscore."""

_HOST = re.compile(r"(?=[^/]{1,253}(?:/|$))[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*(?:/[A-Za-z0-9$_.+!*'()-]+)?")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SOCKET = re.compile(r"/[A-Za-z0-9_./@%+,=~-]+")
"""Characters that need no quotes in HAProxy's file and command line."""


class ServerMode(StrEnum):
    """Whether a server accepts requests (`ready`), only finishes those it has (`drain`) or is out of use (`maint`)."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


@dataclass(frozen=True, slots=True)
class ServerState:
    """A worker as the gateway sees it. `maxconn`: requests that its socket may hold at once, including the running one.
    A server that is not `checked` counts as up, because a check would wake its worker.
    """

    name: str
    socket: str
    maxconn: int = 1
    mode: ServerMode = ServerMode.READY
    checked: bool = True

    def __post_init__(self) -> None:
        if not _SERVER_NAME.fullmatch(self.name):
            raise ValueError(f"invalid server name {self.name!r}")
        if not _SOCKET.fullmatch(self.socket) or len(self.socket) > LONGEST_SOCKET_BYTES:
            raise ValueError(f"the gateway cannot use the socket path {self.socket!r}")
        if self.maxconn < 1:
            raise ValueError(f"maxconn of {self.name} is {self.maxconn}; it must be at least 1")

    @property
    def key(self) -> str:
        """The server's name in HAProxy, with a digest of the socket's path.

        HAProxy does not report a server's path, so the name has to. It also lets a worker be replaced by one of the
        same name on another socket: the new one is added before the old one is removed.
        """
        return f"{self.name}.{sha256(self.socket.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class PoolState:
    """A backend: the workers of one function of one release. Above `throttle` requests (0: no limit) it sends 429.

    A shield waits `attempt_ms` for its response, which includes the time that a request waits for a worker.
    """

    name: str
    servers: tuple[ServerState, ...] = ()
    timeout_ms: int = API_GATEWAY_LIMIT_MS
    throttle: int = 0
    attempt_ms: int = API_GATEWAY_LIMIT_MS


EVERY = 1_000_000
"""Requests a second that no stage reaches: all of them are logged."""


@dataclass(frozen=True, slots=True)
class Access:
    """A stage's access log: lines a second (beyond them a random sample), and whether they include the query.

    `traced`: of the requests logged without a `traceparent`, those get one whose id ends in 48 bits from this number
    on; None for all if requests are not traced.
    """

    per_s: int
    query: bool = True
    traced: int | None = None


@dataclass(frozen=True, slots=True)
class StageState:
    """The release that a stage's requests go to; the candidate gets `weight` ten-thousandths of them.

    `shield`: the live release answers requests that the candidate fails, `announced` by a header; `sticky`: how
    clients are identified that stay with one release. A stage with a `host` has no listener of its own: it gets the
    requests below `base` (`/orders`, or "" for the host's other paths), by HTTPS alone if `hsts_s` is not None.
    """

    stage: str
    live: int | None = None
    candidate: int | None = None
    weight: int = 0
    shield: bool = False
    announced: bool = False
    sticky: Sticky | None = None
    host: str | None = None
    access: Access | None = None
    base: str = ""
    hsts_s: int | None = None

    def __post_init__(self) -> None:
        if self.host is not None and not _HOST.fullmatch(self.host + self.base):
            raise ValueError(f"stage {self.stage} has the invalid host {self.host + self.base!r}")
        if not _NAME.fullmatch(self.stage):
            raise ValueError(f"invalid stage name {self.stage!r}")
        if not 0 <= self.weight <= FULL_WEIGHT:
            raise ValueError(f"the weight {self.weight} is not between 0 and {FULL_WEIGHT}")
        if self.candidate is None and self.weight:
            raise ValueError(f"stage {self.stage} has the weight {self.weight} but no candidate")


@dataclass(frozen=True, slots=True)
class RouteState:
    """One route of one release: method (or ANY) and path template as in serverless.yml → pool. An `idempotent` one may
    run twice, whatever its method. An `http_api` one is an HTTP API's, not a REST API's. INVOKE is for workers only.
    """

    release_key: str
    method: str
    path: str
    pool: str
    idempotent: bool = False
    http_api: bool = False

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, ANY, INVOKE):
            raise ValueError(f"a route cannot have the method {self.method!r}")
        if not self.path.startswith("/") or len(self.path) > LONGEST_PATH:
            raise ValueError(f"the path {self.path[:40]!r} has no leading slash or more than {LONGEST_PATH} characters")
        if fault := path_fault(self.path):
            raise ValueError(f"the path {self.path!r} {fault}")


def release_key(stage: str, release: int) -> str:
    """`dev.12`: the prefix of route keys, so that one map entry moves a stage from release to release."""
    return f"{stage}.{release}"


def _stage_of(key: str) -> str:
    return key.rpartition(".")[0]


def shield_of(pool: str) -> str:
    """The backend by which shielded requests reach a candidate's pool."""
    return f"shield_{pool}"


def trial_of(pool: str) -> str:
    """The frontend by which a pool's shield tries the pool."""
    return f"try_{pool}"


def server_timeout_ms(function_timeout_s: float, maxconn: int, *, http_api: bool = False) -> int:
    """How long the gateway waits for a function's response: its timeout for each request that may be ahead, plus 1 s.

    The worker ends a function at its timeout with a 502, and the gateway must not give up first. At most API Gateway's
    29 s, after which the response is 504, or an HTTP API's 30 s, after which it is 503.
    """
    limit_ms = HTTP_API_LIMIT_MS if http_api else API_GATEWAY_LIMIT_MS
    return min(limit_ms, round(function_timeout_s * 1000 * maxconn) + 1000)


@dataclass(frozen=True, slots=True)
class TlsListener:
    """A stage with TLS. `domain`: the name that its certificate must have. `shared`: at the shared listener, by it."""

    stage: str
    port: int
    domain: str | None
    settings: TlsSettings
    shared: bool = False

    @property
    def name(self) -> str:
        """The name that `Gateway.certify` has for it."""
        return self.domain if (self.shared or self.settings.acme) and self.domain else self.stage


def redirect_of(stage: str) -> str:
    """The listener that sends HTTP clients of the stage to HTTPS. No stage's name may have an underscore."""
    return f"redirect_{stage}"


@dataclass(frozen=True, slots=True)
class SharedTls:
    """The HTTPS listener of stages with a host. `port`: where clients reach it; `challenges`: the address of an ACME
    client, which gets the HTTP requests for `/.well-known/acme-challenge/`.
    """

    port: int
    challenges: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class GatewayState:
    """The gateway's whole state. Stages are in the order of the listeners; the order of routes has no meaning.
    `shared`: one more listener, for stages with a host; `secure`: another one, for those of them with TLS.
    `thumbprint`: of the ACME account's key, with which HTTP listeners answer challenges (RFC 8555, section 8.3); or "".
    """

    stages: tuple[StageState, ...]
    pools: tuple[PoolState, ...]
    routes: tuple[RouteState, ...] = ()
    shared: bool = False
    tls: tuple[TlsListener, ...] = ()
    secure: SharedTls | None = None
    thumbprint: str = ""

    @classmethod
    def initial(
        cls, stages: Iterable[str], pools: int = 64, *, shared: bool = False, tls: tuple[TlsListener, ...] = ()
    ) -> GatewayState:
        """Stages without a release, and that many empty pools `p00`, `p01`, …"""
        width = max(2, len(str(pools - 1)))
        return cls(
            tuple(StageState(stage) for stage in stages),
            tuple(PoolState(f"p{index:0{width}}") for index in range(pools)),
            shared=shared,
            tls=tls,
        )

    @property
    def listeners(self) -> tuple[str, ...]:
        """The names of the listening sockets, in the sockets' order: stages without a host, redirects, shared."""
        own = tuple(stage.stage for stage in self.stages if stage.host is None)
        own += tuple(redirect_of(one.stage) for one in self.tls if one.settings.redirect)
        return (*own, *(SHARED,) * self.shared, *(SHARED_TLS,) * (self.secure is not None))

    def stage(self, name: str) -> StageState:
        """That stage; KeyError if there is none."""
        for stage in self.stages:
            if stage.stage == name:
                return stage
        raise KeyError(name)

    def pool(self, name: str) -> PoolState:
        """That pool; KeyError if there is none."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)

    def free_pools(self) -> tuple[str, ...]:
        """Pools without servers and routes. A deploy that needs more of them is refused."""
        routed = {route.pool for route in self.routes}
        return tuple(pool.name for pool in self.pools if not pool.servers and pool.name not in routed)

    def shields_before(self, pool: str) -> tuple[str, ...]:
        """Backends by which requests may reach the pool later: the shields of all releases of its stage."""
        stages = {_stage_of(route.release_key) for route in self.routes if route.pool == pool}
        pools = {route.pool for route in self.routes if _stage_of(route.release_key) in stages}
        return tuple(shield_of(name) for name in sorted(pools))

    def with_stage(
        self,
        name: str,
        *,
        live: int | None,
        candidate: int | None = None,
        weight: int = 0,
        shield: bool = False,
        announced: bool = False,
        sticky: Sticky | None = None,
    ) -> GatewayState:
        """Shift, swap or clear the stage's entry: one atomic command."""
        changed = replace(self.stage(name), live=live, candidate=candidate, weight=weight)
        return self._with_stage(replace(changed, shield=shield, announced=announced, sticky=sticky))

    def with_access(self, name: str, access: Access | None) -> GatewayState:
        """Set what the stage's access log has."""
        return self._with_stage(replace(self.stage(name), access=access))

    def _with_stage(self, changed: StageState) -> GatewayState:
        return replace(self, stages=tuple(changed if one.stage == changed.stage else one for one in self.stages))

    def with_hsts(self, name: str, hsts_s: int | None) -> GatewayState:
        """Serve a stage with a host by HTTPS alone, or by HTTP alone if `hsts_s` is None."""
        return self._with_stage(replace(self.stage(name), hsts_s=hsts_s))

    def with_new_stage(self, name: str, host: str, base: str = "", hsts_s: int | None = None) -> GatewayState:
        """Add a stage without a release, at the shared listeners for that host and base path."""
        if not self.shared:
            raise ConflictError(
                "the engine was started without a listener for previews",
                hint="run `hitless down`, then `hitless up`, with custom.hitless.previews in serverless.yml",
            )
        if any(name == stage.stage or (host, base) == (stage.host, stage.base) for stage in self.stages):
            raise ConflictError(f"stage {name} or host {host}{base} exists already", hint="choose another name")
        return replace(self, stages=(*self.stages, StageState(name, host=host, base=base, hsts_s=hsts_s)))

    def without_stage(self, name: str) -> GatewayState:
        """Remove a stage with a host. The caller retires its releases."""
        if self.stage(name).host is None:
            raise ValueError(f"stage {name} has a listener of its own and cannot be removed")
        return replace(self, stages=tuple(stage for stage in self.stages if stage.stage != name))

    def with_routes(self, key: str, routes: Iterable[RouteState]) -> GatewayState:
        """Add the routes of a release that has none; the same ones again are accepted. Raises ConflictError."""
        given = tuple(routes)
        if any(route.release_key != key for route in given):
            raise ValueError(f"the routes of {key} include one of another release")
        if len({(route.method, route.path) for route in given}) < len(given):
            raise ValueError(f"{key} has two routes for one method and path")
        for route in given:
            self.pool(route.pool)
        present = {route for route in self.routes if route.release_key == key}
        if present and present != set(given):
            raise ConflictError(
                f"release {key} already has other routes", hint="remove them first, or use a new release"
            )
        return self if present else replace(self, routes=self.routes + given)

    def without_routes(self, key: str) -> GatewayState:
        """Remove a release's routes; it must be neither live nor a candidate."""
        for stage in self.stages:
            if key in {
                release_key(stage.stage, number) for number in (stage.live, stage.candidate) if number is not None
            }:
                raise ConflictError(
                    f"stage {stage.stage} still routes to {key}", hint="route the stage to another release first"
                )
        return replace(self, routes=tuple(route for route in self.routes if route.release_key != key))

    def with_servers(self, pool: str, servers: Iterable[ServerState], *, timeout_ms: int | None = None) -> GatewayState:
        """Set the pool's servers; `timeout_ms` stays as it is if it is not given."""
        given = tuple(servers)
        if len({server.key for server in given}) < len(given):
            raise ValueError(f"{pool} has the same server twice")
        present = self.pool(pool)
        return self._with_pool(replace(present, servers=given, timeout_ms=timeout_ms or present.timeout_ms))

    def with_limits(self, pool: str, *, throttle: int, attempt_ms: int) -> GatewayState:
        """Limit the pool's requests in progress (0: no limit) and a shield's wait, until it has no servers any more."""
        return self._with_pool(replace(self.pool(pool), throttle=throttle, attempt_ms=attempt_ms))

    def with_maxconn(self, pool: str, maxconn: int, *, timeout_ms: int | None = None) -> GatewayState:
        """Set the depth of all servers of the pool."""
        present = self.pool(pool)
        servers = (replace(server, maxconn=maxconn) for server in present.servers)
        return self.with_servers(pool, servers, timeout_ms=timeout_ms)

    def without_servers(self, pool: str) -> GatewayState:
        """Remove all servers of the pool and reset its timeout."""
        return self._with_pool(PoolState(self.pool(pool).name))

    def _with_pool(self, changed: PoolState) -> GatewayState:
        return replace(self, pools=tuple(changed if pool.name == changed.name else pool for pool in self.pools))
