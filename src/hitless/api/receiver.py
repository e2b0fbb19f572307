"""What may be reached from outside, in a process of its own beside the engine: GitHub's webhooks, and approval links.

Plain HTTP for a proxy that ends TLS. It holds no state of the engine's: it asks the engine's API as the command does.
"""

from __future__ import annotations

import asyncio
import html
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from hitless.api.client import EngineClient
from hitless.api.owed import Owed
from hitless.errors import HitlessError, UsageError
from hitless.pipeline import links
from hitless.pipeline.github import MAX_BODY_BYTES, Wanted, is_genuine, read_event, status_of
from hitless.pipeline.repository import Repository

MAX_FORM_BYTES = 8192
MOST_HELD_BYTES = 64 * 1024 * 1024
"""Of all bodies that are being read, whose senders are not known yet."""
NOTHING = "0" * 40
ACTOR = "github webhook"
LOOKS_BETWEEN_TRIES = 12
"""At a forge that does not take a status."""
UNENDED = ("queued", "running", "waiting_for_approval")


Asked = tuple[str, dict[str, Any]]
"""A path of the engine's API, and what it is sent."""


@dataclass(slots=True)
class Receiver:
    """`remote` is the git URL to fetch from; `token` lets it set commits' statuses at `github_api`."""

    client: EngineClient
    repository: Repository
    folder: Path
    remote: str
    secret: bytes
    token: str | None
    say: Callable[[str], None]
    github_api: str = "https://api.github.com"
    look_s: float = 5.0
    """How often a run is looked at that waits for a person."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    watchers: set[asyncio.Task[None]] = field(default_factory=set)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    bodies: dict[asyncio.Timeout, bytearray] = field(default_factory=dict)
    """What is being read, by its deadline."""
    body_s: float = 30.0
    """How long a body may take."""

    def application(self) -> Starlette:
        return Starlette(
            lifespan=self._lifespan,
            routes=[
                Route("/github", self.github, methods=["POST"]),
                Route("/approve/{run:int}", self.ask, methods=["GET"]),
                Route("/approve/{run:int}", self.answer, methods=["POST"]),
            ],
        )

    async def github(self, request: Request) -> Response:
        """Answers at once, as GitHub waits 10 s at most; the run goes on behind it."""
        body = await self._body(request, MAX_BODY_BYTES)
        if body is None:
            return JSONResponse({"error": "too large, too slow, or too many at once"}, 413)
        if not is_genuine(self.secret, body, request.headers.get("x-hub-signature-256")):
            return JSONResponse({"error": "not signed by the secret that both sides know"}, 403)
        try:
            wanted = read_event(request.headers.get("x-github-event", ""), body)
        except UsageError as error:
            return JSONResponse({"error": error.message}, 400)
        if wanted is None:
            return JSONResponse({"ignored": True}, 202)
        task = asyncio.create_task(self._follow(wanted))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return JSONResponse({"branch": wanted.branch}, 202)

    async def _follow(self, wanted: Wanted) -> None:
        asked: Asked | None = None
        try:
            async with self.turn:  # a branch is fetched, judged and moved without another in between
                asked = await (self._take_fork(wanted) if wanted.stranger else self._take(wanted))
            if asked is not None:
                await self._run(wanted, *asked)
        except HitlessError as error:
            self.say(f"{wanted.branch}: {error.message}")
            if asked is not None and wanted.stranger:  # a delivery that is sent again asks again
                with suppress(HitlessError):
                    await self.repository.keep_fork(wanted.stranger.number, None)

    async def _take(self, wanted: Wanted) -> Asked | None:
        """Move the branch here to what the remote holds now; what to ask of the engine, None where nothing moves."""
        old = await self.repository.head_of(wanted.branch)
        ref = f"refs/heads/{wanted.branch}"
        new = None if wanted.closed else await self.repository.fetch(self.remote, wanted.ref)
        if wanted.closed and wanted.head:
            why = f"pull request {wanted.branch.removeprefix('pull/')} was closed"
            await self._ask("/pipeline/previews/close", {"branch": wanted.head, "why": why})
        if new == old:
            return None
        # A pull request's own branch shows its code already, where it is here.
        shown = wanted.head is not None and await self.repository.head_of(wanted.head) is not None
        options = ["no-preview"] if shown else []
        body = {"updates": [[old or NOTHING, new or NOTHING, ref]], "options": options, "actor": ACTOR}
        refusals = (await self._ask("/pipeline/check", body))["refusals"]
        for sentence in refusals:
            self.say(f"refused: {sentence}")
        if refusals:
            return None
        await self.repository.move(wanted.branch, new, old)
        return "/pipeline/push", body

    async def _take_fork(self, wanted: Wanted) -> Asked | None:
        """Keep the stranger's commit beside the branches, and have a maintainer asked about it."""
        stranger = wanted.stranger
        assert stranger is not None
        old = await self.repository.fork_head(stranger.number)
        if wanted.closed:
            await self._ask(f"/pipeline/forks/{stranger.number}/close", {})
            if old is not None:
                await self.repository.keep_fork(stranger.number, None)
            return None
        new = await self.repository.fetch(self.remote, wanted.ref)
        if new == old:
            return None
        await self.repository.keep_fork(stranger.number, new)
        return "/pipeline/forks", {"fork": asdict(stranger), "commit": new, "actor": ACTOR}

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await asyncio.to_thread(self.client.call, "POST", path, body)
        return answer

    async def _run(self, wanted: Wanted, path: str, body: dict[str, Any]) -> None:
        loop, owed, left = asyncio.get_running_loop(), Owed(self.folder), set[int]()

        def owe(run: int) -> None:
            """From its start on: whichever of receiver and engine dies meanwhile, the commit gets its status."""
            left.add(run)
            owed.add(run, wanted.repository)

        def follow() -> list[dict[str, Any]]:
            return self._runs_of(path, body, lambda run: loop.call_soon_threadsafe(owe, run))

        thread = ThreadPoolExecutor(1)  # as long as the run lasts: the few of asyncio are for who asks meanwhile
        following = loop.run_in_executor(thread, follow)
        thread.shutdown(wait=False)
        try:
            for run in await following:
                self.say(f"run {run['run']} of {run['branch']}: {run['state']}")
                told = await asyncio.to_thread(self._set_status, wanted.repository, run)
                if told and run["state"] not in UNENDED:
                    left.discard(run["run"])
                    owed.done(run["run"])
        except HitlessError as error:
            if not left:
                raise
            self.say(f"{wanted.branch}: {error.message}")  # the engine's next start says what became of them
        for number in left:
            self._begin_to_watch(wanted.repository, number)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """What an earlier receiver had still to tell is told by this one."""
        for run, repository in Owed(self.folder).all().items():
            self._begin_to_watch(repository, run)
        yield

    def _begin_to_watch(self, repository: str, run: int) -> None:
        watcher = asyncio.create_task(self._watch(repository, run))
        self.watchers.add(watcher)
        watcher.add_done_callback(self.watchers.discard)

    def _runs_of(self, path: str, body: dict[str, Any], began: Callable[[int], object]) -> list[dict[str, Any]]:
        """Each run as it ended, or as it waits; `began` is told its number before."""
        runs = []
        for line in self.client.stream("POST", path, body):
            if "started" in line:
                began(int(line["started"]))
            if "run" in line:
                runs.append(line["run"])
        return runs

    async def _watch(self, repository: str, number: int) -> None:
        """The commit's status says how it ended, whenever a person has answered or the engine is back."""
        while True:
            await asyncio.sleep(self.look_s)
            try:
                run = await asyncio.to_thread(self.client.call, "GET", f"/pipeline/runs/{number}")
            except HitlessError as error:
                if error.code == UsageError.code:
                    break  # it is so old that the engine has forgotten it
                continue  # the engine is away for a while
            if run["state"] not in UNENDED:
                self.say(f"run {number} of {run['branch']}: {run['state']}")
                if await asyncio.to_thread(self._set_status, repository, run):
                    break
                await asyncio.sleep(self.look_s * LOOKS_BETWEEN_TRIES)
        Owed(self.folder).done(number)

    def _set_status(self, repository: str, run: dict[str, Any]) -> bool:
        """False where it is worth another try: nobody answered, or not now."""
        if self.token is None:
            return True
        url = f"{self.github_api}/repos/{repository}/statuses/{run['commit']}"
        headers = {"authorization": f"Bearer {self.token}", "accept": "application/vnd.github+json"}
        request = urllib.request.Request(url, json.dumps(status_of(run)).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read(1024)
        except (OSError, http.client.HTTPException) as error:
            self.say(f"run {run['run']}: the commit's status could not be set: {error}")
            return isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code != 429
        return True

    async def ask(self, request: Request) -> Response:
        """What is to be approved, and two buttons."""
        run, token = request.path_params["run"], request.query_params.get("token", "")
        document = await self._waiting(run, token)
        if document is None:
            return _page("This link is not, or no longer, valid.", 403)
        return _page(_question(document, token))

    async def answer(self, request: Request) -> Response:
        body = await self._body(request, MAX_FORM_BYTES)
        form = {key: values[0] for key, values in parse_qs((body or b"").decode("utf-8", "replace")).items()}
        run, verb = request.path_params["run"], form.get("verb", "")
        if verb not in ("approve", "reject") or await self._waiting(run, form.get("token", "")) is None:
            return _page("This link is not, or no longer, valid.", 403)
        name = "".join(c for c in form.get("by", "")[:100] if c.isprintable()).strip()
        if not name:
            return _page("Say who you are.", 400)
        body_out = {"by": f"{name} (by link)", "why": form.get("why", "")[:500] or None}
        try:
            answer = self.client.stream("POST", f"/pipeline/runs/{run}/{verb}", body_out)
            await asyncio.to_thread(next, answer, None)  # only until the engine has taken it: the run itself may last
        except HitlessError as error:
            return _page(html.escape(error.message), 409)
        return _page(f"Run {run}: {verb}d. Thank you.")

    async def _body(self, request: Request, limit: int) -> bytes | None:
        """What was sent, before anybody knows by whom; None beyond the limits of size and time, and for the largest of
        all that are read at once where they are too much for memory.
        """
        deadline, body = asyncio.timeout(self.body_s), bytearray()
        try:
            async with deadline:
                async for chunk in request.stream():
                    self.bodies[deadline] = body
                    body += chunk
                    if len(body) > limit:
                        return None
                    while sum(map(len, self.bodies.values())) > MOST_HELD_BYTES:
                        largest = max(self.bodies, key=lambda one: len(self.bodies[one]))
                        self.bodies.pop(largest).clear()
                        largest.reschedule(asyncio.get_running_loop().time())
            return bytes(body)
        except TimeoutError:
            return None
        finally:
            self.bodies.pop(deadline, None)

    async def _waiting(self, run: int, token: str) -> dict[str, Any] | None:
        """The run, if it waits for the answer to just this question."""
        try:
            document: dict[str, Any] = await asyncio.to_thread(self.client.call, "GET", f"/pipeline/runs/{run}")
        except HitlessError:
            return None
        approval = document["approval"]
        if document["state"] != "waiting_for_approval" or approval is None or approval["decision"]:
            return None
        return document if links.is_valid(links.key_of(self.folder), run, approval["asked_at"], token) else None


def _question(run: dict[str, Any], token: str) -> str:
    asked = run.get("question") or {}
    subjects = (f"{one['commit'][:8]} {one['subject']}" for one in asked.get("commits", ()))
    commits = "".join(f"<li>{html.escape(subject)}" for subject in subjects)
    about = _of_fork(asked) if asked.get("fork") else _of_stage(run, asked)
    return (
        f"{about}<h2>Commits</h2><ul>{commits}</ul>"
        f"<form method=post><input type=hidden name=token value='{html.escape(token)}'>"
        "<p><label>Who <input name=by required maxlength=100></label> <label>Why <input name=why maxlength=500></label>"
        "<p><button name=verb value=approve>Approve</button> <button name=verb value=reject>Reject</button></form>"
    )


def _of_stage(run: dict[str, Any], asked: dict[str, Any]) -> str:
    changed = "".join(f"<li>{html.escape(line)}" for line in asked.get("configuration", ()))
    weaker = f"<p><strong>{html.escape(asked['protection'])}</strong></p>" if asked.get("protection") else ""
    rehearsed = html.escape((asked.get("rehearsal") or {}).get("sentence", "not rehearsed"))
    return (
        f"<h1>Run {run['run']}: ship to {html.escape(str(run['stage']))}?</h1>{weaker}"
        f"<h2>Configuration</h2><ul>{changed or '<li>unchanged'}</ul><h2>Rehearsal</h2><p>{rehearsed}</p>"
    )


def _of_fork(asked: dict[str, Any]) -> str:
    fork, files = asked["fork"], asked.get("files")
    named = "".join(f"<li>{html.escape(name)}" for name in files or ())
    return (
        f"<h1>Run {asked['run']}: test the code of a stranger?</h1><p>Pull request {int(fork['number'])} of "
        f"{html.escape(str(fork['origin']))} at {html.escape(str(asked['commit']))}. Its buildspec and tests will run "
        "on the engine's machine, without parameters, at its network. Read them first.</p>"
        f"<h2>Changed files</h2><ul>{named or '<li>not known'}</ul>"
    )


def _page(body: str, status: int = 200) -> Response:
    text = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>hitless</title><style>body{font:16px/1.5 system-ui;max-width:40rem;margin:2rem auto;padding:0 1rem}"
        f"</style>{body}"
    )
    policy = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"}
    return HTMLResponse(text, status, {**policy, "referrer-policy": "no-referrer", "cache-control": "no-store"})
