"""The receiver takes a forge's webhooks and approval links, in a process of its own beside the engine.

It alone may be reached from outside: plain HTTP behind a proxy that ends TLS. It holds no state of the engine's; it
calls the engine's API as the command line does.
"""

from __future__ import annotations

import asyncio
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
from hitless.pages.page import environment_of
from hitless.pipeline.approvals import is_valid_token, link_key

MAX_FORM_BYTES = 8192
MOST_HELD_BYTES = 64 * 1024 * 1024
"""Limit for all bodies together that are being read and not yet verified."""


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
        """Responds at once, because GitHub waits 10 s at most; the run continues in the background."""
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
        asked = document.get("question") or {}
        purpose = "test the code of a stranger" if asked.get("fork") else f"ship to {document['stage']}"
        return _page(f"Run {run}: {purpose}?", asked=asked, token=token)

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
            return _page(error.message, 409)
        return _page(f"Run {run}: {verb}d. Thank you.")

    async def _body(self, request: Request, limit: int) -> bytes | None:
        """The request's body; None beyond the size or time limit. Above the common limit, the largest is dropped."""
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


def _page(headline: str, status: int = 200, **question: Any) -> Response:
    """A page that says something, or that asks a question about `asked`."""
    shown = {"headline": headline, "said": not question, **question}
    text = environment_of("hitless.api").get_template("approval.html").render(shown)
    policy = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"}
    return HTMLResponse(text, status, {**policy, "referrer-policy": "no-referrer", "cache-control": "no-store"})
