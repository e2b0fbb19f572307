"""The shield and stickiness at the gateway: a candidate that fails requests, and clients that are told apart."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import stat
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

import pytest

from hitless.gateway.counts import Counts
from hitless.gateway.gateway import Gateway
from hitless.gateway.listeners import listen
from hitless.gateway.state import FULL_WEIGHT, GatewayState, RouteState, ServerState, release_key, shield_of
from hitless.service.model import Sticky, StickyBy
from tests.process.gateway_support import (
    Answer,
    Workers,
    ask,
    busy,
    event_of,
    finish,
    kill,
    new_gateway,
    run_dir,
    running_gateway,
    until,
)
from tests.support import release_keys

pytestmark = pytest.mark.process

KEY = {"idempotency-key": "k1"}
LIVE, CANDIDATE = (200, "1", "1"), (200, "2", None)


def routes_of(release: int, pool: str, stage: str = "dev") -> list[RouteState]:
    """Both have /zones and /broken; only the candidate has /new, and says which of its routes may run twice."""
    key, path = release_key(stage, release), "/broken/{release}/{status}"
    routes = [RouteState(key, "ANY", one, pool) for one in ("/zones", "/slow/{ms}", path)]
    if release == 1:
        return routes
    return [
        *routes,
        RouteState(key, "ANY", "/new/{release}/{status}", pool),
        RouteState(key, "PUT", path, pool, idempotent=True),
        RouteState(key, "PUT", "/broken/2/503", pool),
    ]


async def begin(gateway: Gateway, workers: Workers) -> GatewayState:
    """Release 1 live on p00, release 2 a shielded candidate on p01 that gets everything."""
    state = gateway.state
    for release, pool in ((1, "p00"), (2, "p01")):
        servers = await asyncio.to_thread(workers.start, release)
        state = state.with_servers(pool, servers).with_routes(f"dev.{release}", routes_of(release, pool))
    state = state.with_stage("dev", live=1, candidate=2, weight=FULL_WEIGHT, shield=True, announced=True)
    await gateway.apply(state)
    return state


@asynccontextmanager
async def rolling() -> AsyncIterator[Gateway]:
    with run_dir() as folder, Workers(folder) as workers:
        async with running_gateway(folder) as gateway:
            await begin(gateway, workers)
            yield gateway


async def asked(
    gateway: Gateway, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None
) -> Answer:
    return await asyncio.to_thread(ask, gateway.addresses["dev"], path, method, body, headers)


async def said(gateway: Gateway, path: str, method: str = "GET", **request: object) -> tuple[int, str, str | None]:
    """Status, the responding release, and whether it responded in place of the candidate."""
    answer = await asked(gateway, path, method, **request)  # type: ignore[arg-type]
    return answer.status, answer.headers.get("x-release", ""), answer.headers.get("x-hitless-shielded")


def test_the_live_release_answers_requests_that_get_a_5xx_from_the_candidate() -> None:
    async def scenario() -> None:
        async with rolling() as gateway:
            for status in (500, 501, 502, 503, 504, 505, 507, 599):
                assert await said(gateway, f"/broken/2/{status}") == LIVE
            assert await said(gateway, "/zones") == CANDIDATE
            assert await said(gateway, "/broken/2/404") == (404, "2", None)
            for method in ("HEAD", "OPTIONS"):
                assert await said(gateway, "/broken/2/500", method) == LIVE
            # Unsafe: with the client's word for it, or the route's own.
            assert await said(gateway, "/broken/2/500", "POST") == (500, "2", None)
            assert await said(gateway, "/broken/2/507", "POST") == (507, "2", None)
            answer = await asked(gateway, "/broken/2/500", "POST", KEY, b"x" * 9000)
            assert (answer.status, answer.json["release"], answer.json["body_bytes"]) == (200, "1", 9000)
            assert await said(gateway, "/broken/2/500", "PUT") == LIVE
            assert await said(gateway, "/broken/2/503", "PUT") == (503, "2", None), "that route did not opt in"
            # What the live release has no route for, and what no buffer keeps, stay the candidate's.
            assert await said(gateway, "/new/2/507") == (507, "2", None)
            assert await said(gateway, "/broken/2/500", "POST", headers=KEY, body=b"x" * 20_000) == (500, "2", None)
            # Another entry, another rule; each is one command.
            await gateway.apply(gateway.state.with_stage("dev", live=2, candidate=1, weight=FULL_WEIGHT, shield=True))
            assert await said(gateway, "/broken/1/500") == (200, "2", None), "not announced, and the other way round"
            await gateway.apply(gateway.state.with_stage("dev", live=1, candidate=2, weight=FULL_WEIGHT))
            assert await said(gateway, "/broken/2/500") == (500, "2", None), "no shield"

    asyncio.run(scenario())


def never_responds(listener: socket.socket) -> None:
    """A worker that closes each connection when it gets a request."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)


