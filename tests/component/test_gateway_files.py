"""The boot folder, listening sockets, HAProxy's program and an orphan's record, on the real file system."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import DictLoader, Environment, StrictUndefined

from hitless.errors import MachineError
from hitless.gateway.binary import find_haproxy
from hitless.gateway.boot import BootFolder
from hitless.gateway.guardian import RECORD
from hitless.gateway.life import LIFE, haproxy_is_alive
from hitless.gateway.listeners import address_of, listen, recorded_listeners, take_listeners
from hitless.gateway.render import Layout, Tuning, template, tuning_for
from hitless.gateway.state import GatewayState, ServerState

pytestmark = pytest.mark.component

STATE = GatewayState.initial(["dev"], pools=2)


@pytest.fixture
def layout() -> Iterator[Layout]:
    with tempfile.TemporaryDirectory(prefix="hl-", dir="/tmp") as folder:
        yield Layout(Path(folder) / "gw")


def boot(layout: Layout) -> BootFolder:
    folder = BootFolder(layout, Tuning(1, 1000))
    folder.prepare()
    return folder


def test_a_generation_of_boot_files_is_complete_and_can_be_read_back(layout: Layout) -> None:
    folder = boot(layout)
    assert folder.load() is None
    folder.write(STATE)
    state = STATE.with_servers("p00", [ServerState("w0", "/r/w0")])
    folder.write(state)
    assert folder.load() == state
    maps = {
        "hosts.map",
        "bases.map",
        "hsts.map",
        "stages.map",
        "timeouts.map",
        "throttles.map",
        "access.map",
        "literals.map",
        "patterns.map",
        "idempotent.map",
        "sticky.map",
    }
    assert {path.name for path in layout.boot.iterdir()} == {"haproxy.cfg", "state.json", *maps}


def test_only_the_last_two_generations_of_boot_files_are_kept(layout: Layout) -> None:
    folder = boot(layout)
    for _ in range(12):
        folder.write(STATE)
    assert {path.name for path in layout.folder.glob("boot.*")} == {"boot.11", "boot.12"}


def test_a_full_disk_keeps_the_earlier_generation_of_boot_files(layout: Layout) -> None:
    folder = boot(layout)
    folder.write(STATE)
    # Like a full disk, for root too: the next generation's place is taken by a file that is no folder.
    (layout.folder / "boot.2").write_text("")
    with pytest.raises(MachineError, match="cannot write the gateway's boot files"):
        folder.write(STATE.with_servers("p00", [ServerState("w0", "/r/w0")]))
    assert folder.load() == STATE


def test_a_generation_of_boot_files_with_a_missing_file_is_incomplete(layout: Layout) -> None:
    boot(layout).write(STATE)
    adopted = boot(layout)
    adopted.load()
    assert adopted.is_complete()
    (layout.boot / "stages.map").unlink()
    assert not adopted.is_complete()
    adopted.write(STATE)
    assert adopted.is_complete()


def test_a_truncated_state_file_counts_as_missing(layout: Layout) -> None:
    folder = boot(layout)
    folder.write(STATE)
    (layout.boot / "state.json").write_text('{"format":1')
    assert folder.load() is None


def test_the_gateways_folder_is_private(layout: Layout) -> None:
    layout.folder.mkdir(mode=0o755)
    boot(layout)
    assert stat.S_IMODE(layout.folder.stat().st_mode) == 0o700


def test_a_template_of_another_version_does_not_change_a_running_daemon(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    template.cache_clear()
    folder = boot(layout)
    newer = DictLoader({"haproxy.cfg.j2": "{{ a_name_that_only_the_newer_version_gives }}"})
    monkeypatch.setattr("hitless.gateway.render._TEMPLATES", Environment(loader=newer, undefined=StrictUndefined))
    folder.write(STATE)
    assert layout.configuration.read_text().endswith("\n")


def test_haproxy_starts_under_a_guardian_of_an_earlier_version_that_has_no_access_log(layout: Layout) -> None:
    """The daemon is upgraded first. The guardian before it starts HAProxy from the new daemon's files if it dies."""
    with_logs = replace(layout, logs=layout.folder.parent / "logs")
    boot(with_logs).write(GatewayState.initial(["dev"], pools=2, shared=True))
    with listen("127.0.0.1", 0) as first, listen("127.0.0.1", 0) as second:
        environment = {"HITLESS_FD_0": str(first.fileno()), "HITLESS_FD_1": str(second.fileno())}
        command = [find_haproxy(os.environ), "-c", "-f", str(layout.configuration)]
        checked = subprocess.run(
            command, env=environment, pass_fds=(first.fileno(), second.fileno()), capture_output=True, text=True
        )
    assert checked.returncode == 0, checked.stderr


def test_a_path_too_long_for_sockets_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="too long for sockets") as caught:
        BootFolder(Layout(tmp_path / ("x" * 90)), Tuning(1, 1000)).prepare()
    assert "XDG_RUNTIME_DIR" in caught.value.hint


