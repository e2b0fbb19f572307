"""The access log: its lines, what is never in it, and that nothing waits for it."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from hitless.gateway.accesslog import AccessLine, newest
from hitless.gateway.state import EVERY, FULL_WEIGHT, Access
from hitless.traces.records import request_ids
from tests.process.gateway_support import (
    Answer,
    Load,
    Workers,
    ask,
    event_of,
    kill,
    raw,
    run_dir,
    running_gateway,
    shipped,
    until,
    with_release,
)

pytestmark = pytest.mark.process

SECRET = "do-not-write-me"
CRLF = "\r\n"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
"""The example of https://www.w3.org/TR/trace-context/#examples-of-http-traceparent-headers."""


def lines(folder: Path) -> list[AccessLine]:
    return newest(folder / "logs" / "dev" / "access.log", 10_000)


async def logged(folder: Path, count: int) -> list[AccessLine]:
    await until(lambda: len(lines(folder)) >= count, f"{count} lines")
    return lines(folder)


def test_each_request_is_logged_in_one_line_without_secrets() -> None:
    async def scenario(folder: Path, workers: Workers) -> None:
        async with running_gateway(folder, logs=folder / "logs") as gateway:
            state = await with_release(gateway, workers)
            address = gateway.addresses["dev"]
            await asyncio.to_thread(ask, address, "/zones?not=yet")
            await gateway.apply(state.with_access("dev", Access(EVERY)))
            headers = {"authorization": SECRET, "cookie": f"session={SECRET}", "x-api-key": SECRET}
            queries = (
                f"a=1&token={SECRET}&b=2",
                f"API_KEY={SECRET}",
                f"x=1&user_password={SECRET}",
                f"X-Amz-Signature={SECRET}&y=%7B%22",
                f"%74oken={SECRET}",
                'q="quoted"\\',
            )
            for query in queries:
                await asyncio.to_thread(ask, address, f"/zones?{query}", headers=headers)
            await asyncio.to_thread(ask, address, "/zones/x", "POST", SECRET.encode(), headers)
            await asyncio.to_thread(ask, address, "/zones", "TRACE")
            found = await logged(folder, 8)
            assert [one.target for one in found] == [
                "/zones?a=1&token=***&b=2",
                "/zones?API_KEY=***",
                "/zones?x=1&user_password=***",
                "/zones?X-Amz-Signature=***&y=%7B%22",
                "/zones?%74oken=***",
                '/zones?q="quoted"\\',
                "/zones/x",
                "/zones",
            ]
            first, refused = found[0], found[-1]
            assert (first.method, first.status, first.release, first.shielded, first.cut_off) == (
                "GET",
                200,
                1,
                False,
                False,
            )
            assert len(first.request) == 36
            assert first.bytes > 0
            assert (refused.status, refused.release, refused.request) == (403, None, "")
            file = folder / "logs" / "dev" / "access.log"
            assert SECRET not in file.read_text()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600

            await gateway.apply(gateway.state.with_access("dev", Access(EVERY, query=False)))
            await asyncio.to_thread(ask, address, "/zones?where=here")
            assert (await logged(folder, 9))[-1].target == "/zones"
            await gateway.apply(gateway.state.with_access("dev", None))
            await asyncio.to_thread(ask, address, "/zones?off=1")
            await asyncio.to_thread(raw, address, b"this is not HTTP\r\n\r\n")
            assert len(lines(folder)) == 9

    in_scenario(scenario)


def test_shielded_requests_are_marked_and_lines_beyond_the_limit_are_sampled() -> None:
    async def scenario(folder: Path, workers: Workers) -> None:
        async with running_gateway(folder, logs=folder / "logs") as gateway:
            state = await with_release(gateway, workers)
            state = shipped(state, "p01", 2, []).with_stage("dev", live=1, candidate=2, weight=FULL_WEIGHT, shield=True)
            await gateway.apply(state.with_access("dev", Access(EVERY)))
            assert (await asyncio.to_thread(ask, gateway.addresses["dev"], "/zones")).status == 200
            (one,) = await logged(folder, 1)
            assert (one.shielded, one.release, one.status) == (True, 2, 200)

            await gateway.apply(gateway.state.with_stage("dev", live=1).with_access("dev", Access(5)))
            with Load(gateway.addresses["dev"]) as load:
                await until(lambda: load.sent > 3000, "requests", 60)
            assert load.failures == {}
            assert 5 <= len(lines(folder)) < load.sent / 4

    in_scenario(scenario)


