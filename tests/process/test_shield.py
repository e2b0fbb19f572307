"""A broken canary under load from several kinds of connections: requests that may run twice do not fail."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import pytest

from tests.process.conftest import Site
from tests.process.load import Seen, Wrk
from tests.support import eventually

pytestmark = pytest.mark.process

BROKEN = {
    "raises": "raise ValueError('on purpose')",
    "ends its process": "os._exit(3)",
    "hangs": "time.sleep(60)",
}
HANDLER_BEGINS = '    query = event.get("queryStringParameters") or {}\n'
NEVER = 1 << 30


def canary(site: Site, *, shield: bool = True, percent: int = 20, requests: int = 20) -> None:
    """The service under a strategy that bakes longer than any alarm needs; its functions end after a second."""
    settings = f"strategy: Canary{percent}Percent30Seconds\n        shield: {str(shield).lower()}"
    site.edit("smoke: [GET /fast]", settings, "serverless.yml")
    site.edit("alarms: {", f"alarms: {{minimum_requests: {requests}, ", "serverless.yml")
    site.edit("timeout: 5", "timeout: 1", "serverless.yml")
    site.up()


def ship_broken(site: Site, code: str) -> Any:
    site.edit(HANDLER_BEGINS, f"{HANDLER_BEGINS}    {code}\n")
    return site.hitless("deploy", exit_code=3).document


def ship_under_load(site: Site, how: str) -> tuple[Any, Seen, Seen]:
    """The deploy's document, and the results of clients that keep their connections and of clients that close them."""
    with (
        Wrk(site.url, connections=4, slow_one_in=NEVER, post_one_in=NEVER, closing_one_in=NEVER) as keeping,
        Wrk(site.url, connections=2, slow_one_in=NEVER, post_one_in=NEVER, closing_one_in=1) as closing,
    ):
        document = ship_broken(site, BROKEN[how])
        assert keeping.running, "the load outlasted the rollout"
        return document, keeping.end(), closing.end()


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_canary_is_rolled_back_and_no_get_fails(site: Site, how: str) -> None:
    canary(site, requests=6 if how == "hangs" else 20)
    document, keeping, closing = ship_under_load(site, how)
    assert document["outcome"] == "rolled_back"
    assert "alarm" in document["reason"]
    assert (keeping.failed, closing.failed) == (0, 0), (keeping, closing)
    assert min(keeping.requests, closing.requests) > 20
    assert document["candidate"]["failed"] == 0
    assert document["candidate"]["shielded"] == document["candidate"]["requests"] >= 6
    assert document["live"]["failed"] == 0
    assert site.stage()["live"]["release"] == 1


def test_without_the_shield_the_same_canary_fails_requests(site: Site) -> None:
    canary(site, shield=False)
    document, keeping, closing = ship_under_load(site, "raises")
    assert document["outcome"] == "rolled_back"
    assert keeping.failed + closing.failed == document["candidate"]["failed"] > 0
    assert document["candidate"]["shielded"] == 0


class Client(Protocol):
    """Keeps its connection; `ask` returns the status or raises."""

    def ask(self, method: str, headers: dict[str, str]) -> int: ...
    def close(self) -> None: ...


class Http1Client:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)

    def ask(self, method: str, headers: dict[str, str]) -> int:
        # one that fits into HAProxy's buffer, and one that the spooler completes first
        body = b"{}" if int(headers["x-mark"].rpartition("-")[2]) % 2 else b"{%12500s}" % b""
        self._connection.request(method, "/echo", body if method == "POST" else None, headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def close(self) -> None:
        self._connection.close()


class Http2Client:
    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, http1=False, http2=True, timeout=20, trust_env=False)

    def ask(self, method: str, headers: dict[str, str]) -> int:
        return self._client.request(method, "/echo", headers=headers).status_code

    def close(self) -> None:
        self._client.close()


@dataclass
class Diary:
    """The results of one kind of request: statuses, and connections that ended without a response."""

    statuses: Counter[int] = field(default_factory=Counter)
    silent: list[str] = field(default_factory=list)


KINDS = ("GET", "POST with a key", "POST")


def talk(client: Client, name: str, diaries: dict[str, Diary], stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        kind = KINDS[number % len(KINDS)]
        number += 1
        headers = {"x-mark": f"{kind}/{name}-{number}"}
        if kind == "POST with a key":
            headers["idempotency-key"] = headers["x-mark"]
        try:
            diaries[kind].statuses[client.ask(kind.split()[0], headers)] += 1
        except (OSError, http.client.HTTPException, httpx.HTTPError) as error:
            diaries[kind].silent.append(f"{headers['x-mark']}: {error!r}")
            client.close()


def test_a_canary_whose_workers_are_killed_runs_each_request_once(
    site: Site,
) -> None:
    """As if the kernel were out of memory: with the guard alone, a safe request could kill two more workers."""
    runs_file = site.folder.parent / "runs" / "runs.txt"
    site.allow(runs_file.parent)
    site.environ["RUNS_FILE"] = str(runs_file)
    canary(site, percent=50, requests=30)
    diaries, stop = {kind: Diary() for kind in KINDS}, threading.Event()
    clients = [kind(site.url) for kind in (Http1Client, Http1Client, Http2Client, Http2Client)]
    threads = [
        threading.Thread(target=talk, args=(client, str(index), diaries, stop)) for index, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: diaries["POST"].statuses[200] > 5, what="the load has begun")
        mark = '"candidate " + event["headers"].get("x-mark", "")'
        document = ship_broken(site, f'note_run({{"headers": {{"x-mark": {mark}}}}}); os.kill(os.getpid(), 9)')
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
    assert [diary.silent for diary in diaries.values()] == [[], [], []]
    assert set(diaries["GET"].statuses) == set(diaries["POST with a key"].statuses) == {200}
    assert {200, 502} <= set(diaries["POST"].statuses) <= {200, 502, 503}, "503 while no worker is back"
    assert document["candidate"]["failed"] == diaries["POST"].statuses[502] + diaries["POST"].statuses[503]
    assert document["candidate"]["shielded"] > 0

    runs = Counter(runs_file.read_text().splitlines())
    assert max(runs.values()) == 1, "at the candidate once at most, and at the live release once at most"
    at_candidate = {mark.removeprefix("candidate ") for mark in runs if mark.startswith("candidate ")}
    at_candidate.remove("")  # the deploy's own first request, which the candidate does not survive either
    for kind in KINDS:
        assert any(mark.startswith(f"{kind}/") for mark in at_candidate)
    assert all(mark in runs for mark in at_candidate if not mark.startswith("POST/")), "the live release ran it then"
    assert not any(mark in runs for mark in at_candidate if mark.startswith("POST/")), "nobody ran it again"
