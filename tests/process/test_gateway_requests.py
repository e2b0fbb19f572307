"""A request at the gateway: routing, headers, errors in JSON, large bodies, dead workers, HTTP/2."""

from __future__ import annotations

import asyncio
import http.client
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from hitless.engine.depth import DEEP
from hitless.gateway.gateway import Gateway
from hitless.gateway.state import QUEUE_TIMEOUT_S, RouteState
from hitless.worker.layout import STRIKES_OUT
from tests.process.gateway_support import (
    Answer,
    Workers,
    ask,
    busy,
    raw,
    run_dir,
    running_gateway,
    shipped,
    with_release,
)

pytestmark = pytest.mark.process

MIB = 1 << 20


@asynccontextmanager
async def serving(count: int = 2, **options: Any) -> AsyncIterator[tuple[Gateway, Workers, tuple[str, int]]]:
    """A gateway whose stage dev has release 1 with stand-in workers."""
    with run_dir() as folder, Workers(folder) as workers:
        async with running_gateway(folder) as gateway:
            servers = await asyncio.to_thread(workers.start, 1, count, **options)
            await gateway.apply(shipped(gateway.state, "p00", 1, servers))
            yield gateway, workers, gateway.addresses["dev"]


def is_json(answer: Answer, status: int, message: str) -> None:
    assert (answer.status, answer.json) == (status, {"message": message})
    assert answer.headers["content-type"] == "application/json"
    assert parsedate_to_datetime(answer.headers["date"]).tzinfo == UTC


def headers_of(answer: Answer, name: str) -> list[str]:
    return [value for key, value in answer.json["headers"] if key.lower() == name]


def last_answer(data: bytes) -> Answer:
    head, _, body = data.rpartition(b"\r\n\r\n")
    lines = head.decode().rsplit("HTTP/1.1 ", 1)[1].split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return Answer(int(lines[0].split(" ")[0]), headers, body)


def test_a_stage_without_a_release_gets_503_and_an_unknown_route_403() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                servers = await asyncio.to_thread(workers.start, 1)
                state = gateway.state.with_servers("p00", servers).with_stage("dev", live=1)
                routes = [RouteState("dev.1", "GET", path, "p00") for path in ("/zones", "/zones/{area}")]
                await gateway.apply(state.with_routes("dev.1", routes))
                dev, prod = gateway.addresses["dev"], gateway.addresses["prod"]
                is_json(ask(prod, "/zones"), 503, "Service Unavailable")
                is_json(ask(dev, "/nowhere"), 403, "Missing Authentication Token")
                is_json(ask(dev, "/zones", "POST"), 403, "Missing Authentication Token")
                is_json(ask(dev, "/zones/x", "OPTIONS"), 403, "Missing Authentication Token")
                is_json(ask(dev, "/zones", "BREW"), 403, "Missing Authentication Token")
                ids = {
                    uuid.UUID(ask(dev, "/nowhere", headers={"x-hl-id": "mine"}).headers["x-amzn-requestid"])
                    for _ in "12"
                }
                assert len(ids) == 2, "each has an id of its own, which is not the client's to say"
                assert ask(dev, "/zones", "HEAD").status == 403
                assert (
                    ask(dev, "/zones").status
                    == ask(dev, "/zones/").status
                    == ask(dev, "/zones/a%2Fb?x=/y/z").status
                    == 200
                )

    asyncio.run(scenario())


def test_a_connection_stays_open_after_a_response_of_the_gateway() -> None:
    async def scenario() -> None:
        async with serving() as (_, _, address):
            connection = http.client.HTTPConnection(*address, timeout=10)
            for path, status in (("/", 403), ("/zones", 200), ("/", 403), ("/zones", 200)):
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
                assert response.status == status
            connection.close()

    asyncio.run(scenario())


def test_the_worker_gets_the_gateways_headers_and_not_the_clients_forged_ones() -> None:
    async def scenario() -> None:
        async with serving() as (_, _, address):
            forged = {"X-Hl-Id": "mine", "x-hl-try": "cand", "X-HL-Pool": "p07", "X-Forwarded-For": "203.0.113.9"}
            answers = [ask(address, "/zones", headers=forged) for _ in range(2)]
            ids = {headers_of(answer, "x-hl-id")[0] for answer in answers}
            assert len(ids) == 2
            assert all(uuid.UUID(each).version == 4 and str(uuid.UUID(each)) == each for each in ids)
            for answer in answers:
                assert [len(headers_of(answer, name)) for name in ("x-hl-id", "x-hl-try", "x-hl-pool")] == [1, 0, 0]
                assert headers_of(answer, "x-forwarded-for") == ["203.0.113.9", "127.0.0.1"]
                assert headers_of(answer, "x-hl-port") == [str(address[1])]
            assert headers_of(ask(address, "/zones"), "x-forwarded-for") == ["127.0.0.1"]
            async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}") as client:
                seen = [dict((await client.get("/zones")).json()["headers"])["x-hl-id"] for _ in range(200)]
            assert len({each[:8] for each in seen}) == len({each[24:32] for each in seen}) == 200
            assert len({each[8:24] for each in seen}) == 1  # drawn once for each connection
            assert all(uuid.UUID(each).version == 4 and str(uuid.UUID(each)) == each for each in seen)

    asyncio.run(scenario())


