"""The gateway's state: valid and invalid values, and what it derives."""

from __future__ import annotations

import pytest

from hitless.documents import decode, to_text
from hitless.errors import ConflictError, EngineError
from hitless.gateway.state import (
    SHARED,
    GatewayState,
    RouteState,
    ServerMode,
    ServerState,
    StageState,
    release_key,
    server_timeout_ms,
)
from tests.support import release_keys, with_mode

pytestmark = pytest.mark.unit

SERVERS = (ServerState("w0", "/run/a/w0.sock", 8), ServerState("w1", "/run/a/w1.sock", 8))
ROUTES = (RouteState("dev.1", "GET", "/zones", "p01"), RouteState("dev.1", "ANY", "/{proxy+}", "p02"))


def shipped() -> GatewayState:
    state = GatewayState.initial(["dev", "prod"], pools=4)
    state = state.with_servers("p01", SERVERS, timeout_ms=7000).with_routes("dev.1", ROUTES)
    return state.with_stage("dev", live=1)


def test_a_new_gateway_has_stages_without_release_and_free_pools() -> None:
    state = GatewayState.initial(["dev"], pools=64)
    assert state.stages == (StageState("dev"),)
    assert len(state.free_pools()) == 64
    assert state.free_pools()[:2] == ("p00", "p01")


def test_pool_names_sort_numerically_beyond_a_hundred() -> None:
    names = [pool.name for pool in GatewayState.initial(["dev"], pools=120).pools]
    assert names == sorted(names)
    assert names[-1] == "p119"


def test_a_pool_with_servers_or_with_routes_to_it_is_not_free() -> None:
    assert shipped().free_pools() == ("p00", "p03")


def test_a_pool_is_free_again_when_its_servers_and_routes_are_removed() -> None:
    state = shipped().with_stage("dev", live=None).without_routes("dev.1").without_servers("p01")
    assert state == GatewayState.initial(["dev", "prod"], pools=4)


def test_routes_of_a_live_release_or_candidate_cannot_be_removed() -> None:
    for state in (shipped(), shipped().with_stage("dev", live=None, candidate=1, weight=0)):
        with pytest.raises(ConflictError, match=r"dev still routes to dev\.1"):
            state.without_routes("dev.1")


def test_repeated_routes_change_nothing_and_other_routes_are_refused() -> None:
    state = shipped()
    assert state.with_routes("dev.1", reversed(ROUTES)) == state
    with pytest.raises(ConflictError):
        state.with_routes("dev.1", ROUTES[:1])


def test_routes_must_point_to_pools_that_exist_and_belong_to_the_release() -> None:
    state = GatewayState.initial(["dev"], pools=2)
    with pytest.raises(KeyError):
        state.with_routes("dev.1", [RouteState("dev.1", "GET", "/x", "p07")])
    with pytest.raises(ValueError, match="another release"):
        state.with_routes("dev.1", [RouteState("dev.2", "GET", "/x", "p00")])
    with pytest.raises(ValueError, match="two routes"):
        state.with_routes("dev.1", [RouteState("dev.1", "GET", "/x", "p00"), RouteState("dev.1", "GET", "/x", "p01")])


def test_depth_changes_for_all_servers_and_keeps_the_timeout() -> None:
    pool = shipped().with_maxconn("p01", 1).pool("p01")
    assert {server.maxconn for server in pool.servers} == {1}
    assert pool.timeout_ms == 7000
    assert shipped().with_maxconn("p01", 1, timeout_ms=9000).pool("p01").timeout_ms == 9000


def test_the_name_in_haproxy_depends_on_the_socket() -> None:
    assert ServerState("w0", "/run/a/w0.sock").key != ServerState("w0", "/run/b/w0.sock").key
    assert ServerState("w0", "/run/a/w0.sock").key.startswith("w0.")


@pytest.mark.parametrize(
    "socket", ["relative.sock", "/run/with blank", "/run/semi;colon", "/run/back\\slash", "/" + "x" * 97]
)
def test_socket_paths_that_need_quoting_or_are_too_long_are_refused(socket: str) -> None:
    with pytest.raises(ValueError, match="socket path"):
        ServerState("w0", socket)


