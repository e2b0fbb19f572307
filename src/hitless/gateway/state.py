"""What the gateway should do, as one frozen value: stages, routes, pools.

Every change is a pure method that returns a new state; `Gateway.apply` alone makes it true. Invariants: listeners and
pools never change after `GatewayState.initial` (HAProxy learns of both at its start only: no release needs a reload),
so the stages that come and go share one listener and are told apart by their host; a route points to a pool that
exists; a release's routes are given once and not edited.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256

from hitless.errors import ConflictError
from hitless.service.model import Sticky
from hitless.service.routes import ANY, METHODS, path_fault

API_GATEWAY_LIMIT_MS = 29_000
"""API Gateway gives up on an integration after 29 s and answers 504."""

QUEUE_TIMEOUT_S = 8
"""A request that found no free worker within that time is answered 503: late enough to outlast a stall of the machine,
soon enough for a client that waits 10 s.
"""

FULL_WEIGHT = 10_000
"""Weights are in ten-thousandths of a stage's requests."""

LONGEST_PATH = 2000
"""A path template's characters: longer ones would not fit a line of HAProxy's."""

LONGEST_SOCKET_BYTES = 97
"""HAProxy accepts no longer Unix address, for a listener or a server: it keeps room for a temporary name."""

SHARED = "by_host"
"""The listener of the stages that have a host. No name in serverless.yml holds an underscore."""

_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SOCKET = re.compile(r"/[A-Za-z0-9_./@%+,=~-]+")
"""What neither HAProxy's file nor its command line needs to quote."""


class ServerMode(StrEnum):
    """Whether a server takes requests (`ready`), only finishes those it has (`drain`) or is out (`maint`)."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


@dataclass(frozen=True, slots=True)
class ServerState:
    """One worker as the gateway sees it. `maxconn`: requests that may wait in its socket at once, the one at work
    included. One that is not `checked` is taken to be up: a socket whose worker a check would wake.
    """

    name: str
    socket: str
    maxconn: int = 1
    mode: ServerMode = ServerMode.READY
    checked: bool = True

    def __post_init__(self) -> None:
        if not _SERVER_NAME.fullmatch(self.name):
            raise ValueError(f"a server cannot be called {self.name!r}")
        if not _SOCKET.fullmatch(self.socket) or len(self.socket) > LONGEST_SOCKET_BYTES:
            raise ValueError(f"not a socket path that the gateway can use: {self.socket!r}")
        if self.maxconn < 1:
            raise ValueError(f"maxconn of {self.name} is {self.maxconn}; at least 1")

    @property
    def key(self) -> str:
        """The server's name in HAProxy: it carries a digest of the socket's path.

        HAProxy tells no one which path a server has, so the name has to. It also lets a worker be replaced by one of
        the same name on another socket: the new one joins before the old one leaves.
        """
        return f"{self.name}.{sha256(self.socket.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class PoolState:
    """One backend: the workers of one function of one release, or nobody. At so many requests in hand as `throttle`
    says, the next is answered 429; 0 for no such limit.
    """

    name: str
    servers: tuple[ServerState, ...] = ()
    timeout_ms: int = API_GATEWAY_LIMIT_MS
    throttle: int = 0


EVERY = 1_000_000
"""Requests a second that no stage has: all of them are logged."""


@dataclass(frozen=True, slots=True)
class Access:
    """Which of a stage's requests leave a line in its access log: up to so many a second, beyond them a random share;
    whether with their query.
    """

    per_s: int
    query: bool = True


@dataclass(frozen=True, slots=True)
class StageState:
    """Which release a stage's requests go to; `weight` ten-thousandths of them to the candidate.

    `shield`: the live release answers what the candidate fails, `announced` by a header; `sticky`: what tells the
    clients apart that are to stay with one release. One that has a `host` has no listener of its own.
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

    def __post_init__(self) -> None:
        if self.host is not None and not _HOST.fullmatch(self.host):
            raise ValueError(f"a stage cannot be reached under {self.host!r}")
        if self.host is not None and self.sticky is not None:
            raise ValueError(f"stage {self.stage} cannot be sticky: the map for it stands in HAProxy's file")
        if not _NAME.fullmatch(self.stage):
            raise ValueError(f"a stage cannot be called {self.stage!r}")
        if not 0 <= self.weight <= FULL_WEIGHT:
            raise ValueError(f"a weight of {self.weight} is not within 0 and {FULL_WEIGHT}")
        if self.candidate is None and self.weight:
            raise ValueError(f"stage {self.stage} has a weight of {self.weight} and no candidate")