def test_port_0_means_any_free_port_and_a_port_in_use_is_an_error_that_names_it() -> None:
    with listen("127.0.0.1", 0) as first:
        host, port = address_of(first)
        with pytest.raises(
            MachineError, match=rf"127\.0\.0\.1:{port} \(dev\): another program listens there"
        ) as caught:
            listen(host, port, purpose="dev")
        assert str(port) in caught.value.hint


def test_a_port_in_use_with_reuseport_is_refused_too() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(MachineError, match="another program listens there"):
            listen("127.0.0.1", other.getsockname()[1])


def test_a_port_can_be_bound_again_while_connections_linger() -> None:
    with listen("127.0.0.1", 0) as first:
        address = address_of(first)
        with socket.create_connection(address):
            accepted, _ = first.accept()
            accepted.close()
    with listen(*address) as again:
        assert address_of(again) == address


def test_impossible_addresses_are_refused() -> None:
    for host, port in (("no.such.host.invalid", 80), ("203.0.113.1", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(MachineError, match="cannot listen on"):
            listen(host, port)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def test_the_haproxy_variable_takes_precedence_over_path(tmp_path: Path) -> None:
    new = program(tmp_path / "chosen", 'echo "HAProxy version 3.0.5-8e879a5 2024/09/19"')
    program(tmp_path / "haproxy", 'echo "HAProxy version 2.6.1 2022/06/21"')
    assert find_haproxy({"HITLESS_HAPROXY": new, "PATH": str(tmp_path)}) == new
    assert find_haproxy({"PATH": str(tmp_path)}) == str(tmp_path / "haproxy")


def test_a_chosen_haproxy_that_is_missing_old_or_broken_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="HITLESS_HAPROXY is /no/such"):
        find_haproxy({"HITLESS_HAPROXY": "/no/such"})
    old = program(tmp_path / "old", 'echo "HA-Proxy version 1.8.8 2020/06/22"')
    with pytest.raises(MachineError, match=r"is HAProxy 1\.8\.8; hitless needs 2\.6"):
        find_haproxy({"HITLESS_HAPROXY": old})
    broken = program(tmp_path / "broken", "exit 1")
    with pytest.raises(MachineError, match="cannot run"):
        find_haproxy({"HITLESS_HAPROXY": broken})


def test_a_fifo_without_a_writer_shows_that_haproxy_is_dead(tmp_path: Path) -> None:
    assert not haproxy_is_alive(str(tmp_path))
    os.mkfifo(tmp_path / LIFE)
    assert not haproxy_is_alive(str(tmp_path))
    reader = os.open(tmp_path / LIFE, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / LIFE, os.O_WRONLY)
    assert haproxy_is_alive(str(tmp_path))
    os.close(writer)
    assert not haproxy_is_alive(str(tmp_path))
    os.close(reader)


def record(folder: Path, listener: socket.socket, pid: int, port: int | None = None) -> None:
    host, real = address_of(listener)
    entry = ["dev", listener.fileno(), host, port or real]
    (folder / RECORD).write_text(json.dumps({"pid": pid, "listeners": [entry]}))


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux only")
def test_recorded_listening_sockets_are_taken_over_from_another_process(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as listener:
        record(tmp_path, listener, os.getpid())
        taken = take_listeners(os.getpid(), recorded_listeners(tmp_path, os.getpid()))
        assert taken is not None
        with taken["dev"] as again:
            assert again.fileno() != listener.fileno()
            assert address_of(again) == address_of(listener)


def test_a_socket_record_of_another_process_or_socket_is_ignored(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as listener:
        record(tmp_path, listener, os.getpid() + 1)
        assert recorded_listeners(tmp_path, os.getpid()) == ()
        record(tmp_path, listener, os.getpid(), port=1)
        assert take_listeners(os.getpid(), recorded_listeners(tmp_path, os.getpid())) is None
        (tmp_path / RECORD).write_text("{")
        assert recorded_listeners(tmp_path, os.getpid()) == ()


def test_haproxy_starts_within_its_limit_of_descriptors_with_hundreds_of_pools(layout: Layout) -> None:
    limit = 2048
    state = GatewayState.initial(["dev"], pools=600)
    for number, pool in enumerate(state.pools[:300]):
        state = state.with_servers(pool.name, [ServerState("w0", f"/r/w{number}")])
    folder = BootFolder(layout, tuning_for(1, limit))
    folder.prepare()
    folder.write(state)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inherited = {"HITLESS_FD_0": str(listener.fileno()), "PATH": os.environ["PATH"]}
        pid = layout.folder / "pid"
        command = [
            *("prlimit", f"--nofile={limit}:{limit}", find_haproxy(os.environ)),
            *("-D", "-p", str(pid), "-f", str(layout.configuration)),
        ]
        done = subprocess.run(
            command, env=inherited, pass_fds=[listener.fileno()], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            os.kill(int(pid.read_text()), signal.SIGKILL)
        assert done.returncode == 0, done.stderr