@pytest.mark.parametrize(
    "arguments",
    [("de v", 1, None, 0), ("dev", 1, None, 5), ("dev", 1, 2, 10_001), ("dev", 1, 2, -1), ("d|v", None, None, 0)],
)
def test_impossible_stages_are_refused(arguments: tuple[str, int | None, int | None, int]) -> None:
    with pytest.raises(ValueError, match=r"stage|weight"):
        StageState(*arguments)


@pytest.mark.parametrize(
    ("method", "path"), [("BREW", "/x"), ("GET", "x"), ("GET", "/a b"), ("GET", "/{x+}/y"), ("get", "/x")]
)
def test_impossible_routes_are_refused(method: str, path: str) -> None:
    with pytest.raises(ValueError, match=r"method|path"):
        RouteState("dev.1", method, path, "p00")


def test_the_gateway_waits_longer_than_the_function_but_not_longer_than_api_gateway() -> None:
    assert server_timeout_ms(6, maxconn=1) == 7_000
    assert server_timeout_ms(2, maxconn=8) == 17_000
    assert server_timeout_ms(6, maxconn=8) == 29_000
    assert server_timeout_ms(900, maxconn=1) == 29_000


def test_a_state_survives_a_round_trip_through_json() -> None:
    state = with_mode(shipped().with_stage("prod", live=3, candidate=4, weight=2500), "p01", ServerMode.DRAIN)
    assert decode(to_text(state), GatewayState, "state.json") == state


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"stages":[{"name":"x"}],"pools":[],"routes":[]}',
        '{"stages":[{"stage":"dev","weight":5}],"pools":[],"routes":[]}',
    ],
)
def test_an_invalid_state_file_is_an_error(text: str) -> None:
    with pytest.raises(EngineError, match=r"state\.json: "):
        decode(text, GatewayState, "state.json")


def test_a_state_file_of_an_earlier_version_can_be_read() -> None:
    text = """{"format":2,"stages":[{"stage":"dev","live":1}],"routes":[],"pools":[{"name":"p00","timeout_ms":7000,
        "servers":[{"name":"w0","socket":"/run/w0.sock","maxconn":1,"mode":"drain","checked":true}]}]}"""
    state = decode(text, GatewayState, "state.json")
    assert state.stage("dev") == StageState("dev", live=1)
    assert state.pool("p00").servers == (ServerState("w0", "/run/w0.sock", 1, ServerMode.DRAIN),)


def test_only_stages_at_the_shared_listener_can_be_added_and_removed() -> None:
    state = GatewayState.initial(["dev"], pools=2, shared=True)
    assert state.listeners == ("dev", SHARED)
    more = state.with_new_stage("preview_x", "x.preview.localhost").with_stage("preview_x", live=1)
    assert more.stage("preview_x") == StageState("preview_x", live=1, host="x.preview.localhost")
    assert more.listeners == state.listeners
    assert decode(to_text(more), GatewayState, "state.json") == more
    assert more.without_stage("preview_x") == state
    with pytest.raises(ValueError, match="a listener of its own"):
        state.without_stage("dev")
    with pytest.raises(ConflictError, match="without a listener"):
        shipped().with_new_stage("preview_x", "x.preview.localhost")


@pytest.mark.parametrize(
    ("name", "host"), [("preview_x", "y.localhost"), ("preview_y", "x.localhost"), ("dev", "z.localhost")]
)
def test_a_stages_name_and_host_are_unique(name: str, host: str) -> None:
    state = GatewayState.initial(["dev"], pools=2, shared=True).with_new_stage("preview_x", "x.localhost")
    with pytest.raises(ConflictError, match="already"):
        state.with_new_stage(name, host)


@pytest.mark.parametrize("host", ["", "X.localhost", "a b", "a..b", ".a", "a\n", "a|b", "x" * 64, "a." * 127 + "a"])
def test_an_invalid_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="has the invalid host"):
        StageState("preview_x", host=host)


def test_a_release_key_has_stage_and_number() -> None:
    assert release_key("dev", 12) == "dev.12"
    assert release_keys(shipped()) == {"dev.1"}
