"""Commit statuses at the forge, also after the engine or the receiver died during the run."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from hitless.documents import to_plain
from hitless.errors import EngineNotRunningError
from hitless.forge.forge import BranchUpdate
from hitless.forge.github import GitHubForge
from hitless.forge.statuses import CommitStatus
from tests.component.receiver_site import SECRET, FakeEngine, Site, pull, pushed, theirs

pytestmark = pytest.mark.component


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.remote.store.close()


class Forge(BaseHTTPRequestHandler):
    """Takes commit statuses, and calls `answered` for each."""

    server: ForgeServer

    def do_POST(self) -> None:
        status = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.statuses.append((self.path, self.headers["authorization"], status["state"], status["description"]))
        self.server.answered()
        self.send_response(self.server.refusals.pop(0) if self.server.refusals else 201)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class ForgeServer(HTTPServer):
    def __init__(self, answered: Callable[[], None]) -> None:
        super().__init__(("127.0.0.1", 0), Forge)
        self.answered, self.statuses = answered, list[tuple[str, str, str, str]]()
        self.refusals: list[int] = []
        """HTTP statuses of the next responses."""


@contextmanager
def forge_of(site: Site, answered: Callable[[], None] = lambda: None) -> Iterator[ForgeServer]:
    """A forge to which the receiver sends statuses."""
    site.deliveries.look_s = 0.01
    with ForgeServer(answered) as forge:
        thread = threading.Thread(target=forge.serve_forever)
        thread.start()
        site.deliveries.forge = GitHubForge(SECRET, "a token", f"http://127.0.0.1:{forge.server_port}")
        yield forge
        forge.shutdown()
        thread.join()


def test_a_status_is_delivered_after_the_engine_died_during_the_run(site: Site) -> None:
    class Fixed(FakeEngine):
        """An engine that is away at the first look and back at the second."""

        looks = 0

        def call(self, method: str, path: str, body: Any = None) -> Any:
            if path == "/pipeline/runs/7":
                self.looks += 1
                if self.looks == 1:
                    raise EngineNotRunningError("no engine runs here")
                self.run = {**self.run, "state": "interrupted", "reason": "the engine stopped during test"}
            return super().call(method, path, body)

    site.connect(engine := Fixed())
    engine.dies = True
    site.remote.commit("1")
    with forge_of(site) as forge:
        site.deliver("push", pushed(), watched=True)
    (status,) = forge.statuses
    assert status[2:] == ("failure", "run 7: interrupted: the engine stopped during test")
    assert site.deliveries.undelivered.all() == {}


def test_a_status_is_delivered_after_the_receiver_died_during_the_run(site: Site) -> None:
    going, ends = threading.Event(), threading.Event()

    class Long(FakeEngine):
        def stream(self, method: str, path: str, body: Any = None) -> Iterator[dict[str, Any]]:
            yield {"started": 7}
            going.set()
            ends.wait(120)

    site.connect(Long())
    site.engine.run = {**site.engine.run, "state": "succeeded"}
    site.remote.commit("1")

    async def killed() -> None:
        following = asyncio.create_task(site.deliveries._follow(BranchUpdate("team/shop", "refs/heads/dev", "dev")))
        await asyncio.to_thread(going.wait, 60)
        following.cancel()
        await asyncio.wait([following])

    async def started_again() -> None:
        application = replace(site.receiver, deliveries=later).application()
        async with application.router.lifespan_context(application):
            await asyncio.gather(*later.watchers)

    try:
        asyncio.run(killed())
        with forge_of(site) as forge:
            later = replace(site.deliveries, client=site.engine, watchers=set())  # type: ignore[arg-type]
            asyncio.run(started_again())
    finally:
        ends.set()
    assert forge.statuses == [("/repos/team/shop/statuses/c", "Bearer a token", "success", "run 7: succeeded")]


def test_a_delivered_commit_status_is_not_kept(site: Site) -> None:
    site.engine.next_state = "failed"
    site.remote.commit("1")
    with forge_of(site) as forge:
        site.deliver("push", pushed())
    assert [status[2] for status in forge.statuses] == ["failure"]
    assert site.deliveries.undelivered.all() == {}


@pytest.mark.parametrize(("refusals", "tries"), [([502, 429], 3), ([403], 1)])
def test_a_failed_delivery_of_a_status_is_retried_and_a_refused_one_is_not(
    site: Site, refusals: list[int], tries: int
) -> None:
    site.engine.next_state = "failed"
    site.remote.commit("1")
    with forge_of(site) as forge:
        forge.refusals += refusals
        site.deliver("push", pushed(), watched=True)
    assert [status[2] for status in forge.statuses] == ["failure"] * tries
    assert site.deliveries.undelivered.all() == {}


def test_a_status_is_set_while_a_run_waits_and_after_the_answer(site: Site) -> None:
    def answered() -> None:
        site.engine.run = {**site.engine.run, "state": "succeeded"}

    site.engine.next_state = "waiting_for_approval"
    theirs(site)
    with forge_of(site, answered) as forge:
        site.deliver("pull_request", pull(owner="stranger/shop"), watched=True)
    where = ("/repos/team/shop/statuses/c", "Bearer a token")
    assert forge.statuses == [
        (*where, "pending", "run 7: waiting for approval"),
        (*where, "success", "run 7: succeeded"),
    ]


def test_a_restarted_receiver_delivers_the_remaining_statuses(site: Site) -> None:
    site.engine.next_state = "waiting_for_approval"
    site.deliveries.look_s = 60.0
    theirs(site)
    site.deliver("pull_request", pull(owner="stranger/shop"))
    assert site.deliveries.undelivered.all() == {7: "team/shop"}
    site.engine.run = {**site.engine.run, "state": "rejected"}
    later = replace(site.deliveries, look_s=0.01, watchers=set())

    async def live() -> None:
        application = replace(site.receiver, deliveries=later).application()
        async with application.router.lifespan_context(application):
            for watcher in list(later.watchers):
                await watcher

    asyncio.run(live())
    assert site.said[-1] == "run 7 of prod: rejected"
    assert site.deliveries.undelivered.all() == {}


def test_a_commit_status_describes_the_run() -> None:
    run = {"run": 3, "stage": None, "state": "failed", "reason": "test: no"}
    assert to_plain(CommitStatus.of(run)) == {
        "state": "failure",
        "context": "hitless/tests",
        "description": "run 3: failed: test: no",
    }
    assert CommitStatus.of({**run, "state": "running", "reason": None}).state == "pending"
    shown = CommitStatus.of(
        {**run, "state": "succeeded", "reason": None, "preview": "http://fix.preview.localhost:8090"}
    )
    assert shown.target_url == "http://fix.preview.localhost:8090/"
    assert shown.description == "run 3: succeeded, preview at http://fix.preview.localhost:8090/"
