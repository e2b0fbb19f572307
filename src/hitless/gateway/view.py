"""HAProxy's state in its own terms, and the commands that lead from one view to another. Pure.

`view_of` translates a state to HAProxy's terms, and `hitless.gateway.observe` reads what HAProxy has; `difference` may
start from either. Its order is the only one in which no request fails (by trials): add timeouts, servers and routes;
shift or swap atomically with one `set map` per stage; remove routes; at last remove servers, each after its requests
have ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hitless.gateway.routes import (
    Entry,
    idempotent_entries,
    literal_entries,
    pattern_entries,
    sticky_entries,
)
from hitless.gateway.state import (
    Access,
    GatewayState,
    ServerMode,
    StageState,
    release_key,
    shield_of,
)

NO_RELEASE = "-"
"""In a stage's entry: no release."""

CHECK_KEYWORDS = (
    "check inter 2s fastinter 100ms downinter 100ms rise 1 fall 2 observe layer4 error-limit 1 on-error mark-down"
)
"""A worker in back-off has no socket: the first failed connect takes it out, and a check soon after it is back takes it
in. While it is up a check every 2 s is enough, because requests find a failure first.
"""

POOL_KEYWORDS = "pool-purge-delay 5s pool-max-conn -1"
"""HAProxy's defaults for servers of its file; a server from `add server` would close after each request."""

ServerKey = tuple[str, str]
"""Pool, and the server's name in HAProxy."""


class MapName(StrEnum):
    """The maps: file names in the boot folder."""

    HOSTS = "hosts.map"
    BASES = "bases.map"
    HSTS = "hsts.map"
    STAGES = "stages.map"
    TIMEOUTS = "timeouts.map"
    THROTTLES = "throttles.map"
    ACCESS = "access.map"
    LITERALS = "literals.map"
    PATTERNS = "patterns.map"
    IDEMPOTENT = "idempotent.map"
    STICKY = "sticky.map"


class WaitFor(StrEnum):
    """The condition that a command waits for."""

    NONE = "none"
    POOL_IDLE = "pool_idle"  # no request in the pool or its queue
    SERVER_IDLE = "server_idle"  # no request on the server
    CLOSED = "closed"  # refused while connections are closing: repeat


@dataclass(frozen=True, slots=True)
class Command:
    """One line for the runtime socket; `wait_for` refers to `target` (pool or pool/server)."""

    line: str
    wait_for: WaitFor = WaitFor.NONE
    target: str = ""


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server in HAProxy. `socket` is empty if it was read from HAProxy, which does not report it."""

    maxconn: int
    mode: ServerMode
    socket: str = ""
    checked: bool = True


PLAIN = (
    MapName.HOSTS,
    MapName.BASES,
    MapName.HSTS,
    MapName.STAGES,
    MapName.TIMEOUTS,
    MapName.THROTTLES,
    MapName.ACCESS,
    MapName.LITERALS,
)
ORDERED = (MapName.PATTERNS, MapName.IDEMPOTENT, MapName.STICKY)
"""Maps whose order matters, because the first match wins."""


@dataclass(frozen=True, slots=True)
class View:
    """HAProxy's maps and servers. Ordered entries are by release, those of STICKY by stage."""

    plain: Mapping[MapName, Mapping[str, str]]
    ordered: Mapping[MapName, Mapping[str, tuple[Entry, ...]]]
    servers: Mapping[ServerKey, ServerView]

    def maps(self) -> dict[str, list[Entry]]:
        """File name → entries in order, for each map."""
        return {
            **{name: list(self.plain[name].items()) for name in PLAIN},
            **{name: [entry for entries in self.ordered[name].values() for entry in entries] for name in ORDERED},
        }