def test_a_candidate_that_never_responds_is_shielded() -> None:
    async def scenario() -> None:
        async with rolling() as gateway:
            path = str(gateway._layout.folder / "mute.sock")
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen(64)
                threading.Thread(target=never_responds, args=(listener,), daemon=True).start()
                await gateway.apply(gateway.state.with_servers("p01", [ServerState("w0", path)]))
                connection = http.client.HTTPConnection(*gateway.addresses["dev"], timeout=15)
                for _ in range(4):
                    assert await asyncio.to_thread(on, connection, "GET", "/zones") == (200, "1")
                    for method, alone in (("GET", "/new/2/200"), ("POST", "/zones")):
                        assert await asyncio.to_thread(on, connection, method, alone) == (502, None)
                connection.close()
                listener.shutdown(socket.SHUT_RDWR)

    asyncio.run(scenario())


def test_a_hanging_candidate_costs_a_request_its_limit_once_also_if_it_waits_for_a_worker() -> None:
    async def scenario() -> None:
        async with rolling() as gateway:
            path = str(gateway._layout.folder / "mute.sock")
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen(64)  # takes each connection, and reads none
                hanging = gateway.state.with_servers("p01", [ServerState("w0", path, 1)], timeout_ms=4000)
                hanging = hanging.with_limits("p01", throttle=0, attempt_ms=500)
                await gateway.apply(hanging.with_limits("p00", throttle=0, attempt_ms=500))
                together = (asyncio.to_thread(ask, gateway.addresses["dev"], "/zones", timeout_s=3.5) for _ in range(4))
                answers = await asyncio.gather(*together)
                assert [(one.status, one.headers["x-release"]) for one in answers] == [(200, "1")] * 4
                await gateway.apply(hanging)
                late = await asyncio.to_thread(ask, gateway.addresses["dev"], "/slow/1200")
                assert (late.status, late.headers.get("x-release")) == (200, "1"), late

    asyncio.run(scenario())


def on(connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, str | None]:
    connection.request(method, path)
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers.get("x-release")


def test_each_shielded_request_is_logged_without_its_query() -> None:
    async def scenario() -> None:
        async with rolling() as gateway:
            await asked(gateway, "/zones")
            await asked(gateway, "/broken/2/500?token=secret")
            log = gateway._layout.folder / "shielded.log"
            await until(lambda: log.exists() and log.read_text().endswith("\n"), "the line")
            (line,) = [json.loads(text) for text in log.read_text().splitlines()]
            assert datetime.fromisoformat(line.pop("at")).tzinfo is not None
            uuid.UUID(line.pop("request"))
            assert line == {"candidate": "dev.2", "method": "GET", "path": "/broken/2/500", "status": 200}
            assert stat.S_IMODE(log.stat().st_mode) == 0o600

    asyncio.run(scenario())


async def since(gateway: Gateway, before: Mapping[str, Counts]) -> list[Counter[str]]:
    now = await gateway.counts()
    return [Counter(now[pool]) - Counter(before[pool]) for pool in ("p00", "p01")]


def test_a_shielded_request_counts_once_as_failed_and_once_as_answered() -> None:
    async def scenario() -> None:
        async with rolling() as gateway:
            before = dict(await gateway.counts())
            for path in ("/zones", "/broken/2/500", "/broken/2/507", "/broken/1/500", "/broken/2/404"):
                await asked(gateway, path)
            await asked(gateway, "/broken/2/500", "POST")
            live, candidate = await since(gateway, before)
            assert (candidate["requests"], candidate["5xx"], candidate["4xx"]) == (6, 3, 1)
            assert (candidate["handed_over_requests"], candidate["handed_over_2xx"]) == (2, 2)
            assert (live["requests"], live["2xx"], live["handed_over_requests"]) == (2, 2, 0)
            # The worker of release 1 answers 500 on /…/1/500: failed by both.
            state = gateway.state.with_stage("dev", live=1, candidate=2, weight=FULL_WEIGHT, shield=True)
            await gateway.apply(state.without_servers("p01"))
            assert (await asked(gateway, "/broken/1/500")).status == 500, (
                "no server of the candidate, and failed by live"
            )
            live, candidate = await since(gateway, before)
            assert (candidate["requests"], candidate["5xx"]) == (7, 4)
            assert (candidate["handed_over_requests"], candidate["handed_over_5xx"]) == (3, 1)

    asyncio.run(scenario())


