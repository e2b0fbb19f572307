"""The difference between two states, applied to a model of HAProxy."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.gateway.observe import by_key, by_release
from hitless.gateway.state import Access, GatewayState, RouteState, ServerMode, ServerState, release_key
from hitless.gateway.view import ORDERED, PLAIN, Command, MapName, ServerView, View, WaitFor, difference, view_of
from hitless.service.model import Sticky, StickyBy
from tests.support import with_mode

pytestmark = pytest.mark.unit

MAPS = "/run/gw/boot"
POOLS = tuple(f"p{index:02}" for index in range(9))


class ModelOfHaproxy:
    """Maps as ordered lists, and servers; rejects what HAProxy 2.6 rejects."""

    def __init__(self, view: View) -> None:
        self.maps = view.maps()
        self.servers = {key: ServerView(server.maxconn, server.mode) for key, server in view.servers.items()}
        self.with_check = {key for key, server in view.servers.items() if server.checked}
        self.checked = set(self.with_check)

    def tell(self, command: Command) -> None:
        match command.line.replace("\\\\", "\\").split(" "):
            case ["add", "map", name, key, value]:
                self.maps[self._map(name)].append((key, value))
            case ["set", "map", name, key, value]:
                entries = self.maps[self._map(name)]
                assert key in dict(entries), "entry not found"
                entries[:] = [(k, value if k == key else v) for k, v in entries]
            case ["del", "map", name, key]:
                entries = self.maps[self._map(name)]
                assert key in dict(entries), "Key not found."
                entries[:] = [entry for entry in entries if entry[0] != key]
            case ["add", "server", at, address, "maxconn", maxconn, *more]:
                assert self._key(at) not in self.servers, "Already exists a server with the same name in backend."
                assert address.startswith("unix@/")
                self.servers[self._key(at)] = ServerView(int(maxconn), ServerMode.MAINT)
                if "check" in more:
                    self.with_check.add(self._key(at))
            case ["set", "maxconn", "server", at, maxconn]:
                self.servers[self._key(at)] = ServerView(int(maxconn), self.servers[self._key(at)].mode)
            case ["enable", "health", at]:
                assert self._key(at) in self.with_check, "Health checks are not configured on this server"
                self.checked.add(self._key(at))
            case ["set", "server", at, "state", mode]:
                self.servers[self._key(at)] = ServerView(self.servers[self._key(at)].maxconn, ServerMode(mode))
            case ["del", "server", at]:
                assert self.servers.pop(self._key(at)).mode is ServerMode.MAINT, "Only servers in maintenance mode"
                self.checked.discard(self._key(at))
                self.with_check.discard(self._key(at))
            case _:
                raise AssertionError(f"HAProxy does not know `{command.line}`")

    def view(self) -> View:
        return View(
            plain={name: by_key(self.maps[name]) for name in PLAIN},
            ordered={name: by_release(self.maps[name]) for name in ORDERED},
            servers=dict(self.servers),
        )

    def _map(self, name: str) -> str:
        folder, _, file = name.rpartition("/")
        assert folder == MAPS
        return file

    def _key(self, at: str) -> tuple[str, str]:
        pool, _, key = at.partition("/")
        assert pool in POOLS, "No such backend."
        return pool, key


def same(one: View, other: View) -> bool:
    def told(view: View) -> object:
        servers = {key: (server.maxconn, server.mode) for key, server in view.servers.items()}
        return view.plain, view.ordered, servers

    return told(one) == told(other)


def lines(commands: Iterable[Command]) -> list[str]:
    return [command.line.replace(MAPS + "/", "").split(" check")[0] for command in commands]


def between(old: GatewayState, new: GatewayState) -> tuple[Command, ...]:
    return difference(view_of(old), view_of(new), MAPS)


LISTENING, COMES_AND_GOES = ("dev", "prod"), "preview_x"
RELEASES = dict.fromkeys((*LISTENING, COMES_AND_GOES), (1, 2, 3))
STICKY = (None, Sticky(StickyBy.ADDRESS), Sticky(StickyBy.HEADER, "x-user"), Sticky(StickyBy.COOKIE, "sid"))


def pool_of(stage: str, release: int) -> str:
    """A release's routes never change, so its pool follows from its number."""
    return POOLS[release - 1 + 3 * list(RELEASES).index(stage)]


