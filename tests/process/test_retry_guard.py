"""Workers are killed during keep-alive POSTs: each loss is a 502 in JSON, and no POST runs twice.

By HTTP/1.1 and by HTTP/2 with prior knowledge; bodies from empty to several of the gateway's buffers.
"""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import pytest

from tests.process.conftest import Site, kill
from tests.support import eventually

pytestmark = pytest.mark.process

KILLS = 150
CLIENTS = 6
LARGEST_BODY_BYTES = 60_000


class Poster(Protocol):
    """One client that keeps its connection: posts a body, returns status, content type and body, or raises."""

    def post(self, mark: str, body: bytes) -> tuple[int, str, bytes]: ...
    def close(self) -> None: ...


class Http1Poster:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)

    def post(self, mark: str, body: bytes) -> tuple[int, str, bytes]:
        try:
            self._connection.request("POST", "/echo?s=0.005", body, {"x-mark": mark, "content-type": "text/plain"})
            answer = self._connection.getresponse()
            return answer.status, answer.headers.get("content-type", ""), answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()


class Http2Poster:
    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, http1=False, http2=True, timeout=20, trust_env=False)

    def post(self, mark: str, body: bytes) -> tuple[int, str, bytes]:
        answer = self._client.post(
            "/echo?s=0.005", content=body, headers={"x-mark": mark, "content-type": "text/plain"}
        )
        assert answer.http_version == "HTTP/2"
        return answer.status_code, answer.headers.get("content-type", ""), answer.content

    def close(self) -> None:
        self._client.close()


@dataclass
class Diary:
    """The results of all clients."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    bad_errors: list[bytes] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)


def post_until(stop: threading.Event, poster: Poster, name: str, diary: Diary) -> None:
    chance = random.Random(name)
    number = 0
    while not stop.is_set():
        number += 1
        mark = f"{name}-{number}"
        body = b"x" * chance.choice((0, 100, 2_000, chance.randrange(LARGEST_BODY_BYTES)))
        diary.sent.add(mark)
        try:
            status, kind, answer = poster.post(mark, body)
        except (OSError, http.client.HTTPException, httpx.HTTPError) as error:
            diary.broken[mark] = f"{len(body)} bytes: {error!r}"
            diary.lost.add(mark)
            continue
        diary.statuses[status] += 1
        if status != 200:
            diary.lost.add(mark)
            if status != 502 or kind != "application/json" or answer != b'{"message": "Internal server error"}':
                diary.bad_errors.append(b"%d %s" % (status, answer))


@pytest.mark.parametrize("client", [Http1Poster, Http2Poster])
def test_a_killed_worker_causes_a_502_and_never_a_second_run(site: Site, client: type[Poster]) -> None:
    runs_file = site.folder.parent / "runs" / "runs.txt"
    site.allow(runs_file.parent)
    site.environ["RUNS_FILE"] = str(runs_file)
    site.up()
    diary, stop = Diary(), threading.Event()
    posters = [client(site.url) for _ in range(CLIENTS)]  # type: ignore[call-arg]
    threads = [
        threading.Thread(target=post_until, args=(stop, poster, f"c{index}", diary))
        for index, poster in enumerate(posters)
    ]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: diary.statuses[200] > 20, what="the load has begun")
        for _ in range(KILLS):
            kill_one(site)
        before = diary.statuses[200]
        eventually(lambda: diary.statuses[200] > before + 20, what="posts go on after the last kill")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for poster in posters:
            poster.close()
    runs = Counter(runs_file.read_text().split())
    assert not diary.broken, f"requests without a response: {diary.broken}"
    assert not diary.bad_errors, diary.bad_errors[:5]
    assert diary.statuses[502] > 0, "no kill hit a request in hand: the test showed nothing"
    assert not {mark: count for mark, count in runs.items() if count > 1}
    assert diary.sent - diary.lost <= set(runs), "what was answered with 200 was run"


def kill_one(site: Site) -> None:
    """Kill a worker, a busy one if possible, and wait until it is replaced."""
    workers = workers_of_api(site)
    victim = next((worker for worker in workers if worker["busy"]), workers[0])["pid"]
    kill(victim)

    def replaced() -> bool:
        now = {worker["pid"] for worker in workers_of_api(site)}
        return len(now) == len(workers) and victim not in now

    eventually(replaced, what="a replacement")


def workers_of_api(site: Site) -> list[dict[str, int]]:
    workers: list[dict[str, int]] = site.stage()["functions"][0]["workers"]
    return workers
