"""A receiver with a real repository and remote, and an engine that records what it is asked."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from hitless.api.deliveries import Deliveries
from hitless.api.receiver import Receiver
from hitless.documents import to_plain
from hitless.errors import EngineError
from hitless.forge.github import GitHubForge
from hitless.forge.statuses import PostedComments, UndeliveredStatuses
from hitless.pipeline import approvals
from hitless.pipeline.repository import Repository
from tests.component.pipeline_bench import PipelineBench

SECRET = b"a secret that both sides know"
ASKED = "2026-11-24T06:00:00.000Z"


class FakeEngine:
    """The engine's API as the receiver calls it; records the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.services: set[str] = set()
        self.next_state = "running"
        self.dies = False
        """The stream is cut off during the run."""
        self.refusals: list[str] = []
        self.run: dict[str, Any] = {
            "run": 7, "stage": "prod", "branch": "prod", "state": "waiting_for_approval", "reason": None, "commit": "c",
            "release": None, "fork": None, "preview": None, "steps": [],
            "approval": {"asked_at": ASKED, "decision": None},
            "question": {"commits": [{"commit": "1a2b3c4d5e", "subject": "Count <zones>"}], "configuration": []},
        }  # fmt: skip

    def call(self, method: str, path: str, body: Any = None, service: str = "") -> Any:
        self.calls.append((path, to_plain(body)))
        self.services.add(service)
        return {"refusals": self.refusals} if path == "/pipeline/check" else self.run

    def stream(self, method: str, path: str, body: Any = None, service: str = "") -> Iterator[dict[str, Any]]:
        self.calls.append((path, to_plain(body)))
        self.services.add(service)
        self.run = {**self.run, "state": self.next_state}
        yield {"started": self.run["run"]}
        if self.dies:
            raise EngineError("the engine went away in mid-answer")
        yield {"run": self.run}

    def asked(self, path: str) -> list[Any]:
        return [body for called, body in self.calls if called == path]


def signed(event: str, document: Any, secret: bytes = SECRET) -> dict[str, Any]:
    """A webhook's body and headers, as httpx takes them."""
    body = json.dumps(document).encode()
    signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    return {"content": body, "headers": {"x-github-event": event, "x-hub-signature-256": signature}}


class Site:
    """A receiver with a real repository and remote."""

    def __init__(self, folder: Path) -> None:
        self.remote = PipelineBench(folder)  # its clone is the team's repository at the forge
        self.engine = FakeEngine()
        self.repository = Repository(folder / "own.git")
        self.repository.create(["false"], head="dev")
        self.said: list[str] = []
        self.deliveries = Deliveries(
            client=self.engine,  # type: ignore[arg-type]
            repository=self.repository,
            forge=GitHubForge(SECRET),
            remote=str(self.remote.clone),
            undelivered=UndeliveredStatuses(folder),
            comments=PostedComments(folder),
            say=self.said.append,
        )
        self.receiver = Receiver(self.deliveries.client, folder, self.deliveries.forge, self.deliveries)

    def connect(self, engine: FakeEngine) -> None:
        """Let the receiver ask another engine."""
        self.receiver.client = self.deliveries.client = engine  # type: ignore[assignment]

    def deliver(self, event: str, document: Any, *, secret: bytes = SECRET, watched: bool = False) -> int:
        """Send a webhook, and wait for its run."""
        return self.ask("POST", "/github", watched=watched, **signed(event, document, secret)).status_code

    def client(self) -> httpx.AsyncClient:
        """A client of the receiver."""
        transport = httpx.ASGITransport(self.receiver.application())
        return httpx.AsyncClient(transport=transport, base_url="http://receiver")

    def ask(self, method: str, path: str, *, watched: bool = False, **options: Any) -> httpx.Response:
        """Send one request and wait for the work it started; if `watched`, also for runs that wait for an approval."""

        async def asked() -> httpx.Response:
            async with self.client() as client:
                answer = await client.request(method, path, **options)
            for task in list(self.deliveries.tasks):
                await task
            for task in list(self.deliveries.watchers) if watched else ():
                await task
            return answer

        return asyncio.run(asked())

    def token(self, run: int = 7, asked: str = ASKED) -> str:
        """The token of an approval link."""
        return approvals.link_token(approvals.link_key(self.receiver.folder), run, asked)

    def branches(self) -> list[str]:
        """Every branch with its commit."""
        return sorted(
            f"{path} {path.read_text()}"
            for path in (self.repository.folder / "refs/heads").rglob("*")
            if path.is_file()
        )

    def head(self, branch: str) -> str | None:
        file = self.repository.folder / "refs" / "heads" / branch
        return file.read_text().strip() if file.exists() else None


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


def pull(action: str = "opened", *, owner: str | None = "team/shop", number: Any = 5, **head: Any) -> dict[str, Any]:
    repository = {"full_name": owner} if owner else None
    return {
        "action": action,
        "number": number,
        "pull_request": {"head": {"repo": repository, **head}, "base": {"ref": "dev"}},
        "repository": {"full_name": "team/shop"},
    }


def theirs(site: Site, code: str = "stranger's", number: int = 5) -> str:
    """A commit that the forge has as a fork's pull request."""
    commit = site.remote.commit(code)
    site.remote.git("update-ref", f"refs/pull/{number}/head", commit)
    return commit
