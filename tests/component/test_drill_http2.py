"""The HTTP/2 client against a server that misbehaves on purpose: each failure is counted once, by its kind."""

from __future__ import annotations

import asyncio
import selectors
import socket
import time

import pytest

from hitless.drill import http2
from hitless.drill.requests import DrillRequest, with_keys
from hitless.drill.wire import FailureKind
from tests.component.drill_faulty_server import FaultyServer
from tests.component.drill_http2_server import FaultyHttp2Server
from tests.component.test_drill_http1 import Records, plan_of, pump
from tests.component.test_drill_load import kinds, send

pytestmark = pytest.mark.component

MISBEHAVIOURS = [
    ("/reset", FailureKind.STREAM_RESET),
    ("/refuse", FailureKind.STREAM_RESET),
    ("/500", FailureKind.STATUS_5XX),
    ("/lie", FailureKind.MISMATCH),
    ("/stall", FailureKind.TIMEOUT),
]
ENDING = [
    ("/drop", FailureKind.CLOSED_EARLY),
    ("/cut", FailureKind.TRUNCATED),
    ("/go-away", FailureKind.CLOSED_EARLY),
    ("/garbage", FailureKind.PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("path", "failure"), MISBEHAVIOURS, ids=[path for path, _ in MISBEHAVIOURS])
@pytest.mark.parametrize("new_connections_percent", [0, 100], ids=["shared", "own"])
def test_a_failing_stream_does_not_affect_the_others(
    path: str, failure: FailureKind, new_connections_percent: float
) -> None:
    requests = [DrillRequest("GET", path), DrillRequest("POST", "/ok", body=b"{}", weight=2)]
    with FaultyHttp2Server() as server:
        tally, load = asyncio.run(
            send(
                server.port,
                requests,
                count=60,
                rate_per_s=300,
                deadline_s=1.0,
                connections=2,
                new_connections_percent=new_connections_percent,
                http2=True,
            )
        )
    assert kinds(tally) == {failure.value: 20}
    assert tally.answered == 40
    assert server.seen == {path: 20, "/ok": 40}
    assert server.bodies[b"{}"] == 40
    assert load.counts["opened"] == (60 if new_connections_percent else 2)


@pytest.mark.parametrize(("path", "failure"), ENDING, ids=[path for path, _ in ENDING])
def test_a_lost_connection_fails_its_request_and_is_replaced(path: str, failure: FailureKind) -> None:
    requests = [DrillRequest("GET", path), DrillRequest("GET", "/ok")]
    with FaultyHttp2Server() as server:
        tally, _ = asyncio.run(
            send(server.port, requests, count=40, rate_per_s=100, new_connections_percent=100, http2=True)
        )
    assert kinds(tally) == {failure.value: 20}
    assert tally.answered == 20


def test_a_connection_that_was_idle_too_long_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyHttp2Server() as server, selectors.DefaultSelector() as selector:
        records = Records()
        plan = plan_of(server.port, DrillRequest("GET", "/ok"))
        client = http2.Http2Client(plan, selector, records, time.monotonic_ns())
        for n in range(3):
            client.send(n, time.monotonic_ns())
            pump(client, selector)
        assert client.counts["opened"] == 1
        monkeypatch.setattr(http2, "MAX_IDLE_NS", 0)
        client.send(3, time.monotonic_ns())
        pump(client, selector)
        assert client.counts["opened"] == 2
        assert records.failures == [None] * 4
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


def test_requests_share_connections_and_respect_flow_control() -> None:
    body = b"x" * 900_000
    requests = [DrillRequest("POST", "/ok", body=body), DrillRequest("GET", "/shielded")]
    with FaultyHttp2Server() as server:
        tally, load = asyncio.run(send(server.port, requests, count=20, rate_per_s=20, connections=1, http2=True))
    assert tally.failed == 0
    assert server.bodies[body] == 10
    assert tally.shielded == 10
    assert load.counts["opened"] == server.connections == 1
    assert tally.reused_connections == 19
    assert tally.answers == {(5, 0): 20}


def test_every_unsafe_request_has_its_own_idempotency_key() -> None:
    requests = with_keys([DrillRequest("POST", "/ok", body=b"{}"), DrillRequest("GET", "/ok")])
    with FaultyHttp2Server() as server:
        tally, _ = asyncio.run(send(server.port, requests, count=60, senders=2, http2=True))
    assert tally.failed == 0
    assert len(server.keys) == len(set(server.keys)) == 30


def test_a_server_that_speaks_only_http_1_fails_every_request() -> None:
    with FaultyServer() as server:
        tally, _ = asyncio.run(send(server.port, [DrillRequest("GET", "/ok")], count=20, http2=True, deadline_s=1.0))
    assert tally.failed == 20