@st.composite
def states(draw: st.DrawFn) -> GatewayState:
    """Valid states: each release that a stage uses has its routes, whose pool has a ready server."""
    state = GatewayState.initial(LISTENING, pools=len(POOLS), shared=True)
    there = draw(st.booleans())
    if there:
        state = state.with_new_stage(COMES_AND_GOES, draw(st.sampled_from(["x.localhost", "y.localhost"])))
    for stage, releases in RELEASES.items():
        numbers = draw(st.lists(st.sampled_from(releases), max_size=3, unique=True))
        for number in numbers:
            key, pool = release_key(stage, number), pool_of(stage, number)
            generation, depth = draw(st.integers(1, 2)), draw(st.sampled_from([1, 8]))
            modes = [ServerMode.READY, *draw(st.lists(st.sampled_from(list(ServerMode)), max_size=2))]
            servers = [
                ServerState(f"w{index}", f"/run/{key}-{generation}/w{index}.sock", depth, mode)
                for index, mode in enumerate(modes)
            ]
            if draw(st.booleans()):
                servers.append(ServerState("z0", f"/run/{key}-{generation}/w0.sock", depth, checked=False))
            paths = ["/zones", "/zones/{area}", "/{proxy+}"][:number]
            state = state.with_servers(pool, servers, timeout_ms=draw(st.sampled_from([7000, 29_000])))
            state = state.with_limits(
                pool, throttle=draw(st.sampled_from([0, 7])), attempt_ms=draw(st.sampled_from([6000, 29_000]))
            )
            routes = [RouteState(key, "GET", path, pool) for path in paths]
            routes += [RouteState(key, "PUT", path, pool, path == "/{proxy+}") for path in paths]
            state = state.with_routes(key, routes)
        if stage == COMES_AND_GOES and not there:
            continue
        chosen: list[int | None] = [*numbers, None, None]
        live, candidate = chosen[:2]
        weight = draw(st.integers(0, 10_000)) if candidate else 0
        sticky = draw(st.sampled_from(STICKY)) if candidate else None
        state = state.with_stage(
            stage, live=live, candidate=candidate, weight=weight, shield=draw(st.booleans()), sticky=sticky
        ).with_access(stage, draw(st.sampled_from([None, Access(20), Access(20, query=False)])))
    return state


@given(states(), states())
def test_commands_change_any_state_into_any_other(old: GatewayState, new: GatewayState) -> None:
    model = ModelOfHaproxy(view_of(old))
    for command in between(old, new):
        model.tell(command)
    assert same(model.view(), view_of(new))
    ready = {key for key, server in model.servers.items() if server.mode is ServerMode.READY}
    assert ready & model.with_check <= model.checked
    assert model.with_check == {key for key, server in view_of(new).servers.items() if server.checked}


@given(states())
def test_equal_states_need_no_command(state: GatewayState) -> None:
    assert between(state, state) == ()


@given(states(), states())
def test_during_any_change_a_used_release_has_its_routes_and_a_ready_server(
    old: GatewayState, new: GatewayState
) -> None:
    model = ModelOfHaproxy(view_of(old))
    for command in between(old, new):
        model.tell(command)
        view = model.view()
        stages, ordered = view.plain[MapName.STAGES], view.ordered
        assert set(view.plain[MapName.HOSTS].values()) <= set(stages)
        for stage, entry in stages.items():
            for key in entry.split(":")[:2]:
                if key == "-":
                    continue
                number = int(key.partition(".")[2])
                assert view.plain[MapName.LITERALS][f"{key}|GET|/zones"] == pool_of(stage, number)
                assert len(ordered[MapName.PATTERNS].get(key, ())) == number - 1
                safe = [value for _, value in ordered[MapName.IDEMPOTENT].get(key, ())]
                assert safe == (["0", "0", "1"] if number == 3 else [])
                in_pool = [s for (pool, _), s in view.servers.items() if pool == pool_of(stage, number)]
                assert any(server.mode is ServerMode.READY for server in in_pool)


