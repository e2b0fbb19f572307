"""Receipts compared with the clients' counts: under mixed load, with killed workers, daemon or HAProxy."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.process.conftest import Site, kill
from tests.support import eventually

pytestmark = pytest.mark.process

FAILING = """    if RELEASE != "1" and query.get("try"):
        raise ValueError("on purpose")
    if RELEASE != "1" and query.get("exit"):
        os._exit(3)
"""
ANY_ANSWER = '    query = event.get("queryStringParameters") or {}\n'
NEVER_AN_ALARM = "alarms: {error_rate_percent: 100}"
CONNECTIONS, EACH = 4, 100


class Clients:
    """Counts responses by their release, whether they failed, and whether another release responded."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
        self.answers: Counter[tuple[str | None, bool, bool]] = Counter()
        self._lock = threading.Lock()

    def send(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Send GETs and POSTs that the candidate answers, fails or dies of, over kept connections."""
        threads = [threading.Thread(target=self._send, args=(number,)) for number in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        meanwhile()
        for thread in threads:
            thread.join()

    def _send(self, number: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=20)
        requests = [("GET", "/fast"), ("GET", "/fast?try=1"), ("POST", "/echo"), ("GET", "/slow?s=0.02")]
        requests = [*requests, ("POST", "/echo?try=1")] * 4 + [("GET", "/fast?exit=1"), ("POST", "/echo?exit=1")]
        for turn in range(EACH):
            method, path = requests[(turn + 7 * number) % len(requests)]
            connection.request(method, path, body=b"{}" if method == "POST" else None)
            response = connection.getresponse()
            response.read()
            release, shielded = response.headers["x-hitless-release"], response.headers["x-hitless-shielded"] == "1"
            with self._lock:
                self.answers[release, response.status >= 500, shielded] += 1
        connection.close()

    def sums(self, release: int) -> dict[str, int]:
        """The counts as in a receipt: responses of the live release in place of the candidate count for the candidate,
        and so do the gateway's own responses without a release, because no worker of the candidate was left.
        """
        answers = self.answers.items()
        handed_over = [(failed, n) for (_, failed, other), n in answers if other]
        if release == 1:
            own = [(failed, n) for (name, failed, other), n in answers if name == "1" and not other]
        else:
            own = [(failed, n) for (name, failed, other), n in answers if name in ("2", None) and not other]
            own += handed_over
        return {
            "requests": sum(n for _, n in own),
            "failed": sum(n for failed, n in own if failed),
            "shielded": 0 if release == 1 else sum(n for failed, n in handed_over if not failed),
        }


def baking(site: Site) -> Clients:
    """A canary of 40 % that fails some requests and keeps its weight; nothing has been sent yet."""
    settings = f"strategy: Canary40Percent5Minutes\n        {NEVER_AN_ALARM}"
    site.edit("alarms: {guard_s: 0}", settings, "serverless.yml")
    site.up()
    site.edit(ANY_ANSWER, ANY_ANSWER + FAILING)
    site.hitless("deploy", "--no-wait", "--message", "tries something")
    eventually(lambda: (site.stage()["candidate"] or {}).get("state") == "baking", what="the canary bakes")
    return Clients(site.url)


def receipt_of(site: Site, release: int = 2) -> Any:
    return site.hitless("releases", str(release)).document["rollouts"][0]["receipt"]


def sums(receipt: Any, sides: Sequence[str] = ("candidate", "live")) -> list[dict[str, int]]:
    return [{name: receipt[side][name] for name in ("requests", "failed", "shielded")} for side in sides]


def test_a_receipt_equals_the_clients_counts_even_if_workers_are_killed(site: Site) -> None:
    clients = baking(site)

    def strike() -> None:
        workers = [worker["pid"] for function in site.stage()["functions"] for worker in function["workers"]]
        eventually(lambda: sum(clients.answers.values()) > 100, what="the load runs")
        kill(workers[0])

    clients.send(strike)
    metrics = {(m["name"], m["labels"].get("release")): 0.0 for m in site.hitless("metrics").document}
    for m in site.hitless("metrics").document:
        metrics[m["name"], m["labels"].get("release")] += m["value"]
    site.hitless("abort")
    receipt = receipt_of(site)
    assert sum(clients.answers.values()) == CONNECTIONS * EACH
    assert sums(receipt) == [clients.sums(2), clients.sums(1)], clients.answers
    assert receipt["candidate"]["failed"] > 0, "POSTs are not shielded"
    assert receipt["candidate"]["shielded"] > 0
    assert receipt["cost"]["requests"] == CONNECTIONS * EACH
    assert receipt["complete"]
    site.hitless("releases", "2", "--html", str(site.folder / "receipt.html"))
    failed = receipt["cost"]["failed"]
    assert f"release 2: {failed} of {CONNECTIONS * EACH} requests failed" in (site.folder / "receipt.html").read_text()
    assert metrics["hitless_requests_total", "2"] == clients.sums(2)["requests"]
    assert metrics["hitless_failed_total", "2"] == clients.sums(2)["failed"]
    assert metrics["hitless_shielded_total", "2"] == clients.sums(2)["shielded"]
    handed_over = sum(n for (_, _, other), n in clients.answers.items() if other)
    assert metrics["hitless_requests_total", "1"] == clients.sums(1)["requests"] + handed_over
    assert metrics["hitless_answers_total", "1"] == metrics["hitless_requests_total", "1"]
    assert metrics["hitless_stage_answers_total", None] == CONNECTIONS * EACH
    assert metrics["hitless_candidate_weight_percent", "2"] == 40
    assert min(metrics["hitless_workers", "1"], metrics["hitless_workers", "2"]) >= 4
    assert metrics["hitless_worker_restarts_total", "1"] == 1
    baked = receipt["weights"][0]
    assert baked["asked_percent"] == 40
    assert baked["got_percent"] == round(100 * clients.sums(2)["requests"] / (CONNECTIONS * EACH), 2)
    assert (receipt["why"], receipt["who"]["user"]) == ("tries something", site.folder.owner())


def test_a_receipt_survives_the_daemons_death_with_every_request(site: Site) -> None:
    clients = baking(site)
    clients.send(lambda: kill(site.status()["engine"]["pid"]))
    clients.send()  # nobody is there to ask the gateway
    site.up()
    if site.stage()["candidate"]:
        site.hitless("abort")
    receipt = receipt_of(site)
    assert receipt["complete"], receipt["missing"]
    assert sums(receipt) == [clients.sums(2), clients.sums(1)], clients.answers
    assert receipt["cost"]["requests"] == 2 * CONNECTIONS * EACH
    assert receipt["why"] == "tries something", "what was known before is not lost"


def test_a_receipt_is_incomplete_if_haproxy_was_killed(site: Site) -> None:
    clients = baking(site)
    clients.send()
    gateway_pid = site.status()["engine"]["gateway_pid"]
    kill(gateway_pid)
    eventually(lambda: site.status()["engine"]["gateway_pid"] not in (None, gateway_pid), what="another HAProxy")
    site.hitless("abort")
    receipt = receipt_of(site)
    assert not receipt["complete"]
    assert "HAProxy was restarted" in receipt["missing"][0]
    assert 0 < receipt["cost"]["requests"] <= CONNECTIONS * EACH
