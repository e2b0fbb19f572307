"""Slow clients do not affect others: no request fails, no worker's place is lost, no release waits."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hitless.gateway.spooler import LOCK
from tests.process.conftest import Site
from tests.process.slow_clients import Beside, SlowClients
from tests.support import eventually, gone

pytestmark = pytest.mark.process

KINDS = {"upload": "/echo", "read": "/echo?bytes=4000000", "http2": "/echo?bytes=200000"}


def function_of(site: Site) -> Any:
    return next(one for one in site.stage()["functions"] if one["name"] == "api")


async def beside_slow_clients(site: Site, kinds: dict[str, str], count: int, requests: int) -> Beside:
    """Send `requests` small requests while a canary ships, with `count` slow clients of each kind connected."""
    with ExitStack() as stack:
        slow = [stack.enter_context(SlowClients(site.url, kind, count, path)) for kind, path in kinds.items()]
        readers = count * sum(kind != "upload" for kind in kinds)
        await asyncio.to_thread(
            eventually,
            lambda: function_of(site)["gateway"]["reading"] == readers,
            deadline_s=60,
            every_s=0.3,
            what=f"{readers} responses that nobody reads are seen",
        )
        site.touch(f"another release beside {count} of {list(kinds)}")
        deploy = asyncio.to_thread(site.hitless, "deploy", "--strategy", "Canary50Percent2Seconds")
        shipping, beside = asyncio.ensure_future(deploy), Beside()
        while not shipping.done() or beside.results.total() < requests:
            await beside.send(site.url, 10, "/echo")
        assert (await shipping).document["outcome"] == "live"
        assert [one.ended for one in slow] == [Counter()] * len(slow), "the slow ones were there all the time"
    return beside


def test_slow_clients_of_every_kind_do_not_fail_small_requests_or_a_release(site: Site) -> None:
    site.up()
    beside = asyncio.run(beside_slow_clients(site, KINDS, 12, 100))
    assert beside.results.keys() == {"200"}


@pytest.mark.long
@pytest.mark.parametrize("kinds", [*([kind] for kind in KINDS), list(KINDS)])
def test_hundreds_of_slow_clients_do_not_fail_a_thousand_small_requests(site: Site, kinds: list[str]) -> None:
    site.up()
    beside = asyncio.run(beside_slow_clients(site, {kind: KINDS[kind] for kind in kinds}, 200, 1000))
    print(f"{kinds}: {beside.results.total()} requests, longest {beside.longest_s * 1000:.0f} ms")
    assert beside.results.keys() == {"200"}


def test_a_killed_spooler_fails_only_its_current_uploads(running: Site) -> None:
    lock = Path(os.readlink(running.folders.data / "run")) / "gw" / LOCK
    pid = int(lock.read_text())
    parts = urlsplit(running.url)
    in_hand = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    in_hand.putrequest("POST", "/echo")
    in_hand.putheader("content-length", "100000")
    in_hand.endheaders(b"x" * 60_000)
    bodies = running.folders.data / "bodies"
    looks: list[bool] = []

    def in_the_spooler() -> bool:
        """HAProxy's checks have a connection too, for an instant."""
        looks.append(_descriptors(pid) > 0)
        return len(looks) > 10 and all(looks[-10:])

    eventually(in_the_spooler, what="the upload is in hand")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid), what="its end")
    statuses = Counter(running.get("/echo", "POST", b"x" * 20_000)[0] for _ in range(40))
    assert statuses == {200: 40}
    assert in_hand.getresponse().status == 502
    in_hand.close()
    eventually(lambda: lock.read_text() not in ("", str(pid)), what="another spooler")
    assert running.get("/echo", "POST", b"x" * 20_000)[2]["length"] == 20_000
    assert not list(bodies.iterdir())
    events = running.hitless("events").document
    assert any("the spooler died and was restarted" in event["sentence"] for event in events)


def _descriptors(pid: int) -> int:
    """Connections to the spooler's upload socket."""
    return (
        sum(os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:") for name in os.listdir(f"/proc/{pid}/fd")) - 4
    )
