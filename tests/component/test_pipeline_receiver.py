"""GitHub's webhooks: only signed ones are handled, and a repeated one only once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from hitless.api.requests import PushRequest
from hitless.errors import EngineNotRunningError, UsageError
from hitless.forge.forge import BranchUpdate, ForkPullRequest
from hitless.forge.github import GitHubForge
from hitless.forge.statuses import CommitStatus
from hitless.pipeline.repository import Repository
from tests.component.receiver_site import SECRET, FakeEngine, Site, pull, pushed, signed, theirs

pytestmark = pytest.mark.component

MIB = 1 << 20
GITHUB = GitHubForge(SECRET)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.remote.store.close()


class Watched(Repository):
    """Records which branches are looked at and moved."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.diary: list[str] = []

    async def head_of(self, branch: str) -> str | None:
        self.diary.append(f"looked at {branch}")
        return await super().head_of(branch)

    async def move(self, branch: str, new: str | None, old: str | None) -> None:
        await super().move(branch, new, old)
        self.diary.append(f"moved {branch}")


def read_event(event: str, body: bytes) -> BranchUpdate | None:
    return GITHUB.read({"x-github-event": event}, body)


def test_webhooks_are_handled_one_at_a_time(site: Site) -> None:
    """Both are fetched to the same ref, where one could find the other's commit."""
    dev = site.remote.commit("1")
    site.remote.git("switch", "-q", "-c", "feature")
    feature = site.remote.commit("2")
    watched = site.deliveries.repository = Watched(site.repository.folder)

    async def story() -> None:
        async with site.client() as client:
            await asyncio.gather(*(client.post("/github", **signed("push", pushed(one))) for one in ("dev", "feature")))
        await asyncio.gather(*site.deliveries.tasks)

    asyncio.run(story())
    assert (site.head("dev"), site.head("feature")) == (dev, feature)
    assert sorted(watched.diary[:2]) in (["looked at dev", "moved dev"], ["looked at feature", "moved feature"])
    assert len(watched.diary) == 4


def test_a_too_large_webhook_is_refused_before_it_was_read_completely(site: Site) -> None:
    sent: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while len(sent) < 2 * GITHUB.max_body_bytes // MIB:
            sent.append(MIB)
            yield b"x" * MIB

    assert site.ask("POST", "/github", content=endless()).status_code == 413
    assert sum(sent) <= GITHUB.max_body_bytes + 2 * MIB


def test_a_webhook_without_a_valid_signature_is_refused(site: Site) -> None:
    site.remote.commit("1")
    assert site.deliver("push", pushed(), secret=b"another") == 403
    assert site.head("dev") is None
    assert site.engine.calls == []


def test_a_refused_push_does_not_move_the_branch(site: Site) -> None:
    site.remote.commit("1")
    site.engine.refusals = ["it was never live in staging"]
    assert site.deliver("push", pushed()) == 202
    assert site.head("dev") is None
    assert site.engine.asked("/pipeline/push") == []
    assert site.said == ["refused: it was never live in staging"]


def test_a_receiver_of_one_of_several_services_names_it(site: Site) -> None:
    site.remote.commit("1")
    site.deliveries.service = "users"
    assert site.deliver("push", pushed()) == 202
    assert site.engine.services == {"users"}
    run = {"run": 7, "stage": None, "state": "succeeded", "reason": None}
    contexts = [CommitStatus.of(run | more).context for more in ({}, {"service": "users"}, {"stage": "users_dev"})]
    assert contexts == ["hitless/tests", "hitless/users_tests", "hitless/users_dev"]


def test_a_branch_deleted_at_the_forge_is_deleted_here(site: Site) -> None:
    site.remote.commit("1")
    site.remote.git("branch", "feature")
    site.deliver("push", pushed("feature"))
    assert site.head("feature")
    site.deliver("push", pushed("feature", deleted=True))
    assert site.head("feature") is None


def read_pull(*words: Any, **options: Any) -> BranchUpdate | None:
    return read_event("pull_request", json.dumps(pull(*words, **options)).encode())