@given(states(), states(), st.data())
def test_a_change_interrupted_at_any_command_is_finished_from_haproxys_state(
    old: GatewayState, new: GatewayState, data: st.DataObject
) -> None:
    commands = between(old, new)
    model = ModelOfHaproxy(view_of(old))
    for command in commands[: data.draw(st.integers(0, len(commands)))]:
        model.tell(command)
    for command in difference(model.view(), view_of(new), MAPS):
        model.tell(command)
    assert same(model.view(), view_of(new))


@given(states(), st.data())
def test_duplicate_and_unknown_entries_are_corrected(state: GatewayState, data: st.DataObject) -> None:
    model = ModelOfHaproxy(view_of(state))
    for name in (MapName.LITERALS, MapName.PATTERNS, MapName.IDEMPOTENT, MapName.STICKY):
        entries = model.maps[name]
        if entries:
            entries.append(data.draw(st.sampled_from(entries)))
    model.maps[MapName.LITERALS].append(("dev.99|GET|/old", "p00"))
    model.maps[MapName.PATTERNS].insert(0, ("^foreign", "p00"))
    model.maps[MapName.STICKY].append(("foreign", "x"))
    for command in difference(model.view(), view_of(state), MAPS):
        model.tell(command)
    assert same(model.view(), view_of(state))


def test_a_releases_commands_are_in_the_order_that_fails_no_request() -> None:
    servers = [ServerState("w0", "/r/1/w0", 8)]
    old = (
        GatewayState.initial(["dev"], pools=2)
        .with_servers("p00", servers)
        .with_routes("dev.1", [RouteState("dev.1", "GET", "/x", "p00"), RouteState("dev.1", "GET", "/x/{id}", "p00")])
        .with_stage("dev", live=1)
    )
    new = (
        old.with_servers("p01", [ServerState("w0", "/r/2/w0", 8)], timeout_ms=7000)
        .with_routes("dev.2", [RouteState("dev.2", "GET", "/x", "p01"), RouteState("dev.2", "GET", "/x/{id}", "p01")])
        .with_stage("dev", live=2)
        .without_routes("dev.1")
        .without_servers("p00")
    )
    before, after = servers[0].key, new.pool("p01").servers[0].key
    assert lines(between(old, new)) == [
        "set map timeouts.map p01 7000",
        f"add server p01/{after} unix@/r/2/w0 maxconn 8",
        f"enable health p01/{after}",
        f"set server p01/{after} state ready",
        "add map literals.map dev.2|GET|/x p01",
        "add map literals.map dev.2|GET|/x/ p01",
        "add map patterns.map ^dev[.]2[|]GET[|]/x/[^/]+/?$ p01",
        "set map stages.map dev dev.2",
        "del map literals.map dev.1|GET|/x",
        "del map literals.map dev.1|GET|/x/",
        "del map patterns.map ^dev[.]1[|]GET[|]/x/[^/]+/?$",
        f"set server p00/{before} state maint",
        f"del server p00/{before}",
    ]


def test_a_shift_is_one_command() -> None:
    state = GatewayState.initial(["dev"], pools=1)
    old = state.with_stage("dev", live=1, candidate=2, weight=1000)
    assert lines(between(old, old.with_stage("dev", live=1, candidate=2, weight=5000))) == [
        "set map stages.map dev dev.1:dev.2:5000:-"
    ]


