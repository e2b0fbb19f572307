"""The receiver takes a forge's webhooks and approval links, in a process of its own beside the engine.

It alone may be reached from outside: plain HTTP behind a proxy that ends TLS. It holds no state of the engine's; it
calls the engine's API as the command line does.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from hitless.api.client import EngineClient
from hitless.api.deliveries import Deliveries
from hitless.api.requests import RunRequest
from hitless.errors import HitlessError, UsageError
from hitless.forge.forge import Forge
from hitless.pipeline.approvals import is_valid_token, link_key

MAX_FORM_BYTES = 8192
MOST_HELD_BYTES = 64 * 1024 * 1024
"""For all bodies that are being read and not yet verified."""


@dataclass(slots=True)
class Receiver:
    """`folder` is the pipeline's; it has the key of approval links."""

    client: EngineClient
    folder: Path
    forge: Forge
    deliveries: Deliveries
    bodies: dict[asyncio.Timeout, bytearray] = field(default_factory=dict)
    """Bodies being read, by their deadlines."""
    body_s: float = 30.0
    """How long a body may take."""

    def application(self) -> Starlette:
        return Starlette(
            lifespan=self._lifespan,
            routes=[
                Route(f"/{self.forge.name}", self.webhook, methods=["POST"]),
                Route("/approve/{run:int}", self.ask, methods=["GET"]),
                Route("/approve/{run:int}", self.answer, methods=["POST"]),
            ],
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.deliveries.resume()
        yield

    async def webhook(self, request: Request) -> Response:
        """Responds at once, because GitHub waits 10 s at most; the run goes on in the background."""
        body = await self._body(request, self.forge.max_body_bytes)
        if body is None:
            return JSONResponse({"error": "too large, too slow, or too many at once"}, 413)
        if not self.forge.verify(request.headers, body):
            return JSONResponse({"error": "invalid webhook signature"}, 403)
        try:
            update = self.forge.read(request.headers, body)
        except UsageError as error:
            return JSONResponse({"error": error.message}, 400)
        if update is None:
            return JSONResponse({"ignored": True}, 202)
        self.deliveries.begin(update)
        return JSONResponse({"branch": update.branch}, 202)

    async def ask(self, request: Request) -> Response:
        """The page with the question and two buttons."""
        run, token = request.path_params["run"], request.query_params.get("token", "")
        document = await self._waiting(run, token)
        if document is None:
            return _page("This link is not valid, or no longer valid.", 403)
        return _page(_question(document, token))

    async def answer(self, request: Request) -> Response:
        body = await self._body(request, MAX_FORM_BYTES)
        form = {key: values[0] for key, values in parse_qs((body or b"").decode("utf-8", "replace")).items()}
        run, verb = request.path_params["run"], form.get("verb", "")
        if verb not in ("approve", "reject") or await self._waiting(run, form.get("token", "")) is None:
            return _page("This link is not valid, or no longer valid.", 403)
        name = "".join(c for c in form.get("by", "")[:100] if c.isprintable()).strip()
        if not name:
            return _page("Enter your name.", 400)
        order = RunRequest(f"{name} (by link)", form.get("why", "")[:500] or None)
        try:
            answer = self.client.stream("POST", f"/pipeline/runs/{run}/{verb}", order)
            await asyncio.to_thread(next, answer, None)  # until the engine has accepted it, not until the run ends
        except HitlessError as error:
            return _page(html.escape(error.message), 409)
        return _page(f"Run {run}: {verb}d. Thank you.")

    async def _body(self, request: Request, limit: int) -> bytes | None:
        """The request's body; None beyond the limits of size and time. If all bodies together exceed their limit, the
        largest one is dropped.
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
        """The run, if it still waits for approval and the token is valid."""
        try:
            document: dict[str, Any] = await asyncio.to_thread(self.client.call, "GET", f"/pipeline/runs/{run}")
        except HitlessError:
            return None
        approval = document["approval"]
        if document["state"] != "waiting_for_approval" or approval is None or approval["decision"]:
            return None
        return document if is_valid_token(link_key(self.folder), run, approval["asked_at"], token) else None


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