def test_pull_requests_are_divided_into_branches_of_the_repository_and_forks() -> None:
    update = BranchUpdate("team/shop", "refs/pull/5/head", "pull/5")
    assert read_pull() == update
    assert read_pull(ref="feature") == replace(update, head="feature")
    assert read_pull("closed") == replace(update, closed=True)
    assert read_pull("labeled") is None
    fork = replace(update, fork=ForkPullRequest(5, "stranger/shop", "dev"))
    assert read_pull(owner="stranger/shop", ref="dev") == fork
    assert read_pull("closed", owner="stranger/shop") == replace(fork, closed=True)
    assert read_pull(owner=None) == replace(update, fork=ForkPullRequest(5, None, "dev"))
    for alike in ("Team/shop", "team/Shop", "team/shop.git"):
        found = read_pull(owner=alike)
        assert found
        assert found.fork, alike
    assert read_event("ping", b"{}") is None


@pytest.mark.parametrize("number", ["5", "../x", "7/head:refs/heads/prod", 0, -1, True, 5.0, None, 10**10])
def test_a_pull_request_with_an_invalid_number_is_refused(number: Any) -> None:
    with pytest.raises(UsageError, match="is not a pull_request of GitHub"):
        read_pull(owner="stranger/shop", number=number)


@pytest.mark.parametrize("owner", ["../x", "a/b/c", "a b/c", "", "a/b\n"])
def test_a_fork_with_an_invalid_repository_name_is_refused(owner: str) -> None:
    with pytest.raises(UsageError):
        read_event("pull_request", json.dumps(pull(owner=owner) if owner else pull(owner="/")).encode())


def test_a_forks_commit_is_kept_outside_the_branches_and_reported_once(site: Site) -> None:
    commit = theirs(site)
    assert site.deliver("pull_request", pull(owner="stranger/shop", ref="dev")) == 202
    (body,) = site.engine.asked("/pipeline/forks")
    assert body["fork"] == {"number": 5, "origin": "stranger/shop", "base": "dev"}
    assert body["commit"] == commit
    assert site.branches() == []
    assert site.engine.asked("/pipeline/push") == []
    site.deliver("pull_request", pull("synchronize", owner="stranger/shop", ref="dev"))
    assert len(site.engine.asked("/pipeline/forks")) == 1, "the same commit again asks nothing"
    newer = theirs(site, "and more")
    site.deliver("pull_request", pull("synchronize", owner="stranger/shop", ref="dev"))
    assert site.engine.asked("/pipeline/forks")[-1]["commit"] == newer


def test_a_repeated_webhook_is_sent_to_the_engine_if_none_ran_before(site: Site) -> None:
    class Away(FakeEngine):
        def stream(self, method: str, path: str, body: Any = None, service: str = "") -> Iterator[dict[str, Any]]:
            raise EngineNotRunningError("no engine is running here")

    theirs(site)
    site.connect(Away())
    site.deliver("pull_request", pull(owner="stranger/shop", ref="dev"))
    site.connect(site.engine)
    site.deliver("pull_request", pull(owner="stranger/shop", ref="dev"))
    assert len(site.engine.asked("/pipeline/forks")) == 1


def test_an_approval_link_is_served_while_many_runs_are_followed(site: Site) -> None:
    ends = threading.Event()

    class Busy(FakeEngine):
        def stream(self, method: str, path: str, body: Any = None, service: str = "") -> Iterator[dict[str, Any]]:
            ends.wait(120)
            yield from ()

    site.connect(Busy())

    async def story() -> int:
        update = BranchUpdate("team/shop", "refs/heads/dev", "dev")
        followed = [
            asyncio.create_task(site.deliveries._run(update, "/pipeline/push", PushRequest([]))) for _ in range(40)
        ]
        await asyncio.sleep(0)
        transport = httpx.ASGITransport(site.receiver.application())
        try:
            async with (
                asyncio.timeout(60),
                httpx.AsyncClient(transport=transport, base_url="http://receiver") as client,
            ):
                return (await client.get(f"/approve/7?token={site.token()}")).status_code
        finally:
            ends.set()
            await asyncio.gather(*followed)

    assert asyncio.run(story()) == 200