def view_of(state: GatewayState) -> View:
    literals = literal_entries(state.routes)
    return View(
        plain={
            MapName.HOSTS: {f"{s.host}{s.base}/": s.stage for s in state.stages if s.host is not None},
            MapName.BASES: {s.stage: s.base for s in state.stages if s.base},
            MapName.HSTS: {s.stage: str(s.hsts_s) for s in state.stages if s.hsts_s is not None},
            MapName.STAGES: {stage.stage: stage_value(stage) for stage in state.stages},
            MapName.TIMEOUTS: {pool.name: str(pool.timeout_ms) for pool in state.pools}
            | {shield_of(pool.name): str(pool.attempt_ms) for pool in state.pools},
            MapName.THROTTLES: {p.name: str(p.throttle) for p in state.pools if p.throttle or p.name in literals},
            MapName.ACCESS: {key: value for s in state.stages for key, value in access_entries(s.stage, s.access)},
            MapName.LITERALS: literals,
        },
        ordered={
            MapName.PATTERNS: pattern_entries(state.routes),
            MapName.IDEMPOTENT: idempotent_entries(state.routes),
            MapName.STICKY: {s.stage: found for s in state.stages if (found := sticky_entries(s.stage, s.sticky))},
        },
        servers={
            (pool.name, server.key): ServerView(server.maxconn, server.mode, server.socket, server.checked)
            for pool in state.pools
            for server in pool.servers
        },
    )


def stage_value(stage: StageState) -> str:
    """`dev.12`, or with a candidate `dev.12:dev.13:1000:sh`: live, candidate, its weight, and flags (`s` shielded, `h`
    announced by a header, `k` clients keep their release).
    """
    live = NO_RELEASE if stage.live is None else release_key(stage.stage, stage.live)
    if stage.candidate is None:
        return live
    letters = "s" * stage.shield + "h" * stage.announced + "k" * (stage.sticky is not None)
    return f"{live}:{release_key(stage.stage, stage.candidate)}:{stage.weight}:{letters or NO_RELEASE}"


def access_entries(stage: str, access: Access | None) -> Iterator[Entry]:
    """Twice the lines a second, plus one if the query is logged: HAProxy decodes it by arithmetic. And `traced`."""
    if access is not None:
        yield stage, str(2 * access.per_s + access.query)
    if access is not None and access.traced is not None:
        yield f"{stage}/traced", str(access.traced)


def server_line(server: ServerView) -> str:
    """The rest of a server's line, in the boot file and in `add server` (which inherits no defaults)."""
    check = f" {CHECK_KEYWORDS}" if server.checked else ""
    return f"unix@{server.socket} maxconn {server.maxconn}{check} {POOL_KEYWORDS}"


def difference(old: View, new: View, maps: str) -> tuple[Command, ...]:
    """The commands that turn `old` into `new`, in a safe order. `maps` is the folder in the maps' names, without a
    slash at its end. Listeners and pools are those of `new`, because they cannot change while HAProxy runs.
    """
    return (
        *_set(MapName.TIMEOUTS, old, new, maps),
        *_set(MapName.THROTTLES, old, new, maps),
        *_unset(MapName.ACCESS, old, new, maps),
        *_set(MapName.ACCESS, old, new, maps),
        *_add_servers(old, new),
        *_add_literals(old, new, maps),
        *(c for name in ORDERED for c in _rewrite_ordered(name, old.ordered[name], new.ordered[name], maps)),
        *_set(MapName.STAGES, old, new, maps),
        *_set(MapName.BASES, old, new, maps),
        *_set(MapName.HSTS, old, new, maps),
        *_unset(MapName.HOSTS, old, new, maps),
        *_set(MapName.HOSTS, old, new, maps),
        *(c for name in (MapName.BASES, MapName.HSTS, MapName.STAGES) for c in _unset(name, old, new, maps)),
        *_take_servers_out(old, new),
        *_remove_routes(old, new, maps),
        *_unset(MapName.THROTTLES, old, new, maps),
        *_remove_servers(old, new),
    )


def _set(name: MapName, old: View, new: View, maps: str) -> Iterator[Command]:
    present = old.plain[name]
    for key, value in new.plain[name].items():
        if key not in present:
            yield Command(f"add map {maps}/{name} {key} {value}")
        elif present[key] != value:
            yield Command(f"set map {maps}/{name} {key} {value}")


