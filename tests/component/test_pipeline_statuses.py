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

from hitless.api.comments import comment_of
from hitless.documents import to_plain
from hitless.errors import EngineNotRunningError
from hitless.forge.forge import BranchUpdate
from hitless.forge.github import GitHubForge
from hitless.forge.statuses import CommitStatus
from hitless.pipeline.rehearsal.report import RehearsalReport
from tests.component.receiver_site import SECRET, FakeEngine, Site, pull, pushed, theirs

pytestmark = pytest.mark.component


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.remote.store.close()


class Forge(BaseHTTPRequestHandler):
    """Takes commit statuses, and calls `answered` for each. Takes comments too, which get the ids 1, 2, …"""

    server: ForgeServer

    def do_POST(self) -> None:
        status = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "/comments" in self.path:
            self.server.comments.append(
                (f"{self.command} {self.path.removeprefix('/repos/team/shop')}", status["body"])
            )
            self.send_response(self.server.comment_refusals.pop(0) if self.server.comment_refusals else 201)
            self.end_headers()
            self.wfile.write(b'{"id": %d, "body": ""}' % len(self.server.comments))
            return
        self.server.statuses.append((self.path, self.headers["authorization"], status["state"], status["description"]))
        self.server.answered()
        self.send_response(self.server.refusals.pop(0) if self.server.refusals else 201)
        self.end_headers()

    do_PATCH = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class ForgeServer(HTTPServer):
    def __init__(self, answered: Callable[[], None]) -> None:
        super().__init__(("127.0.0.1", 0), Forge)
        self.answered, self.statuses = answered, list[tuple[str, str, str, str]]()
        self.refusals: list[int] = []
        """HTTP statuses of the next responses."""
        self.comments: list[tuple[str, str]] = []
        """Verb and path, and the text."""
        self.comment_refusals: list[int] = []


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

        def call(self, method: str, path: str, body: Any = None, service: str = "") -> Any:
            if path == "/pipeline/runs/7":
                self.looks += 1
                if self.looks == 1:
                    raise EngineNotRunningError("no engine is running here")
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
        def stream(self, method: str, path: str, body: Any = None, service: str = "") -> Iterator[dict[str, Any]]:
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


def report(site: Site, times: int = 1, **run: Any) -> None:
    """Let runs of a release end, one after another."""
    site.engine.run = {**site.engine.run, **run}
    for _ in range(times):
        assert site.deliveries._report("team/shop", site.engine.run)


def test_a_later_run_updates_the_report_on_the_commit(site: Site) -> None:
    step = {"name": "verify", "state": "failed", "duration_s": 1.25, "detail": {"reason": "no"}}
    with forge_of(site) as forge:
        report(site, state="failed", reason="verify: <b> @team | no", steps=[step])
        report(site, state="succeeded", reason=None, steps=[])
        report(site, state="succeeded", reason=None, stage="staging")
        report(site, state="waiting_for_approval")
        report(site, state="succeeded", fork={"number": 5})
    (first, text), (second, later), (other, _) = forge.comments
    assert (first, second, other) == ("POST /commits/c/comments", "PATCH /comments/1", "POST /commits/c/comments")
    assert "❌ run 7 of prod: failed" in text
    assert "verify: \\<b\\> \\@team \\| no" in text, "the text of a service is no markup, and calls nobody"
    assert "| verify | failed | 1.2 s |" in text
    assert later.startswith("### ✅ run 7 of prod: succeeded")


def test_a_pull_request_gets_the_report_and_a_deleted_one_is_written_again(site: Site) -> None:
    with forge_of(site) as forge:
        shown = "http://fix.preview.localhost:8090"
        report(site, state="succeeded", stage=None, branch="pull/5", preview=shown)
        forge.comment_refusals.append(404)
        report(site)
        report(site, branch="feature")
    assert [where for where, _ in forge.comments] == [
        "POST /issues/5/comments",
        "PATCH /issues/comments/1",
        "POST /issues/5/comments",
    ]
    assert f"Preview: {shown}/" in forge.comments[0][1]


def test_a_token_without_the_right_to_comment_gives_one_warning(site: Site) -> None:
    """docs.github.com/rest/using-the-rest-api/troubleshooting-the-rest-api: "If you are using a fine-grained personal
    access token and the error message is "Resource not accessible by personal access token", then your token does not
    have sufficient permissions", with the status 403.
    """
    with forge_of(site) as forge:
        forge.comment_refusals += [403, 403]
        report(site, times=3, state="succeeded")
    assert len(forge.comments) == 1
    assert [status[2] for status in forge.statuses] == ["success"] * 3
    assert len(site.said) == 2
    assert "no more comments" in site.said[1]


def test_a_report_that_the_forge_could_not_take_is_tried_again(site: Site) -> None:
    with forge_of(site) as forge:
        forge.comment_refusals.append(502)
        site.engine.run = {**site.engine.run, "state": "succeeded"}
        assert not site.deliveries._report("team/shop", site.engine.run)
        report(site)
    assert [where for where, _ in forge.comments] == ["POST /commits/c/comments"] * 2


def test_a_report_has_the_rehearsal_and_the_receipt(site: Site) -> None:
    found = RehearsalReport(stage="prod", may_ship=False, undecided=("too few",), sentence="undecided: too few")
    step = {"name": "rehearse", "state": "failed", "duration_s": 3.0, "detail": {**to_plain(found), "reason": "x"}}
    release = {"release": 4, "stage": "prod", "rollouts": []}
    text = comment_of({**site.engine.run, "state": "failed", "steps": [step]}, release)
    assert "## ❓ prod: undecided: too few" in text
    assert "## release 4 was never shipped" in text