def test_unverified_webhook_bodies_share_one_memory_limit(site: Site) -> None:
    site.receiver.body_s = 600.0

    async def story() -> list[int]:
        statuses: list[int] = []
        full = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                full.set()

        async def ask() -> None:
            chunks = iter([b"x" * (20 << 20)])

            async def receive() -> dict[str, Any]:
                chunk = next(chunks, None)
                if chunk is None:
                    await full.wait()
                return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

            scope = {"type": "http", "method": "POST", "path": "/github", "headers": [], "query_string": b""}
            await site.receiver.application()(scope, receive, send)

        async with asyncio.timeout(60):
            await asyncio.gather(*(ask() for _ in range(4)))
        return statuses

    assert sorted(asyncio.run(story())) == [403, 403, 403, 413]
    assert site.receiver.bodies == {}


def test_a_forks_branch_name_is_never_used(site: Site) -> None:
    site.remote.commit("1")
    site.deliver("push", pushed())
    before = site.branches()
    theirs(site)
    for name in ("dev", "pull/5", "../../config", "--upload-pack=x", "a b", "prod"):
        site.deliver("pull_request", pull("synchronize", owner="stranger/shop", ref=name))
        site.deliver("pull_request", pull("closed", owner="stranger/shop", ref=name))
        assert site.branches() == before, name
        assert site.engine.asked("/pipeline/previews/close") == [], name


def test_a_closed_fork_is_forgotten_and_can_be_reopened(site: Site) -> None:
    theirs(site)
    site.deliver("pull_request", pull(owner="stranger/shop"))
    site.deliver("pull_request", pull("closed", owner="stranger/shop"))
    assert ("/pipeline/forks/5/close", {}) in site.engine.calls
    assert not list((site.repository.folder / "refs" / "forks").glob("*"))
    site.deliver("pull_request", pull("reopened", owner="stranger/shop"))
    assert len(site.engine.asked("/pipeline/forks")) == 2


def test_a_pull_request_of_a_known_branch_has_no_second_preview(site: Site) -> None:
    site.remote.git("switch", "-q", "-c", "feature")
    site.remote.git("update-ref", "refs/pull/5/head", site.remote.commit("1"))
    site.deliver("pull_request", pull(ref="feature"))
    assert site.engine.asked("/pipeline/push")[-1]["options"] == [], "only the pull request has come yet"
    site.deliver("push", pushed("feature"))
    site.remote.git("update-ref", "refs/pull/5/head", site.remote.commit("2"))
    site.deliver("pull_request", pull("synchronize", ref="feature"))
    assert site.engine.asked("/pipeline/push")[-1]["options"] == ["no-preview"]
    site.deliver("pull_request", pull("closed", ref="feature"))
    assert site.engine.asked("/pipeline/previews/close") == [{"branch": "feature", "why": "pull request 5 was closed"}]
    assert site.head("pull/5") is None
    assert site.engine.asked("/pipeline/push")[-1]["updates"][0][1] == "0" * 40
    assert site.head("feature"), "the branch itself is not the pull request's"


@pytest.mark.parametrize(
    "document",
    [
        {"ref": "refs/heads/--upload-pack=x", "repository": {"full_name": "team/shop"}},
        {"ref": "refs/heads/a..b", "repository": {"full_name": "team/shop"}},
        {"ref": "refs/heads/dev", "repository": {"full_name": "../x/y"}},
        {"repository": {"full_name": "team/shop"}},
        [],
    ],
)
def test_a_malformed_webhook_is_refused(document: Any) -> None:
    with pytest.raises(UsageError, match="is not a push of GitHub"):
        read_event("push", json.dumps(document).encode())


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"ref": "\xff"}', b'{"commits": ' + b"[" * 100_000])
def test_a_webhook_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(UsageError, match="is not a push of GitHub"):
        read_event("push", body)


def test_an_empty_webhook_secret_verifies_nothing() -> None:
    body = b"x"
    forged = "sha256=" + hmac.new(b"", body, hashlib.sha256).hexdigest()
    assert not GitHubForge(b"").verify({"x-hub-signature-256": forged}, body)
    assert not GITHUB.verify({}, body)