def _unset(name: MapName, old: View, new: View, maps: str) -> Iterator[Command]:
    for key in sorted(old.plain[name].keys() - new.plain[name].keys()):
        yield Command(f"del map {maps}/{name} {key}")


def _add_servers(old: View, new: View) -> Iterator[Command]:
    for (pool, key), server in new.servers.items():
        present, at = old.servers.get((pool, key)), f"{pool}/{key}"
        if present is None:
            yield Command(f"add server {at} {server_line(server)}")
            present = ServerView(server.maxconn, ServerMode.MAINT)
        if present.maxconn != server.maxconn:
            yield Command(f"set maxconn server {at} {server.maxconn}")
        if server.mode is ServerMode.READY and present.mode is not ServerMode.READY:
            # Checks first, so that a ready server is always checked, even if we die in between.
            if server.checked:
                yield Command(f"enable health {at}")
            yield Command(f"set server {at} state ready")


def _add_literals(old: View, new: View, maps: str) -> Iterator[Command]:
    present = old.plain[MapName.LITERALS]
    for key, pool in new.plain[MapName.LITERALS].items():
        if key in present and present[key] != pool:
            yield Command(f"del map {maps}/{MapName.LITERALS} {key}")
        if present.get(key) != pool:
            yield Command(f"add map {maps}/{MapName.LITERALS} {key} {pool}")


def _rewrite_ordered(
    name: str, old: Mapping[str, tuple[Entry, ...]], new: Mapping[str, tuple[Entry, ...]], maps: str
) -> Iterator[Command]:
    for release, entries in new.items():
        present = old.get(release, ())
        if present == entries:
            continue
        # `add map` appends and the order matters, so a release with any difference is written anew.
        for key in dict.fromkeys(key for key, _ in present):
            yield Command(f"del map {maps}/{name} {_escaped(key)}")
        for key, value in entries:
            yield Command(f"add map {maps}/{name} {_escaped(key)} {_escaped(value)}")


def _escaped(text: str) -> str:
    """Escape for HAProxy's command line, which removes backslashes."""
    return text.replace("\\", "\\\\")


def _take_servers_out(old: View, new: View) -> Iterator[Command]:
    for (pool, key), server in new.servers.items():
        present = old.servers.get((pool, key), ServerView(server.maxconn, ServerMode.MAINT))
        if server.mode is not ServerMode.READY and present.mode is not server.mode:
            yield Command(f"set server {pool}/{key} state {server.mode}")


def _remove_routes(old: View, new: View, maps: str) -> Iterator[Command]:
    yield from _unset(MapName.LITERALS, old, new, maps)
    for name in ORDERED:
        for release in sorted(old.ordered[name].keys() - new.ordered[name].keys()):
            for key in dict.fromkeys(key for key, _ in old.ordered[name][release]):
                yield Command(f"del map {maps}/{name} {key}")


def _remove_servers(old: View, new: View) -> Iterator[Command]:
    leaving = old.servers.keys() - new.servers.keys()
    staying = {pool for pool, _ in new.servers}
    for pool, key in sorted(leaving):
        at = f"{pool}/{key}"
        if pool in staying and old.servers[pool, key].mode is ServerMode.DRAIN:
            # It was drained before, so there is nothing to wait for.
            yield Command(f"set server {at} state maint")
        elif pool in staying:
            # Others take its place: let it finish. In a pool without others, `drain` would block queued requests.
            yield Command(f"set server {at} state drain")
            yield Command(f"set server {at} state maint", WaitFor.SERVER_IDLE, at)
        else:
            yield Command(f"set server {at} state maint", WaitFor.POOL_IDLE, pool)
    for pool, key in sorted(leaving):
        yield Command(f"del server {pool}/{key}", WaitFor.CLOSED, f"{pool}/{key}")
