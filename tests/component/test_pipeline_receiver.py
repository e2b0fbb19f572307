"""GitHub's webhooks and approval links: only what is signed acts, and what comes twice acts once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hitless.api.receiver import Receiver
from hitless.errors import UsageError
from hitless.pipeline import links
from hitless.pipeline.github import Wanted, is_genuine, read_event, status_of
from hitless.pipeline.repository import Repository
from tests.component.pipeline_bench import PipelineBench

pytestmark = pytest.mark.component

SECRET = b"a secret that both sides know"
ASKED = "2026-11-24T06:00:00.000Z"


class FakeEngine:
    """The engine's API as the receiver asks it; keeps what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.refusals: list[str] = []
        self.run: dict[str, Any] = {
            "run": 7, "stage": "prod", "branch": "prod", "state": "waiting_for_approval", "reason": None, "commit": "c",
            "approval": {"asked_at": ASKED, "decision": None},
            "question": {"commits": [{"commit": "1a2b3c4d5e", "subject": "Count <zones>"}], "configuration": []},
        }  # fmt: skip

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.calls.append((path, body))
        return {"refusals": self.refusals} if path == "/pipeline/check" else self.run

    def stream(self, method: str, path: str, body: Any = None) -> Iterator[dict[str, Any]]:
        self.calls.append((path, body))
        self.run = {**self.run, "state": "running"}
        yield {"run": self.run}

    def asked(self, path: str) -> list[Any]:
        return [body for called, body in self.calls if called == path]


