"""The senders against a server that misbehaves on purpose: each failure is counted once, by its kind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import Sequence

import pytest

from hitless.drill.load import Load
from hitless.drill.pace import constant, interleave, opens_connection
from hitless.drill.requests import DrillRequest, with_keys
from hitless.drill.tally import Tally
from hitless.drill.timeline import Timeline
from hitless.drill.wire import FailureKind, SenderPlan, WireRequest
from tests.component.drill_faulty_server import FaultyServer
from tests.support import gone, have_ended

pytestmark = pytest.mark.component


async def send(
    port: int,
    requests: Sequence[DrillRequest],
    *,
    count: int,
    rate_per_s: float = 200,
    new_connections_percent: float = 0,
    deadline_s: float = 5.0,
    connections: int = 10,
    senders: int = 1,
    seed: int | None = None,
    http2: bool = False,
) -> tuple[Tally, Load]:
    """Send `count` requests in all and return the tally."""
    tally = Tally(slot_s=0.25, deadline_s=deadline_s, timeline=Timeline())
    plan = SenderPlan(
        host="127.0.0.1",
        addresses=(("127.0.0.1", port),),
        tls=False,
        requests=tuple(one.to_wire(f"127.0.0.1:{port}") for one in requests),
        order=interleave([one.weight for one in requests]),
        pieces=constant(rate_per_s),
        seed=seed,
        senders=senders,
        new_connections_percent=new_connections_percent,
        connections=connections,
        deadline_s=deadline_s,
        http2=http2,
    )
    load = Load(plan, on_records=tally.add)
    await load.start()
    load.end(count)
    await load.wait()
    tally.add_unsent(0, load.missing())
    tally.finish()
    assert tally.requests == count == tally.answered + tally.failed
    return tally, load


def two_senders(port: int, request: WireRequest, rate_per_s: float) -> SenderPlan:
    return SenderPlan(
        host="127.0.0.1",
        addresses=(("127.0.0.1", port),),
        tls=False,
        requests=(request,),
        order=(0,),
        pieces=constant(rate_per_s),
        senders=2,
    )


def kinds(tally: Tally) -> dict[str, int]:
    return {kind.value: seen.count for kind, seen in tally.failures.items()}


MISBEHAVIOURS = [
    ("/drop", FailureKind.CLOSED_EARLY),
    ("/reset", FailureKind.CONNECTION_RESET),
    ("/cut-head", FailureKind.TRUNCATED),
    ("/cut-body", FailureKind.TRUNCATED),
    ("/cut-chunk", FailureKind.TRUNCATED),
    ("/surplus", FailureKind.WRONG_LENGTH),
    ("/lie", FailureKind.MISMATCH),
    ("/garbage", FailureKind.PROTOCOL_ERROR),
    ("/bad-length", FailureKind.PROTOCOL_ERROR),
    ("/500", FailureKind.STATUS_5XX),
    ("/503", FailureKind.STATUS_5XX),
    ("/stall", FailureKind.TIMEOUT),
]


@pytest.mark.parametrize(("path", "failure"), MISBEHAVIOURS, ids=[path for path, _ in MISBEHAVIOURS])
def test_each_kind_of_bad_response_is_counted_once(path: str, failure: FailureKind) -> None:
    requests = [DrillRequest("GET", path), DrillRequest("POST", "/ok", body=b"{}", weight=2)]
    with FaultyServer() as server:
        tally, _ = asyncio.run(send(server.port, requests, count=60, rate_per_s=400, deadline_s=0.5))
    assert kinds(tally) == {failure.value: 20}
    assert tally.failed_by_request == {0: 20}
    assert server.seen == {path: 20, "/ok": 40}
    assert server.bodies[b"{}"] == 40


@pytest.mark.parametrize("new_connections_percent", [0, 30, 100])
def test_mixed_bad_responses_are_counted_exactly(new_connections_percent: float) -> None:
    requests = [DrillRequest("GET", path) for path in ("/ok", *dict(MISBEHAVIOURS))]
    with FaultyServer() as server:
        tally, _ = asyncio.run(
            send(
                server.port,
                requests,
                count=20 * len(requests),
                rate_per_s=400,
                new_connections_percent=new_connections_percent,
                deadline_s=1.0,
                senders=2,
            )
        )
    expected = Counter({failure.value: 0 for failure in dict(MISBEHAVIOURS).values()})
    for failure in dict(MISBEHAVIOURS).values():
        expected[failure.value] += 20
    assert kinds(tally) == expected
    assert tally.answered == 20


@pytest.mark.parametrize("new_connections_percent", [0, 100], ids=["keep-alive", "new connections"])
def test_surplus_bytes_long_after_a_response_turn_it_into_a_failure(new_connections_percent: float) -> None:
    with FaultyServer() as server:
        requests = [DrillRequest("GET", "/late-surplus")]
        tally, _ = asyncio.run(
            send(server.port, requests, count=10, rate_per_s=20, new_connections_percent=new_connections_percent)
        )
    assert kinds(tally) == {"wrong_length": 10}
    assert tally.answered == 0


@pytest.mark.parametrize("new_connections_percent", [0, 100], ids=["keep-alive", "new connections"])
def test_every_legal_response_counts_as_answered(new_connections_percent: float) -> None:
    paths = ["/ok", "/404", "/204", "/chunked", "/continue", "/until-close", "/idle-close", "/slow", "/shielded"]
    requests = [DrillRequest("GET", path) for path in paths] + [DrillRequest("HEAD", "/ok")]
    with FaultyServer() as server:
        tally, _ = asyncio.run(
            send(
                server.port,
                requests,
                count=200,
                new_connections_percent=new_connections_percent,
                rate_per_s=200,
                connections=60,  # so many that none is used again before a server's close has come
            )
        )
    assert kinds(tally) == {}
    assert tally.answered == 200
    assert tally.shielded == 20
    for index, path in enumerate(paths):
        assert tally.statuses[index, {"/404": 404, "/204": 204}.get(path, 200)] == 20


def test_responses_are_counted_by_the_release_in_their_header() -> None:
    with FaultyServer(release=lambda: 7) as server:
        tally, _ = asyncio.run(send(server.port, [DrillRequest("GET", "/ok")], count=30))
    assert tally.answers == {(7, 0): 30}


def test_connections_are_reused_except_for_the_share_of_new_ones() -> None:
    with FaultyServer() as server:
        tally, load = asyncio.run(
            send(server.port, [DrillRequest("GET", "/ok")], count=200, new_connections_percent=20, connections=20)
        )
    assert tally.failed == 0
    assert tally.new_connections == sum(opens_connection(n, 20) for n in range(200)) == 41
    opened = load.counts["opened"]
    assert server.connections == opened
    assert tally.reused_connections == 200 - opened
    assert 61 <= opened < 120, "20 are kept; a few more where a stall of the machine left none idle"


def test_each_unsafe_request_gets_a_new_idempotency_key_unless_it_has_one() -> None:
    requests = with_keys(
        [
            DrillRequest("POST", "/ok", body=b"{}"),
            DrillRequest("DELETE", "/ok"),
            DrillRequest("PUT", "/ok", (("Idempotency-Key", "given"),)),
            DrillRequest("GET", "/ok"),
        ]
    )
    with FaultyServer() as server:
        tally, _ = asyncio.run(send(server.port, requests, count=80, senders=2, new_connections_percent=30))
    assert tally.failed == 0
    assert server.keys.count(b"idempotency-key: given") == 20
    assert len(server.keys) == 60
    assert len(set(server.keys)) == 41
    assert server.bodies[b"{}"] == 20


def test_poisson_arrivals_send_the_same_number_of_requests() -> None:
    with FaultyServer() as server:
        tally, _ = asyncio.run(send(server.port, [DrillRequest("GET", "/ok")], count=100, senders=2, seed=7))
    assert tally.failed == 0
    assert server.seen["/ok"] == 100


def test_a_refused_connection_is_counted_as_refused() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else can take the port
        tally, _ = asyncio.run(send(held.getsockname()[1], [DrillRequest("GET", "/")], count=20))
    assert kinds(tally) == {"connection_refused": 20}


def test_a_stalled_service_does_not_slow_the_schedule() -> None:
    with FaultyServer() as server:
        tally, _ = asyncio.run(
            send(server.port, [DrillRequest("GET", "/stall")], count=100, rate_per_s=200, deadline_s=1.0)
        )
    assert kinds(tally) == {"timeout": 100}
    assert server.seen["/stall"] == 100
    assert tally.first_sent_us is not None
    assert tally.last_sent_us - tally.first_sent_us < 1_000_000  # all were sent before the first was given up


def test_a_large_body_is_sent_completely() -> None:
    body = b"x" * 900_000
    with FaultyServer() as server:
        tally, _ = asyncio.run(send(server.port, [DrillRequest("POST", "/ok", body=body)], count=10, rate_per_s=20))
    assert tally.failed == 0
    assert server.bodies == {body: 10}


def test_the_remaining_requests_of_a_killed_sender_count_as_not_sent() -> None:
    async def scenario(port: int) -> Tally:
        tally = Tally(slot_s=0.25, deadline_s=5, timeline=Timeline())
        request = DrillRequest("GET", "/ok").to_wire("x")
        plan = two_senders(port, request, 100)
        seen = asyncio.Event()

        def count(records: bytes) -> None:
            tally.add(records)
            if tally.requests >= 40:
                seen.set()

        load = Load(plan, on_records=count)
        await load.start()
        load.end(200)
        await asyncio.wait_for(seen.wait(), 10)
        os.kill(load.senders[1].process.pid, signal.SIGKILL)
        await load.wait()
        tally.add_unsent(0, load.missing())
        tally.finish()
        return tally

    with FaultyServer() as server:
        tally = asyncio.run(scenario(server.port))
    assert tally.requests == 200
    assert set(kinds(tally)) == {"not_sent"}
    assert 0 < tally.failed <= 90


def test_senders_end_with_the_coordinator() -> None:
    async def scenario(port: int) -> list[int]:
        request = DrillRequest("GET", "/ok").to_wire("x")
        plan = two_senders(port, request, 50)
        load = Load(plan, on_records=lambda _: None)
        await load.start()
        pids = [sender.process.pid for sender in load.senders]
        assert not any(map(gone, pids))
        for sender in load.senders:  # as if the coordinator had ended
            assert sender.process.stdin is not None
            sender.process.stdin.close()
        await asyncio.wait_for(load.wait(), 10)
        return pids

    with FaultyServer() as server:
        pids = asyncio.run(scenario(server.port))
    assert len(pids) == 2
    have_ended(pids)
