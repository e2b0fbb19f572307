"""The dashboard's pages, their live updates, and the forms that act on the engine.

Each page is rendered on the server. Its `live` block is rendered again every second for browsers that follow the page,
and sent as a server-sent event if it has changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import hitless.dashboard.views as views
from hitless.api.requests import RollbackRequest, RunRequest
from hitless.clock import Clock
from hitless.dashboard.door import NO_SESSION, USED_LINK, WRONG_ORIGIN, Door, Session, has_form_key
from hitless.dashboard.pages import Pages
from hitless.dashboard.sources import EngineApi
from hitless.errors import HitlessError, UsageError
from hitless.pages.page import environment_of
from hitless.pipeline.orders import Promotion
from hitless.receipts import words
from hitless.receipts.page import render as render_receipt
from hitless.release.who import Who

MAX_FORM_BYTES = 8192
LIVE_EVERY_S = 1.0
QUIET_S = 15
"""A stream without news sends a comment this often, so that a browser that has gone is noticed."""

STRICT = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
STRICT += "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
NO_SCRIPT = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
"""The policy of receipts and refusals, which have their style sheet inside and no script."""
HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "same-origin",  # with no-referrer, browsers send `Origin: null` with our own forms
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
ASSETS = {
    "pages/style.css": "text/css",
    "dashboard/dashboard.css": "text/css",
    "dashboard/dashboard.js": "text/javascript",
}


@dataclass(slots=True)
class Guard:
    """Checks each request before the application gets it, and adds the security headers to each response."""

    app: ASGIApp
    door: Door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        refused = self.door.refusal(request.method, request.headers)
        session = self.door.session_of(request.headers)
        if refused is None and session is None and not request.url.path.startswith(f"{self.door.base}/enter/"):
            refused = NO_SESSION
        app = self.app if refused is None else _plain(refused, 403)
        await app({**scope, "session": session}, receive, partial(_send_with_headers, send))


async def _send_with_headers(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        given = {name.lower() for name, _ in message["headers"]}
        policy = {"content-security-policy": STRICT, **HEADERS}
        more = [(name.encode(), value.encode()) for name, value in policy.items() if name.encode() not in given]
        message = {**message, "headers": [*message["headers"], *more]}
    await send(message)


@dataclass(slots=True)
class Dashboard:
    """One engine's dashboard. `who` is the person who started it; the engine records the name with each action."""

    engine: EngineApi
    door: Door
    pages: Pages
    clock: Clock
    who: str
    caller: Who
    _assets: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    _environment: Any = None

    def __post_init__(self) -> None:
        own = resources.files("hitless")
        self._assets = {Path(name).name: ((own / name).read_bytes(), kind) for name, kind in ASSETS.items()}
        version = hashlib.sha256(b"".join(content for content, _ in self._assets.values())).hexdigest()[:12]
        known = {"base": self.door.base, "version": version, "views": views, "words": words, "who": self.who}
        self._environment = environment_of("hitless.dashboard", **known)
        self._environment.filters["ago"] = lambda at: views.ago(at, self.clock.now())
        self._environment.filters["said"] = views.words

    def application(self) -> ASGIApp:
        shown = [
            ("/", "overview", self.pages.overview),
            ("/stages/{stage}", "stage", self.pages.stage),
            ("/releases", "releases", self.pages.releases),
            ("/functions", "functions", self.pages.functions),
            ("/runs", "runs", self.pages.runs),
            ("/runs/{run:int}", "run", self.pages.run),
            ("/events", "events", self.pages.events),
            ("/access", "access", self.pages.access),
        ]
        routes = [
            Route("/enter/{token}", self.enter),
            Route("/static/{name}", self.asset),
            Route("/stages/{stage}/releases/{release:int}", self.receipt),
            Route("/stages/{stage}/{verb}", self.act_on_stage, methods=["POST"]),
            Route("/runs/{run:int}/{verb}", self.act_on_run, methods=["POST"]),
            *(Route(path, partial(self.show, name, page)) for path, name, page in shown),
        ]
        return Guard(Starlette(routes=[Mount(self.door.base, routes=routes)], exception_handlers=_HANDLERS), self.door)

    async def enter(self, request: Request) -> Response:
        cookie = self.door.enter(request.path_params["token"])
        if cookie is None:
            return _plain(USED_LINK, 403)
        # A redirect would still count as a navigation from the page with the link, and carry no strict cookie.
        no_icon = '<link rel="icon" href="data:,">'
        return HTMLResponse(no_icon, headers={"set-cookie": cookie, "refresh": f"0;url={self.door.base}/"})

    async def asset(self, request: Request) -> Response:
        content, kind = self._assets.get(request.path_params["name"], (None, ""))
        if content is None:
            return _plain("There is no such file.", 404)
        return Response(content, media_type=kind, headers={"cache-control": "private, max-age=86400, immutable"})

    async def receipt(self, request: Request) -> Response:
        document = await self.pages.receipt(request.path_params["stage"], request.path_params["release"])
        page = render_receipt(document, back=f"{self.door.base}/releases")
        return HTMLResponse(page, headers={"content-security-policy": NO_SCRIPT})

    async def show(self, name: str, page: Callable[[Request], Awaitable[dict[str, Any]]], request: Request) -> Response:
        session: Session = request.scope["session"]
        if "text/event-stream" in request.headers.get("accept", ""):
            stream = self._live(name, page, request, session)
            return StreamingResponse(stream, media_type="text/event-stream")
        said, session.said = session.said, None
        values = {**await self._values(page, request), "said": said}
        return HTMLResponse(await asyncio.to_thread(self._environment.get_template(f"{name}.html").render, values))

    async def _values(self, page: Callable[[Request], Awaitable[dict[str, Any]]], request: Request) -> dict[str, Any]:
        session: Session = request.scope["session"]
        path = request.url.path.removeprefix(f"{self.door.base}/")
        common = {"here": path.partition("/")[0], "form_key": session.form_key, "query": request.query_params}
        return {**common, "older": None, **await page(request)}

    async def _live(
        self, name: str, page: Callable[[Request], Awaitable[dict[str, Any]]], request: Request, session: Session
    ) -> AsyncIterator[str]:
        """The page's `live` block whenever it has changed, until the session ends or the browser goes away."""
        template, last, quiet = self._environment.get_template(f"{name}.html"), "", 0
        while self.door.is_open(session):
            try:
                context = template.new_context(await self._values(page, request))
                text = "".join(template.blocks["live"](context))
            except HitlessError as error:
                text = f'<p class="bad">{views.escaped(error.message)}</p>'
            quiet = 0 if text != last else quiet + 1
            if quiet == 0:
                last = text
                yield f"data: {json.dumps(text)}\n\n"
            elif quiet % QUIET_S == 0:
                yield ":\n\n"
            await self.clock.sleep(LIVE_EVERY_S)

    async def act_on_stage(self, request: Request) -> Response:
        stage, verb = request.path_params["stage"], request.path_params["verb"]
        form = await _form(request)
        path = f"/stages/{quote(stage, safe='')}/{verb}"
        match verb:
            case "abort":
                return await self._act(
                    request, path, {}, f"stages/{stage}", f"The rollout of {stage} is being stopped."
                )
            case "rollback":
                number = form.get("release", "")
                order = RollbackRequest(
                    int(number) if number.isdecimal() else None, form.get("why"), False, self.caller
                )
                return await self._act(request, path, order, f"stages/{stage}", f"{stage} is being rolled back.")
            case "promote":
                promotion = Promotion(source=form.get("from", ""), actor=self.who)
                said = f"A run promotes {promotion.source} to {stage}."
                return await self._act(request, path, promotion, "runs", said)
        return _plain("There is no such action.", 404)

    async def act_on_run(self, request: Request) -> Response:
        run, verb = request.path_params["run"], request.path_params["verb"]
        form = await _form(request)
        done = {"approve": "approved", "reject": "rejected", "retry": "started again", "stop": "stopped"}.get(verb)
        if done is None:
            return _plain("There is no such action.", 404)
        order = RunRequest(self.who, form.get("why") or None)
        return await self._act(request, f"/pipeline/runs/{run}/{verb}", order, f"runs/{run}", f"Run {run} was {done}.")

    async def _act(self, request: Request, path: str, body: Any, then: str, said: str) -> Response:
        """Ask the engine, and show the result on the next page."""
        session: Session = request.scope["session"]
        try:
            await asyncio.to_thread(self.engine.begin, "POST", path, body)
            session.said = said, False
        except HitlessError as error:
            session.said = f"{error.message}. {error.hint}".strip(), True
        return RedirectResponse(f"{self.door.base}/{quote(then)}", 303)


async def _form(request: Request) -> Mapping[str, str]:
    """The form's fields. Raises UsageError if it is too large, or not of a page of this session."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise UsageError(f"the form is larger than {MAX_FORM_BYTES} bytes", hint="shorten the reason")
    fields = {key: values[0].strip() for key, values in parse_qs(body.decode("utf-8", "replace")).items()}
    if not has_form_key(request.scope["session"], fields.pop("form_key", "")):
        raise UsageError(WRONG_ORIGIN, hint="reload the page")
    return fields


def _plain(sentence: str, status: int) -> Response:
    text = environment_of("hitless.dashboard").get_template("plain.html").render(headline=sentence)
    return HTMLResponse(text, status, {"content-security-policy": NO_SCRIPT})


async def _error_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HitlessError)
    return _plain(error.message, 403 if error.message == WRONG_ORIGIN else 404)


_HANDLERS: dict[Any, Any] = {HitlessError: _error_page}