def test_large_and_chunked_bodies_arrive_complete_with_their_id() -> None:
    async def scenario() -> None:
        async with serving() as (_, _, address):
            for size in (0, 2_000, 49_000, 60_000, 70_000, 3 * MIB):
                answer = ask(address, "/items", "POST", b"x" * size)
                assert (answer.status, answer.json["body_bytes"]) == (200, size)
                assert len(headers_of(answer, "x-hl-id")) == 1
                assert headers_of(answer, "x-hl-pool") == []
                assert headers_of(answer, "x-forwarded-for") == ["127.0.0.1"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("length", "end"),
    [
        (b"content-length: 5000\r\n\r\n", b"x"),
        (b"transfer-encoding: chunked\r\n\r\n1388\r\n", b"x\r\n0\r\n\r\n"),
    ],
)
def test_no_worker_gets_an_incomplete_request_however_large_its_headers_are(length: bytes, end: bytes) -> None:
    async def scenario() -> None:
        async with serving() as (gateway, _, address):
            head = b"POST /items HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            head += b"".join(b"x-%d: %s\r\n" % (number, b"y" * 900) for number in range(16))
            reader, writer = await asyncio.open_connection(*address)
            writer.write(head + length + b"x" * 4999)
            await busy(gateway, "spool")
            assert (await gateway.loads(["p00"]))["p00"].scur == 0
            writer.write(end)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()

    asyncio.run(scenario())


def test_an_upload_completed_after_a_swap_is_served_by_the_live_release() -> None:
    async def scenario() -> None:
        async with serving() as (gateway, workers, address):
            reader, writer = await asyncio.open_connection(*address)
            head = b"POST /items HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 20000\r\n\r\n"
            writer.write(head + b"x" * 19_999)
            await busy(gateway, "spool")
            second = await asyncio.to_thread(workers.start, 2, 1)
            state = shipped(gateway.state, "p01", 2, second)
            await gateway.apply(state.without_routes("dev.1").without_servers("p00"))
            writer.write(b"x")
            assert b"x-release: 2" in await reader.read()
            writer.close()

    asyncio.run(scenario())


def test_bodies_beyond_api_gateways_limit_are_refused() -> None:
    async def scenario() -> None:
        async with serving() as (_, _, address):
            head = f"POST /items HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {10 * MIB + 1}\r\n\r\n"
            answer = await asyncio.to_thread(raw, address, head.encode() + b"x" * 100_000)
            is_json(last_answer(answer), 413, "Request Too Long")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /zones\r\n\r\n",
        b"GET /zones HTTP/1.1\r\nhost: x\r\nbad header: y\r\n\r\n",
        b"POST /zones HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST /zones HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n\r\nhello",
        b"GET /zo\x00nes HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /zones HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_invalid_requests_are_refused_and_reach_no_worker(request_bytes: bytes) -> None:
    async def scenario() -> None:
        async with serving() as (gateway, _, address):
            answer = await asyncio.to_thread(raw, address, request_bytes)
            assert answer.split(b" ", 2)[1] in (b"400", b"422", b"501")
            assert (await gateway.counts())["p00"]["requests"] == 0

    asyncio.run(scenario())


def test_content_length_with_a_chunked_body_does_not_smuggle_a_second_request() -> None:
    async def scenario() -> None:
        async with serving() as (gateway, _, address):
            smuggled = b"0\r\n\r\nGET /zones/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
            head = (
                b"POST /items HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: "
                + str(len(smuggled)).encode()
                + b"\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            answer = await asyncio.to_thread(raw, address, head + smuggled)
            assert answer.count(b"HTTP/1.1 ") == 1
            assert b"smuggled" not in answer
            assert (await gateway.counts())["p00"]["requests"] <= 1

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [0, 2_000, 200_000])
def test_a_request_without_a_response_from_any_worker_gets_a_502_in_json(size: int) -> None:
    async def scenario() -> None:
        async with serving() as (_, _, address):
            is_json(ask(address, "/drop", "POST", b"x" * size), 502, "Internal server error")

    asyncio.run(scenario())


@pytest.mark.parametrize(("body_bytes", "header_bytes"), [(200_000, 0), (20_000, 0), (10_000, 6_000)])
def test_a_large_request_whose_worker_dies_gets_a_502(body_bytes: int, header_bytes: int) -> None:
    async def scenario() -> None:
        async with serving(count=1) as (_, _, address):
            connection = http.client.HTTPConnection(*address, timeout=10)
            connection.request("GET", "/zones")
            assert connection.getresponse().read()
            connection.request("POST", "/die", b"x" * body_bytes, {"x-filler": "x" * header_bytes})
            response = connection.getresponse()
            assert (response.status, json.loads(response.read())) == (502, {"message": "Internal server error"})
            connection.close()

    asyncio.run(scenario())