@dataclass(frozen=True, slots=True)
class RouteState:
    """One route of one release: method (or ANY) and path template as in serverless.yml → pool. An `idempotent` one may
    be run twice, whatever its method.
    """

    release_key: str
    method: str
    path: str
    pool: str
    idempotent: bool = False

    def __post_init__(self) -> None:
        if self.method != ANY and self.method not in METHODS:
            raise ValueError(f"{self.method!r} is not a method of a route")
        if not self.path.startswith("/") or len(self.path) > LONGEST_PATH:
            raise ValueError(
                f"the path {self.path[:40]!r} has no leading slash, or more than {LONGEST_PATH} characters"
            )
        if fault := path_fault(self.path):
            raise ValueError(f"the path {self.path!r} {fault}")


def release_key(stage: str, release: int) -> str:
    """`dev.12`: what route keys begin with, so that one map entry moves a stage from release to release."""
    return f"{stage}.{release}"


def _stage_of(key: str) -> str:
    return key.rpartition(".")[0]


LIVE_SERVER = "live"
"""In the backend of `shield_of`: the one that answers when the candidate has failed."""


def shield_of(pool: str) -> str:
    """The backend by which requests come to a candidate's pool that the live release may answer in its place."""
    return f"shield_{pool}"


def trial_of(pool: str) -> str:
    """The frontend by which the shield of a pool tries it."""
    return f"try_{pool}"


def server_timeout_ms(function_timeout_s: float, maxconn: int) -> int:
    """How long the gateway waits for a function's answer: its own time-out for each request that may be before it,
    and 1 s.

    The worker's side ends a function at its time-out with a 502; the gateway must not be the first to give up. Never
    beyond API Gateway's 29 s, after which the answer is 504.
    """
    return min(API_GATEWAY_LIMIT_MS, round(function_timeout_s * 1000 * maxconn) + 1000)