def test_a_traced_stages_handler_and_log_get_the_same_traceparent() -> None:
    def seen(answer: Answer) -> str | None:
        return dict(json.loads(answer.body)["headers"]).get("traceparent")

    async def scenario(folder: Path, workers: Workers) -> None:
        async with running_gateway(folder, logs=folder / "logs") as gateway:
            state = await with_release(gateway, workers)
            address, given = gateway.addresses["dev"], {"traceparent": PARENT}
            await gateway.apply(state.with_access("dev", Access(EVERY)))
            untraced = await asyncio.to_thread(ask, address, "/zones")
            await gateway.apply(gateway.state.with_access("dev", Access(EVERY, traced=0)))
            own = await asyncio.to_thread(ask, address, "/zones")
            of_client = await asyncio.to_thread(ask, address, "/zones", headers=given)
            long = await asyncio.to_thread(ask, address, "/zones", headers={"traceparent": "0" * 9000})
            twice = f"GET /zones HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{2 * f'traceparent: {PARENT}{CRLF}'}\r\n"
            assert b" 200 " in await asyncio.to_thread(raw, address, twice.encode())
            await gateway.apply(gateway.state.with_access("dev", Access(EVERY, traced=1 << 48)))
            none = await asyncio.to_thread(ask, address, "/zones")
            still_of_client = await asyncio.to_thread(ask, address, "/zones", headers=given)

            found = await logged(folder, 7)
            assert [one.traceparent for one in found] == ["", seen(own), PARENT, "", "", "", PARENT]
            assert [seen(one) for one in (untraced, none)] == [None, None]
            assert (seen(of_client), seen(still_of_client), seen(long)) == (PARENT, PARENT, "0" * 9000)
            ids = request_ids(found[1], 0)
            assert ids is not None
            assert seen(own) == f"00-{ids[0]}-{ids[1]}-01", "the handler's parent is the span that is exported"

            # half of them: the gateway and the exporter decide by the same digits
            await gateway.apply(gateway.state.with_access("dev", Access(EVERY, traced=1 << 47)))
            for _ in range(40):
                await asyncio.to_thread(ask, address, "/zones")
            chosen = [(one.traceparent != "", one.request[24:] >= "8") for one in (await logged(folder, 47))[7:]]
            assert all(traced == expected for traced, expected in chosen)

    in_scenario(scenario)


def test_the_access_log_blocks_no_request_and_stays_bounded_if_any_process_dies() -> None:
    async def scenario(folder: Path, workers: Workers) -> None:
        async with running_gateway(folder, logs=folder / "logs") as gateway:
            state = await with_release(gateway, workers)
            await gateway.apply(state.with_access("dev", Access(EVERY)))
            file, address = folder / "logs" / "dev" / "access.log", gateway.addresses["dev"]
            with Load(address) as load:
                await until(lambda: load.sent > 100, "requests")
                with file.open("ab") as log:
                    log.truncate(17 << 20)  # a hole: the guardian, not the daemon, sees how large it is
                old = file.with_name("access.log.1")
                await until(lambda: old.exists() and file.exists(), "rotation")
                assert old.stat().st_size > 16 << 20 > file.stat().st_size
                before = file.stat().st_size
                await until(lambda: file.stat().st_size > before, "lines after the rotation")
                for death, pid in (
                    ("HAProxy was restarted", gateway.haproxy_pid),
                    ("took over", gateway.guardian_pid),
                ):
                    kill(pid)
                    await event_of(gateway, death)
                    before = file.stat().st_size
                    await until(lambda before=before: file.stat().st_size > before, f"lines after {death}")  # type: ignore[misc]
            assert load.failures.total() <= 2, "those that were with the HAProxy that was killed"
            assert json.loads(file.read_text().splitlines()[-1])["status"] == 200
            file.unlink()
            file.mkdir()  # nothing can be written there
            kill(gateway.haproxy_pid)
            await event_of(gateway, "HAProxy was restarted")
            assert (await asyncio.to_thread(ask, address, "/zones")).status == 200

    in_scenario(scenario)


def in_scenario(scenario: Callable[[Path, Workers], object]) -> None:
    with run_dir() as folder, Workers(folder) as workers:
        asyncio.run(scenario(folder, workers))  # type: ignore[arg-type]