def test_only_uploads_are_refused_when_the_memory_budget_for_bodies_is_used_up() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder, bodies_bytes=50_000) as gateway:
                await with_release(gateway, workers)
                address = gateway.addresses["dev"]
                is_json(ask(address, "/items", "POST", b"x" * 60_000), 503, "Service Unavailable")
                assert ask(address, "/items", "POST", b"x" * 10_000).status == 200
                assert ask(address, "/items", "POST", b"x" * 40_000).json["body_bytes"] == 40_000

    asyncio.run(scenario())


def test_a_request_is_retried_more_often_than_a_dead_worker_may_leave_idle_connections() -> None:
    async def scenario() -> None:
        async with serving() as (gateway, _, address):
            assert ask(address, "/drop", "POST", b"{}").status == 502
            assert (await gateway.counts())["p00"]["retries"] == 20 > DEEP + STRIKES_OUT
            assert ask(address, "/zones").status == 200

    asyncio.run(scenario())


def test_a_function_that_exceeds_its_pools_timeout_gets_504() -> None:
    async def scenario() -> None:
        async with serving() as (gateway, _, address):
            await gateway.apply(gateway.state.with_servers("p00", gateway.state.pool("p00").servers, timeout_ms=300))
            is_json(await asyncio.to_thread(ask, address, "/slow/2000"), 504, "Endpoint request timed out")
            large = await asyncio.to_thread(ask, address, "/slow/2000", "POST", b"x" * 100_000)
            is_json(large, 504, "Endpoint request timed out")
            assert ask(address, "/slow/100").status == 200

    asyncio.run(scenario())


async def until_queued(gateway: Gateway) -> None:
    while not (await gateway.loads(["p00"]))["p00"].qcur:
        pass


def test_a_request_that_waits_too_long_for_a_worker_gets_503() -> None:
    async def scenario() -> None:
        async with serving(count=1, maxconn=1) as (gateway, _, address):
            slow = asyncio.create_task(asyncio.to_thread(ask, address, f"/slow/{QUEUE_TIMEOUT_S * 1000 + 1500}"))
            await busy(gateway, "p00")
            waiting = asyncio.create_task(asyncio.to_thread(ask, address, "/zones"))
            async with asyncio.timeout(10):
                await until_queued(gateway)
            is_json(await waiting, 503, "Service Unavailable")
            assert (await slow).status == 200

    asyncio.run(scenario())


def test_http_2_with_prior_knowledge_is_served_on_the_same_port() -> None:
    async def scenario() -> None:
        async with serving() as (_, _, address):
            async with httpx.AsyncClient(http1=False, http2=True, base_url="http://{}:{}".format(*address)) as client:
                answers = await asyncio.gather(*(client.post("/items", content=b"x" * 1000) for _ in range(20)))
                assert {(answer.http_version, answer.status_code) for answer in answers} == {("HTTP/2", 200)}
                large = await client.post("/items", content=b"x" * 200_000)
                assert large.json()["body_bytes"] == 200_000
                assert (await client.get("/")).status_code == 403
            assert ask(address, "/zones").status == 200

    asyncio.run(scenario())


def test_a_methods_own_route_and_the_any_route_of_a_path_reach_their_pools() -> None:
    async def scenario() -> None:
        with run_dir() as folder, Workers(folder) as workers:
            async with running_gateway(folder) as gateway:
                state = gateway.state
                for number in (1, 2, 3):
                    state = state.with_servers(f"p0{number}", await asyncio.to_thread(workers.start, number, 1))
                routes = [
                    RouteState("dev.9", "ANY", "/me", "p01"),
                    RouteState("dev.9", "GET", "/{name}", "p02"),
                    RouteState("dev.9", "PATCH", "/me", "p03"),
                    RouteState("dev.9", "ANY", "/{proxy+}", "p03"),
                ]
                await gateway.apply(state.with_routes("dev.9", routes).with_stage("dev", live=9))
                address = gateway.addresses["dev"]
                seen = {
                    (method, path): ask(address, path, method).json["release"]
                    for method, path in (
                        ("GET", "/me"),
                        ("PATCH", "/me"),
                        ("GET", "/you"),
                        ("POST", "/you"),
                        ("GET", "/a/b"),
                    )
                }
                assert list(seen.values()) == ["1", "3", "2", "3", "3"]
                # These methods fit the routes' patterns, and two of them are words of the gateway's maps.
                for method in ("ANY", "NONE", "FOO"):
                    for path in ("/me", "/a/b"):
                        is_json(ask(address, path, method), 403, "Missing Authentication Token")
                override = {"x-http-method-override": "PATCH"}
                assert ask(address, "/me", "POST").json["release"] == "1"
                assert ask(address, "/me", "POST", headers=override).json["release"] == "3"
                assert headers_of(ask(address, "//me"), "x-hl-path") == ["//me"]
                assert headers_of(ask(address, "//a/b"), "x-hl-path") == ["//a/b"]

    asyncio.run(scenario())
