"""The boot files equal the state and fit HAProxy's syntax."""

from __future__ import annotations

from pathlib import Path

import pytest

from hitless.documents import decode, to_text
from hitless.gateway.render import CONFIGURATION, Layout, Tuning, render, tuning_for
from hitless.gateway.state import SHARED, GatewayState, RouteState, ServerMode, ServerState, TlsListener
from hitless.gateway.view import MapName, server_line, view_of
from hitless.service.model import TlsSettings

pytestmark = pytest.mark.unit

LAYOUT = Layout(Path("/run/x/gw"))


def files(state: GatewayState) -> dict[str, str]:
    return dict(render(state, LAYOUT, Tuning(nbthread=1, maxconn=1000)))


def test_each_stage_gets_a_listener_in_the_order_of_the_state() -> None:
    text = files(GatewayState.initial(["dev", "prod"], pools=2))[CONFIGURATION]
    assert text.index("frontend stage_dev") < text.index("fd@${HITLESS_FD_0}") < text.index("frontend stage_prod")
    assert text.index("frontend stage_prod") < text.index("fd@${HITLESS_FD_1}")


def test_only_a_stage_with_tls_gets_a_certificate_and_its_redirect() -> None:
    tls = TlsListener("prod", 443, None, TlsSettings("/c", "/k", ("", 80), hsts_s=0))
    state = GatewayState.initial(["dev", "prod"], pools=1, shared=True, tls=(tls,))
    assert state.listeners == ("dev", "prod", "redirect_prod", SHARED)
    text = files(state)[CONFIGURATION]
    assert text.count(" ssl crt ") == text.count("set-header x-hl-proto https") == 1
    assert "bind fd@${HITLESS_FD_1} ssl crt /run/x/gw/prod.pem alpn h2,http/1.1\n" in text
    assert "location https://%[req.hdr(host),host_only]%[pathq]\n" in text
    assert "strict-transport-security" not in text
    assert "acme" not in text
    assert decode(to_text(state), GatewayState, "a daemon's successor reads it") == state
    assert "ssl" not in files(GatewayState.initial(["dev"], pools=1))[CONFIGURATION]


def test_a_boot_server_equals_the_runtime_command_and_is_disabled_unless_ready() -> None:
    servers = [ServerState("w0", "/r/w0", 8), ServerState("w1", "/r/w1", 8, ServerMode.DRAIN)]
    state = GatewayState.initial(["dev"], pools=1).with_servers("p00", servers)
    ready, drained = view_of(state).servers.values()
    text = files(state)[CONFIGURATION]
    assert f"    server {servers[0].key} {server_line(ready)}\n" in text
    assert f"    server {servers[1].key} {server_line(drained)} disabled\n" in text


def test_map_files_contain_the_entries_of_the_state() -> None:
    state = (
        GatewayState.initial(["dev", "prod"], pools=1)
        .with_servers("p00", [ServerState("w0", "/r/w0")], timeout_ms=7000)
        .with_routes("dev.3", [RouteState("dev.3", "GET", "/x", "p00"), RouteState("dev.3", "ANY", "/{proxy+}", "p00")])
        .with_stage("dev", live=3)
    )
    texts = files(state)
    assert texts[MapName.STAGES] == "dev dev.3\nprod -\n"
    assert texts[MapName.TIMEOUTS] == "p00 7000\nshield_p00 29000\n"
    assert texts[MapName.LITERALS] == "dev.3|GET|/x p00\ndev.3|GET|/x/ p00\n"
    assert texts[MapName.PATTERNS] == "^dev[.]3[|][A-Z]+[|]/.+/?$ p00\n"


def test_the_configuration_has_all_pools_and_timeouts_from_the_start() -> None:
    texts = files(GatewayState.initial(["dev"], pools=64))
    assert texts[MapName.TIMEOUTS].count(" 29000\n") == 128
    assert texts[CONFIGURATION].count("\nbackend p") == 64


def test_maps_have_the_same_path_in_every_generation() -> None:
    assert f"map_str({LAYOUT.folder}/boot/literals.map)" in files(GatewayState.initial(["dev"], pools=1))[CONFIGURATION]


def test_small_machines_get_one_thread() -> None:
    assert [tuning_for(cores, 20_000).nbthread for cores in (1, 2, 4, 8, 16, 96)] == [1, 1, 1, 2, 4, 8]


def test_the_connection_limit_is_derived_from_the_descriptor_limit() -> None:
    assert tuning_for(2, 20_000).maxconn == 9744
    assert tuning_for(2, 1 << 30).maxconn < 66_000
    assert tuning_for(2, 256).maxconn >= 64
    assert tuning_for(2, 20_000).frontend_maxconn < tuning_for(2, 20_000).maxconn
