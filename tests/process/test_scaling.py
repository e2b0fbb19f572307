"""Functions that scale, as a user runs them: crowds, sleep, deaths and deploys meanwhile; nothing fails."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest

from tests.process.conftest import Site, kill
from tests.process.load import Wrk
from tests.support import eventually

pytestmark = pytest.mark.process

Answer = tuple[int, dict[str, str], Any]
WORDS = {
    429: ("Too Many Requests", "TooManyRequestsException"),
    503: ("Service Unavailable", "ServiceUnavailableException"),
}
MOST = 12
FILE = "serverless.yml"


def crowd(url: str) -> Wrk:
    """Forty concurrent clients whose requests take 40 ms: more than three workers' work for each of the twelve."""
    return Wrk(url, connections=40, slow_one_in=1, slow_s=0.04)


@pytest.fixture
def scaling(site: Site) -> Site:
    """The plain service with one to twelve workers, and two seconds instead of a minute until the first leaves."""
    site.environ["HITLESS_SCALE_IN_AFTER_S"] = "2"
    site.edit("workers: 2", f"workers: {{min: 1, max: {MOST}}}", FILE)
    return site


def api(site: Site) -> Any:
    """The function's part of the status."""
    return next(function for function in site.stage()["functions"] if function["name"] == "api")


def size(site: Site) -> int:
    return int(api(site)["scaling"]["now"])


def sentences(site: Site) -> list[str]:
    return [event["sentence"] for event in site.hitless("events").document]


def test_sudden_load_gets_more_workers_and_no_request_fails(scaling: Site) -> None:
    scaling.up()
    with Wrk(scaling.url, connections=2, slow_one_in=50) as before:
        with crowd(scaling.url) as load:
            eventually(lambda: size(scaling) == MOST, what="all workers are there", deadline_s=20)
            eventually(lambda: api(scaling)["requests"] > 300, what="the crowd is served", deadline_s=20)
            assert load.running
            seen = load.end()
        eventually(lambda: size(scaling) < MOST // 2, what="most workers have left", deadline_s=30)
        assert before.running, "the load outlasted the crowd"
        steady = before.end()
    assert (seen.failed, steady.failed) == (0, 0), (seen, steady)
    assert seen.requests > 100
    assert steady.requests > 500
    found = api(scaling)
    assert (found["scaling"]["min"], found["scaling"]["max"]) == (1, MOST)
    assert found["failed"] == found["restarts"] == 0
    grown = [sentence for sentence in sentences(scaling) if "→ 12 workers: " in sentence]
    assert grown
    assert grown[0].startswith("api of release 1: ")


def test_a_sleeping_function_answers_its_first_request_with_and_without_a_daemon(scaling: Site) -> None:
    scaling.edit("min: 1", "min: 0", FILE)
    daemon = scaling.up()["engine"]["pid"]
    eventually(lambda: size(scaling) == 0, what="the function sleeps")
    assert api(scaling)["workers"] == []
    status, _, body = scaling.get("/fast")
    assert (status, body["release"]) == (200, "1")
    eventually(lambda: size(scaling) == 1, what="the daemon knows of the worker that was woken")
    assert any("woken by a request" in sentence for sentence in sentences(scaling))
    eventually(lambda: size(scaling) == 0, what="it sleeps again")
    kill(daemon)
    with Wrk(scaling.url, connections=4) as load:
        eventually(lambda: not scaling.folders.engine_is_alive())
        scaling.up()
        eventually(lambda: size(scaling) >= 2, what="the next daemon scales what it found awake", deadline_s=20)
        seen = load.end()
    assert seen.failed == 0, seen
    assert seen.requests > 50


def test_killing_the_daemon_while_scaling_fails_no_request(scaling: Site) -> None:
    daemon = scaling.up()["engine"]["pid"]
    with crowd(scaling.url) as load:
        eventually(lambda: size(scaling) > 1, every_s=0.002, what="the first workers have come", deadline_s=20)
        kill(daemon)
        eventually(lambda: not scaling.folders.engine_is_alive())
        scaling.up()
        eventually(lambda: size(scaling) == MOST, what="the rest came with the next daemon", deadline_s=20)
        eventually(lambda: api(scaling)["requests"] > 200, what="the crowd is served", deadline_s=20)
        assert load.running
        seen = load.end()
    assert seen.failed == 0, seen
    assert seen.requests > 100


def test_a_release_that_ships_while_scaling_has_the_live_releases_size(scaling: Site) -> None:
    scaling.up()
    with crowd(scaling.url) as load:
        eventually(lambda: size(scaling) > 1, what="the first workers have come", deadline_s=20)
        scaling.touch("another")
        assert scaling.hitless("deploy").document["outcome"] == "live"
        assert scaling.stage()["live"]["release"] == 2
        eventually(lambda: size(scaling) == MOST, deadline_s=20)
        eventually(lambda: api(scaling)["requests"] > 200, what="release 2 serves the crowd", deadline_s=20)
        seen = load.end()
    assert seen.failed == 0, seen
    assert seen.requests > 100


def test_beyond_reserved_concurrency_clients_get_429(
    site: Site,
) -> None:
    """One may run, two may wait for at most HAProxy's 8 s, the others are refused."""
    site.edit("handlers.api\n", "handlers.api\n    timeout: 12\n    reservedConcurrency: 1\n", FILE)
    site.edit("    timeout: 1\n", "    timeout: 12\n", FILE)
    site.edit("workers: 2", "workers: 1", FILE)
    site.edit("time.sleep(60)", "time.sleep(10)")
    site.up()
    answers: dict[str, list[Answer]] = {"/slow?s=10": [], "/misbehave/hang": []}
    clients = [Thread(target=lambda at: answers[at].append(site.get(at)), args=[at]) for at in 6 * [*answers][:1]]
    clients += [Thread(target=lambda at: answers[at].append(site.get(at)), args=[at]) for at in 2 * [*answers][1:]]
    for client in clients:
        client.start()
    eventually(lambda: len(answers["/slow?s=10"]) == 3, deadline_s=4, what="who came beyond the limit was turned away")
    for client in clients:
        client.join()
    assert sorted(status for status, _, _ in answers["/slow?s=10"]) == [200, 429, 429, 429, 429, 429]
    assert sorted(status for status, _, _ in answers["/misbehave/hang"]) == [200, 503]
    for status, headers, body in (*answers["/slow?s=10"], *answers["/misbehave/hang"]):
        if status != 200:
            word, kind = WORDS[status]
            assert (body, headers["x-amzn-errortype"]) == ({"message": word}, kind)
            assert headers["content-type"] == "application/json"