def test_shield_stickiness_and_counts_survive_restart_and_adoption() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            first = new_gateway(folder)
            await first.start({stage: listen("127.0.0.1", 0) for stage in ("dev", "prod")})
            await begin(first, workers)
            user = Sticky(StickyBy.COOKIE, "s.i^d")
            state = first.state.with_stage("dev", live=1, candidate=2, weight=5000, shield=True, sticky=user)
            await first.apply(state)
            chosen = {name: (await asked(first, "/zones", headers=cookie(name))).json["release"] for name in "abcdefgh"}
            assert set(chosen.values()) == {"1", "2"}
            name = next(name for name, release in chosen.items() if release == "2")
            assert (await asked(first, "/broken/2/500", headers=cookie(name))).json["release"] == "1"
            assert (await first.counts())["p01"]["handed_over_requests"] == 1
            await asyncio.to_thread(kill, first.haproxy_pid)
            await event_of(first, "HAProxy was restarted")
            await until(lambda: not first._uncertain.is_set(), "HAProxy is looked at again")
            assert first.events.empty(), "nothing had to be repaired"
            await first.close()
            second = new_gateway(folder, stages=("others",))
            assert await second.adopt()
            assert second.state == state
            for each, release in chosen.items():
                assert (await asked(second, "/zones", headers=cookie(each))).json["release"] == release
            assert (await asked(second, "/broken/2/500", headers=cookie(name))).json["release"] == "1"
            assert (await second.counts())["p01"]["handed_over_requests"] == 2
            await finish(second)

    asyncio.run(scenario())


def cookie(value: str) -> dict[str, str]:
    """The cookie among others, as browsers send them."""
    return {"cookie": f"theme=dark; s.i^d={value}; xs.i^d=z"}


def test_a_release_is_not_drained_while_the_shield_may_still_send_it_a_request() -> None:
    async def scenario() -> None:
        async with rolling() as gateway:
            slow = asyncio.create_task(asked(gateway, "/broken/2/slow"))
            await busy(gateway, shield_of("p01"))
            await gateway.apply(gateway.state.with_stage("dev", live=2))
            assert not await gateway.drained("p00", deadline_s=0.3, readers=True), (
                "it may be asked once the candidate has failed"
            )
            assert await gateway.drained("p00", deadline_s=10, readers=True)
            assert slow.done() or (await slow).json["release"] == "1"
            assert (await slow).json["release"] == "1"

    asyncio.run(scenario())


USERS = [f"u{number}" for number in range(120)]


@pytest.mark.parametrize(
    ("sticky", "other"),
    [
        (Sticky(StickyBy.HEADER, "x-user"), "X-User"),
        (Sticky(StickyBy.COOKIE, "sid"), ""),
    ],
)
def test_sticky_clients_move_once_and_never_back(sticky: Sticky, other: str) -> None:
    def headers(user: str) -> dict[str, str]:
        return {other: user} if other else {"Cookie": f"a=b; sid={user}"}

    async def scenario() -> None:
        async with rolling() as gateway:
            moved: set[str] = set()
            for weight in (1000, 3000, 6000):
                await gateway.apply(gateway.state.with_stage("dev", live=1, candidate=2, weight=weight, sticky=sticky))
                now = {user for user in USERS if (await said(gateway, "/zones", headers=headers(user)))[1] == "2"}
                assert moved < now
                moved = now
            assert 0.4 < len(moved) / len(USERS) < 0.8
            # Another release draws others: nobody is always the first.
            state = gateway.state.with_routes("dev.3", [RouteState("dev.3", "GET", "/zones", "p01")])
            await gateway.apply(state.with_stage("dev", live=1, candidate=3, weight=6000, sticky=sticky))
            now = {user for user in USERS if (await said(gateway, "/zones", headers=headers(user)))[1] == "2"}
            assert now != moved

    asyncio.run(scenario())


def test_without_the_header_or_cookie_clients_are_distinguished_by_address() -> None:
    async def scenario() -> None:
        async with rolling() as gateway:
            for sticky in (Sticky(StickyBy.ADDRESS), Sticky(StickyBy.HEADER, "x-user"), Sticky(StickyBy.COOKIE, "sid")):
                for candidate in (2, 3, 4):
                    state = gateway.state
                    if candidate > 2 and f"dev.{candidate}" not in release_keys(state):
                        state = state.with_routes(
                            f"dev.{candidate}", [RouteState(f"dev.{candidate}", "GET", "/zones", "p01")]
                        )
                    await gateway.apply(
                        state.with_stage("dev", live=1, candidate=candidate, weight=5000, sticky=sticky)
                    )
                    releases = {(await said(gateway, "/zones"))[1] for _ in range(12)}
                    assert len(releases) == 1, "one address, one release"

    asyncio.run(scenario())
