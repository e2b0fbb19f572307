"""The runtime socket's client and the executor against a fake HAProxy that misbehaves."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hitless.clock import SystemClock
from hitless.gateway.executor import Executor
from hitless.gateway.runtime import OutdatedError, RejectedError, RuntimeSocket, UnreachableError
from hitless.gateway.state import GatewayState
from hitless.gateway.view import Command, MapName, WaitFor, view_of
from hitless.service.model import Sticky, StickyBy

pytestmark = pytest.mark.component

Answer = Callable[[str], bytes | None]


class FakeRuntime:
    """One command a connection, as HAProxy; `None` keeps the connection open without output."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.heard: list[str] = []
        self._answer = answer
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(16)
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            command = connection.recv(65536).decode().strip()
            if command == "end of the test":
                connection.close()
                return
            self.heard.append(command)
            answer = self._answer(command)
            if answer is None:
                self._kept.append(connection)
                continue
            connection.sendall(answer)
            connection.close()

    def end(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(path))
            last.sendall(b"end of the test\n")
            self._thread.join()
        for each in (*self._kept, self._server):
            each.close()


@contextmanager
def runtime(answer: Answer) -> Iterator[tuple[RuntimeSocket, FakeRuntime]]:
    with tempfile.TemporaryDirectory(prefix="hl-", dir="/tmp") as folder:
        path = Path(folder) / "adm.sock"
        fake = FakeRuntime(path, answer)
        try:
            yield RuntimeSocket(path, timeout_s=0.3), fake
        finally:
            fake.end(path)


@contextmanager
def executor(answer: Answer) -> Iterator[tuple[Executor, FakeRuntime]]:
    with runtime(answer) as (client, fake):
        yield Executor(client, SystemClock(), "/maps"), fake


def stat(scur: int, qcur: int, server: str = "") -> bytes:
    rows = f"p00,{server},0,{scur}\n" if server else ""
    return f"# pxname,svname,qcur,scur,\n{rows}p00,BACKEND,{qcur},{scur}\n\n".encode()


def test_long_output_of_haproxy_is_read_completely() -> None:
    body = b"0x1 key value\n" * 100_000 + b"\n"
    with runtime(lambda command: body) as (client, fake):
        assert len(asyncio.run(client.ask("show map"))) == len(body)
        assert fake.heard == ["show map"]


@pytest.mark.parametrize("accepted", [b"\n", b"New server registered.\n\n", b"Server deleted.\n\n"])
def test_haproxys_success_messages_are_accepted(accepted: bytes) -> None:
    with runtime(lambda command: accepted) as (client, fake):
        asyncio.run(client.tell("set map x"))
        assert fake.heard == ["set map x"]


def test_any_other_output_is_an_error_with_haproxys_message() -> None:
    with (
        runtime(lambda command: b"entry not found.\n\n") as (client, _),
        pytest.raises(RejectedError, match=r"rejected `set map x`: entry not found\."),
    ):
        asyncio.run(client.tell("set map x"))


@pytest.mark.parametrize("cut", [b"", b"Server dele"])
def test_truncated_output_of_haproxy_is_an_error(cut: bytes) -> None:
    with runtime(lambda command: cut) as (client, _), pytest.raises(UnreachableError, match="ended while it ran"):
        asyncio.run(client.tell("del server p00/w0"))


def test_a_silent_haproxy_times_out() -> None:
    with runtime(lambda command: None) as (client, _), pytest.raises(UnreachableError, match="timed out"):
        asyncio.run(client.ask("show info"))


def test_a_missing_runtime_socket_means_that_haproxy_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="No such file"):
        asyncio.run(RuntimeSocket(tmp_path / "adm.sock").ask("show info"))