def test_the_sticky_map_is_set_before_the_stages_entry_needs_it_and_removed_after() -> None:
    live = GatewayState.initial(["dev"], pools=1).with_stage("dev", live=1)
    user = Sticky(StickyBy.HEADER, "x-user")
    rolling = live.with_stage("dev", live=1, candidate=2, weight=1000, shield=True, announced=True, sticky=user)
    key = "^dev[|](?s:.*?[[:cntrl:]])??x-user:[[:blank:]]*([^[:cntrl:]]+)"
    assert lines(between(live, rolling)) == [
        f"add map sticky.map {key} \\\\1",
        "set map stages.map dev dev.1:dev.2:1000:shk",
    ]
    assert lines(between(rolling, live)) == ["set map stages.map dev dev.1", f"del map sticky.map {key}"]


def test_servers_of_a_removed_pool_wait_until_it_is_idle_and_are_never_drained() -> None:
    state = GatewayState.initial(["dev"], pools=1)
    old = state.with_servers("p00", [ServerState("w0", "/r/w0"), ServerState("w1", "/r/w1")])
    commands = between(old, state)
    assert [command.wait_for for command in commands] == [WaitFor.POOL_IDLE] * 2 + [WaitFor.CLOSED] * 2
    assert {command.target for command in commands[:2]} == {"p00"}
    assert not any("drain" in command.line for command in commands)


def test_a_replacement_with_the_same_name_joins_before_the_old_worker_drains() -> None:
    state = GatewayState.initial(["dev"], pools=1)
    old = state.with_servers("p00", [ServerState("w0", "/r/1/w0")])
    new = state.with_servers("p00", [ServerState("w0", "/r/2/w0")])
    before, after = old.pool("p00").servers[0].key, new.pool("p00").servers[0].key
    commands = between(old, new)
    assert lines(commands) == [
        f"add server p00/{after} unix@/r/2/w0 maxconn 1",
        f"enable health p00/{after}",
        f"set server p00/{after} state ready",
        f"set server p00/{before} state drain",
        f"set server p00/{before} state maint",
        f"del server p00/{before}",
    ]
    assert commands[4].wait_for is WaitFor.SERVER_IDLE


def test_a_drained_server_is_not_waited_for_again() -> None:
    state = GatewayState.initial(["dev"], pools=1)
    both = state.with_servers("p00", [ServerState("w0", "/r/w0"), ServerState("w1", "/r/w1")])
    draining = with_mode(both, "p00", ServerMode.DRAIN, "w1")
    alone = both.with_servers("p00", both.pool("p00").servers[:1])
    assert {command.wait_for for command in between(draining, alone)} == {WaitFor.NONE, WaitFor.CLOSED}
    assert WaitFor.SERVER_IDLE in {command.wait_for for command in between(both, alone)}


def test_a_door_is_not_checked_because_a_check_would_wake_the_pool() -> None:
    state = GatewayState.initial(["dev"], pools=1)
    door = ServerState("z0", "/r/w0", checked=False)
    joined = between(state, state.with_servers("p00", [door]))
    assert [command.line for command in joined] == [
        f"add server p00/{door.key} unix@/r/w0 maxconn 1 pool-purge-delay 5s pool-max-conn -1",
        f"set server p00/{door.key} state ready",
    ]


def test_a_servers_depth_and_mode_are_changed_without_replacing_it() -> None:
    old = GatewayState.initial(["dev"], pools=1).with_servers("p00", [ServerState("w0", "/r/w0", 8)])
    at = f"p00/{old.pool('p00').servers[0].key}"
    assert lines(between(old, old.with_maxconn("p00", 1))) == [f"set maxconn server {at} 1"]
    drained = with_mode(old, "p00", ServerMode.DRAIN)
    assert lines(between(old, drained)) == [f"set server {at} state drain"]
    assert lines(between(drained, old)) == [f"enable health {at}", f"set server {at} state ready"]