@dataclass(frozen=True, slots=True)
class GatewayState:
    """All that the gateway is to hold. Order of stages is that of the listeners; order of routes has no meaning.
    `shared`: one more listener, for stages with a host.
    """

    stages: tuple[StageState, ...]
    pools: tuple[PoolState, ...]
    routes: tuple[RouteState, ...] = ()
    shared: bool = False

    @classmethod
    def initial(cls, stages: Iterable[str], pools: int = 64, *, shared: bool = False) -> GatewayState:
        """Stages without a release and that many empty pools `p00`, `p01`, …"""
        width = max(2, len(str(pools - 1)))
        return cls(
            tuple(StageState(stage) for stage in stages),
            tuple(PoolState(f"p{index:0{width}}") for index in range(pools)),
            shared=shared,
        )

    @property
    def listeners(self) -> tuple[str, ...]:
        """What has a listening socket, in the sockets' order: stages without a host, then `SHARED`."""
        own = tuple(stage.stage for stage in self.stages if stage.host is None)
        return (*own, SHARED) if self.shared else own

    def stage(self, name: str) -> StageState:
        """That stage; KeyError where there is none."""
        for stage in self.stages:
            if stage.stage == name:
                return stage
        raise KeyError(name)

    def pool(self, name: str) -> PoolState:
        """That pool; KeyError where there is none."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)

    def free_pools(self) -> tuple[str, ...]:
        """Pools without servers that no route points to. A deploy that needs more of them is refused."""
        routed = {route.pool for route in self.routes}
        return tuple(pool.name for pool in self.pools if not pool.servers and pool.name not in routed)

    def shields_before(self, pool: str) -> tuple[str, ...]:
        """Backends by which requests may come to the pool later: the shields of all releases of its stage."""
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
        """Shift, swap or clear: becomes one atomic command."""
        now = self.stage(name)
        changed = StageState(name, live, candidate, weight, shield, announced, sticky, now.host, now.access)
        return self._with_stage(changed)

    def with_access(self, name: str, access: Access | None) -> GatewayState:
        """That much of the stage's requests in its log; nothing for a stage that has no listener of its own."""
        stage = self.stage(name)
        return self._with_stage(replace(stage, access=access if stage.host is None else None))

    def _with_stage(self, changed: StageState) -> GatewayState:
        return replace(self, stages=tuple(changed if one.stage == changed.stage else one for one in self.stages))

    def with_new_stage(self, name: str, host: str) -> GatewayState:
        """One more stage, without a release, at the shared listener under that host."""
        if not self.shared:
            raise ConflictError("the gateway has no listener for stages that come and go", hint="start it with one")
        if any(name == stage.stage or host == stage.host for stage in self.stages):
            raise ConflictError(f"there is a stage {name} already, or one under {host}", hint="choose another name")
        return replace(self, stages=(*self.stages, StageState(name, host=host)))

    def without_stage(self, name: str) -> GatewayState:
        """A stage with a host goes, as if it had never been; what its releases have is left to whoever retires them."""
        if self.stage(name).host is None:
            raise ValueError(f"stage {name} has a listener of its own, which stays")
        return replace(self, stages=tuple(stage for stage in self.stages if stage.stage != name))

    def with_routes(self, key: str, routes: Iterable[RouteState]) -> GatewayState:
        """The routes of a release that has none yet (the same ones again are accepted). ConflictError for others."""
        given = tuple(routes)
        if any(route.release_key != key for route in given):
            raise ValueError(f"a route of another release among those of {key}")
        if len({(route.method, route.path) for route in given}) < len(given):
            raise ValueError(f"{key} routes one method and path twice")
        for route in given:
            self.pool(route.pool)
        present = {route for route in self.routes if route.release_key == key}
        if present and present != set(given):
            raise ConflictError(
                f"release {key} has other routes already", hint="remove them first, or use a new release"
            )
        return self if present else replace(self, routes=self.routes + given)

    def without_routes(self, key: str) -> GatewayState:
        """Forget a release's routes; it must not be live or a candidate."""
        for stage in self.stages:
            if key in {
                release_key(stage.stage, number) for number in (stage.live, stage.candidate) if number is not None
            }:
                raise ConflictError(
                    f"stage {stage.stage} still sends requests to {key}", hint="move the stage off it first"
                )
        return replace(self, routes=tuple(route for route in self.routes if route.release_key != key))

    def with_servers(self, pool: str, servers: Iterable[ServerState], *, timeout_ms: int | None = None) -> GatewayState:
        """These servers and no others in that pool; `timeout_ms` stays as it is where it is not given."""
        given = tuple(servers)
        if len({server.key for server in given}) < len(given):
            raise ValueError(f"one server twice in {pool}")
        present = self.pool(pool)
        return self._with_pool(replace(present, servers=given, timeout_ms=timeout_ms or present.timeout_ms))

    def with_throttle(self, pool: str, throttle: int) -> GatewayState:
        """That limit of requests in hand (0: none), until the pool has no servers any more."""
        return self._with_pool(replace(self.pool(pool), throttle=throttle))

    def with_maxconn(self, pool: str, maxconn: int, *, timeout_ms: int | None = None) -> GatewayState:
        """That depth for all servers of the pool."""
        present = self.pool(pool)
        servers = (replace(server, maxconn=maxconn) for server in present.servers)
        return self.with_servers(pool, servers, timeout_ms=timeout_ms)

    def without_servers(self, pool: str) -> GatewayState:
        """Nobody in that pool, and the time-out as at the start."""
        return self._with_pool(PoolState(self.pool(pool).name))

    def _with_pool(self, changed: PoolState) -> GatewayState:
        return replace(self, pools=tuple(changed if pool.name == changed.name else pool for pool in self.pools))