def test_deleting_a_server_is_retried_until_its_connections_have_closed() -> None:
    refusals = iter([b"Server still has connections attached to it, cannot remove it.\n\n"] * 3)
    with executor(lambda command: next(refusals, b"Server deleted.\n\n")) as (subject, fake):
        asyncio.run(subject.run([Command("del server p00/w0", WaitFor.CLOSED, "p00/w0")], drain_s=1))
        assert fake.heard == ["del server p00/w0"] * 4


def test_deleting_a_missing_server_succeeds() -> None:
    with executor(lambda command: b"No such server.\n\n") as (subject, fake):
        asyncio.run(subject.run([Command("del server p00/w0", WaitFor.CLOSED, "p00/w0")], drain_s=1))
        assert fake.heard == ["del server p00/w0"]


def test_sessions_of_a_server_are_cut_off_only_after_a_wait() -> None:
    cut = False

    def answer(command: str) -> bytes:
        nonlocal cut
        cut = cut or command.startswith("shutdown sessions server p00/w0")
        return (b"Server deleted.\n\n" if cut else b"Server still has connections\n\n") if "del" in command else b"\n"

    with executor(answer) as (subject, fake):
        asyncio.run(subject.run([Command("del server p00/w0", WaitFor.CLOSED, "p00/w0")], drain_s=1))
        assert fake.heard[-2:] == ["shutdown sessions server p00/w0", "del server p00/w0"]


def test_a_pool_is_drained_only_after_two_idle_readings() -> None:
    readings = iter([stat(1, 0), stat(0, 0), stat(0, 2), stat(0, 0)])
    with executor(lambda command: next(readings, stat(0, 0))) as (subject, fake):
        assert asyncio.run(subject.drained("p00", 5))
        assert len(fake.heard) == 5


def test_a_pool_that_stays_busy_is_reported_at_the_deadline() -> None:
    with executor(lambda command: stat(1, 0)) as (subject, _):
        assert not asyncio.run(subject.drained("p00", 0.1))


def test_no_command_for_a_server_is_sent_before_its_requests_ended() -> None:
    busy = iter([stat(1, 0, "w0"), stat(1, 0, "w0")])

    def answer(command: str) -> bytes:
        return next(busy, stat(0, 0, "w0")) if command.startswith("show stat") else b"\n"

    with executor(answer) as (subject, fake):
        command = Command("set server p00/w0 state maint", WaitFor.SERVER_IDLE, "p00/w0")
        asyncio.run(subject.run([command], drain_s=5))
        assert fake.heard == ["show stat p00 4 -1"] * 4 + ["set server p00/w0 state maint"]


def test_an_earlier_haproxy_without_the_map_of_sticky_clients_is_adopted_and_gets_no_new_ones() -> None:
    """An upgrade by apt may meet a sticky rollout. In the earlier HAProxy each stage has a map of its own."""
    unknown = b"Unknown map identifier. Please use #<id> or <file>.\n\n"  # HAProxy 2.6, recorded

    def answer(command: str) -> bytes:
        return unknown if command.endswith("/sticky.map") else b"\n"

    idle = GatewayState.initial(["dev"], pools=0)
    sticky = idle.with_stage("dev", live=1, candidate=2, weight=1000, sticky=Sticky(StickyBy.HEADER, "x-user"))
    with executor(answer) as (subject, fake):
        wanted = view_of(sticky)
        assert asyncio.run(subject.observe(wanted)).ordered[MapName.STICKY] == wanted.ordered[MapName.STICKY]
        fake.heard.clear()
    with executor(lambda command: unknown) as (subject, _):
        with pytest.raises(OutdatedError) as refused:
            asyncio.run(subject.run(subject.commands_between(idle, sticky), drain_s=1))
        assert "hitless upgrade" in refused.value.hint


def test_after_a_refused_command_no_further_command_is_sent() -> None:
    with executor(lambda command: b"\n" if command == "one" else b"no.\n\n") as (subject, fake):
        with pytest.raises(RejectedError):
            asyncio.run(subject.run([Command("one"), Command("two"), Command("three")], drain_s=1))
        assert fake.heard == ["one", "two"]