class Site:
    """A receiver before a real repository, with a real remote."""

    def __init__(self, folder: Path) -> None:
        self.remote = PipelineBench(folder)  # its clone is the team's repository at the forge
        self.engine = FakeEngine()
        self.repository = Repository(folder / "own.git")
        self.repository.create(["false"], head="dev")
        self.said: list[str] = []
        self.receiver = Receiver(
            client=self.engine,  # type: ignore[arg-type]
            repository=self.repository,
            folder=folder,
            remote=str(self.remote.clone),
            secret=SECRET,
            token=None,
            say=self.said.append,
        )

    def deliver(self, event: str, document: Any, *, secret: bytes = SECRET) -> int:
        """A webhook, and the end of what it began."""
        body = json.dumps(document).encode()
        signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
        headers = {"x-github-event": event, "x-hub-signature-256": signature}
        return self.ask("POST", "/github", content=body, headers=headers).status_code

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request, and the end of what it began."""

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self.receiver.application())
            async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
                answer = await client.request(method, path, **options)
            for task in list(self.receiver.tasks):
                await task
            return answer

        return asyncio.run(asked())

    def head(self, branch: str) -> str | None:
        file = self.repository.folder / "refs" / "heads" / branch
        return file.read_text().strip() if file.exists() else None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.remote.store.close()


def pushed(branch: str = "dev", **options: Any) -> dict[str, Any]:
    return {"ref": f"refs/heads/{branch}", "repository": {"full_name": "team/shop"}, **options}


def test_a_signed_push_is_fetched_and_starts_its_run_once(site: Site) -> None:
    commit = site.remote.commit("1")
    assert site.deliver("push", pushed()) == 202
    assert site.head("dev") == commit
    (body,) = site.engine.asked("/pipeline/push")
    assert body["updates"] == [["0" * 40, commit, "refs/heads/dev"]]
    assert site.deliver("push", pushed()) == 202
    assert len(site.engine.asked("/pipeline/push")) == 1, "the same delivery again moves nothing"


def test_what_is_not_signed_by_the_secret_is_refused_and_looks_at_nothing(site: Site) -> None:
    site.remote.commit("1")
    assert site.deliver("push", pushed(), secret=b"another") == 403
    assert site.head("dev") is None
    assert site.engine.calls == []


def test_a_refused_push_leaves_the_branch_where_it_is(site: Site) -> None:
    site.remote.commit("1")
    site.engine.refusals = ["it never was live in staging"]
    assert site.deliver("push", pushed()) == 202
    assert site.head("dev") is None
    assert site.engine.asked("/pipeline/push") == []
    assert site.said == ["refused: it never was live in staging"]


def test_a_deleted_branch_goes_here_too(site: Site) -> None:
    site.remote.commit("1")
    site.remote.git("branch", "feature")
    site.deliver("push", pushed("feature"))
    assert site.head("feature")
    site.deliver("push", pushed("feature", deleted=True))
    assert site.head("feature") is None


def pull(action: str = "opened", *, owner: str = "team/shop") -> bytes:
    head = {"repo": {"full_name": owner}}
    return json.dumps(
        {"action": action, "number": 5, "pull_request": {"head": head}, "repository": {"full_name": "team/shop"}}
    ).encode()


def test_a_pull_request_of_the_team_s_own_is_a_branch_and_a_stranger_s_is_not_run() -> None:
    wanted = Wanted("team/shop", "refs/pull/5/head", "pull/5")
    assert read_event("pull_request", pull()) == wanted
    assert read_event("pull_request", pull("closed")) == Wanted("team/shop", "refs/pull/5/head", "pull/5", closed=True)
    assert read_event("pull_request", pull("labeled")) is None
    assert read_event("pull_request", pull(owner="stranger/shop")) is None
    assert read_event("ping", b"{}") is None


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
def test_a_malformed_delivery_is_refused(document: Any) -> None:
    with pytest.raises(UsageError, match="is no push of GitHub's"):
        read_event("push", json.dumps(document).encode())


def test_an_empty_secret_signs_nothing() -> None:
    body = b"x"
    assert not is_genuine(b"", body, "sha256=" + hmac.new(b"", body, hashlib.sha256).hexdigest())
    assert not is_genuine(SECRET, body, None)


def test_a_commit_s_status_says_how_the_run_stands() -> None:
    run = {"run": 3, "stage": None, "state": "failed", "reason": "test: no"}
    assert status_of(run) == {"state": "failure", "description": "run 3: failed: test: no", "context": "hitless/tests"}
    assert status_of({**run, "state": "running", "reason": None})["state"] == "pending"


def token(site: Site, run: int = 7, asked: str = ASKED) -> str:
    return links.token_of(links.key_of(site.receiver.folder), run, asked)


def test_a_link_shows_the_question_and_takes_one_answer(site: Site) -> None:
    page = site.ask("GET", f"/approve/7?token={token(site)}")
    assert page.status_code == 200
    assert "Count &lt;zones&gt;" in page.text
    form = {"token": token(site), "verb": "approve", "by": "Bo", "why": "seen"}
    assert "approved" in site.ask("POST", "/approve/7", data=form).text
    assert site.engine.asked("/pipeline/runs/7/approve") == [{"by": "Bo (by link)", "why": "seen"}]
    assert site.ask("POST", "/approve/7", data=form).status_code == 403, "the question has its answer"
    assert len(site.engine.asked("/pipeline/runs/7/approve")) == 1


def test_a_link_is_good_for_its_own_question_alone(site: Site) -> None:
    for wrong in ("", "0" * 64, token(site, run=8), token(site, asked="2026-11-23T06:00:00.000Z")):
        assert site.ask("GET", "/approve/7", params={"token": wrong}).status_code == 403
        form = {"token": wrong, "verb": "approve", "by": "Bo"}
        assert site.ask("POST", "/approve/7", data=form).status_code == 403
    assert site.engine.asked("/pipeline/runs/7/approve") == []


def test_messages_carry_the_link_once_the_receiver_has_an_address(tmp_path: Path) -> None:
    assert links.link_of(tmp_path, 7, ASKED) is None
    links.publish(tmp_path, "https://ci.example.org/")
    link = links.link_of(tmp_path, 7, ASKED)
    assert link == f"https://ci.example.org/approve/7?token={links.token_of(links.key_of(tmp_path), 7, ASKED)}"
    assert (tmp_path / "link.key").stat().st_mode & 0o777 == 0o600
