"""The dashboard's pages, their live updates, and the forms that act on the engine.

Each page is rendered on the server. Its `live` block is rendered again every second for browsers that follow the page,
and sent as a server-sent event if it has changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from markupsafe import escape
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import hitless.dashboard.views as views
from hitless.api.client import EngineClient
from hitless.api.requests import RollbackRequest, RunRequest
from hitless.clock import Clock
from hitless.dashboard.door import NO_SESSION, USED_LINK, WRONG_ORIGIN, Door, Session
from hitless.dashboard.pages import Pages
from hitless.documents import to_plain
from hitless.engine import releases
from hitless.errors import HitlessError, UsageError
from hitless.pages.page import environment_of
from hitless.pipeline.orders import Promotion
from hitless.receipts import words
from hitless.receipts.page import render as render_receipt
from hitless.release.who import Who
from hitless.service.model import Home

Page = Callable[[Request], Awaitable[dict[str, Any]]]
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
PAGES = {
    "/": "overview",
    "/stages/{stage}": "stage",
    "/releases": "releases",
    "/functions": "functions",
    "/runs": "runs",
    "/runs/{run:int}": "run",
    "/events": "events",
    "/access": "access",
}
"""Path → the method of `Pages` and the template."""
ASSETS = {
    "pages/theme.css": "text/css",
    "pages/style.css": "text/css",
    "dashboard/dashboard.css": "text/css",
    "dashboard/dashboard.js": "text/javascript",
}


@dataclass(slots=True)
class Doorkeeper:
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

    engine: EngineClient
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

    def application(self) -> ASGIApp:
        routes = [
            Route("/enter/{token}", self.enter),
            Route("/static/{name}", self.asset),
            Route("/stages/{stage}/releases/{release:int}", self.receipt),
            Route("/{kind}/{name}/{verb}", self.act, methods=["POST"]),
            *(Route(path, partial(self.show, name, getattr(self.pages, name))) for path, name in PAGES.items()),
        ]
        return Doorkeeper(
            Starlette(routes=[Mount(self.door.base, routes=routes)], exception_handlers={HitlessError: _error_page}),
            self.door,
        )

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
        stage, number = request.path_params["stage"], request.path_params["release"]
        if self.pages.feed.is_on_aws(stage):
            document = await asyncio.to_thread(lambda: self.pages.feed.elsewhere.home(stage).release(number))
        else:
            document = await self.pages.history.read(lambda store: to_plain(releases.release(store, stage, number)))
        page = render_receipt(document, back=f"{self.door.base}/releases")
        return HTMLResponse(page, headers={"content-security-policy": NO_SCRIPT})

    async def show(self, name: str, page: Page, request: Request) -> Response:
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(self._live(name, page, request), media_type="text/event-stream")
        session: Session = request.scope["session"]
        said, session.said = session.said, None
        values = {**await self._values(page, request), "said": said}
        return HTMLResponse(await asyncio.to_thread(self._environment.get_template(f"{name}.html").render, values))

    async def _values(self, page: Page, request: Request) -> dict[str, Any]:
        session: Session = request.scope["session"]
        path = request.url.path.removeprefix(f"{self.door.base}/")
        common = {"here": path.partition("/")[0], "form_key": session.form_key, "query": request.query_params}
        status = await self.pages.feed.read()
        stages = [one.stage for one in status.stages] if status else []
        return {**common, "older": None, "status": status, "stages": stages, **await page(request)}

    async def _live(self, name: str, page: Page, request: Request) -> AsyncIterator[str]:
        """The page's `live` block whenever it has changed, until the session ends or the browser goes away."""
        template, last, quiet = self._environment.get_template(f"{name}.html"), "", 0
        while self.door.is_open(request.scope["session"]):
            try:
                context = template.new_context(await self._values(page, request))
                text = "".join(template.blocks["live"](context))
            except HitlessError as error:
                text = f'<p class="bad">{escape(error.message)}</p>'
            quiet = 0 if text != last else quiet + 1
            if quiet == 0:
                last = text
                yield f"data: {json.dumps(text)}\n\n"
            elif quiet % QUIET_S == 0:
                yield ":\n\n"
            await self.clock.sleep(LIVE_EVERY_S)

    async def act(self, request: Request) -> Response:
        """Ask the engine for what a form says, and show the result on the next page."""
        kind, name, verb = (request.path_params[key] for key in ("kind", "name", "verb"))
        form, session = await _form(request), request.scope["session"]
        why, number = form.get("why") or None, form.get("release", "")
        rollback = RollbackRequest(int(number) if number.isdecimal() else None, why, False, self.caller)
        source_home, _, source = form.get("from", "").rpartition("/")
        home, elsewhere = Home.AWS if source_home else Home.ENGINE, self.pages.feed.elsewhere
        on_aws = kind == "stages" and self.pages.feed.is_on_aws(name)
        folder = str(elsewhere.place.service_dir) if on_aws or home is Home.AWS else None
        bodies: dict[tuple[str, str], Any] = {
            ("stages", "abort"): {},
            ("stages", "rollback"): rollback,
            ("stages", "promote"): Promotion(source=source, source_home=home, folder=folder, actor=self.who),
            **{("runs", verb): RunRequest(self.who, why) for verb in ("approve", "reject", "retry", "stop")},
        }
        if (kind, verb) not in bodies:
            return _plain("There is no such action.", 404)
        path = f"/{kind}/{name}/{verb}" if kind == "stages" else f"/pipeline/{kind}/{name}/{verb}"
        said = "the engine has accepted it"
        try:
            if on_aws != (form.get("home") == Home.AWS):  # both homes may have a stage of this name
                message = f"the page was out of date: {'AWS' if on_aws else 'the engine'} serves {name}"
                raise UsageError(message, hint="check this page, and try again")
            if on_aws and verb != "promote":
                said = await elsewhere.act(
                    name, lambda home: home.abort() if verb == "abort" else home.rollback(rollback.release, why)
                )
            else:
                await asyncio.to_thread(self.engine.begin, "POST", path, bodies[kind, verb])
            session.said = f"{verb} of {name}: {said}.".capitalize(), False
        except HitlessError as error:
            session.said = f"{error.message}. {error.hint}".strip(), True
        then = "runs" if verb == "promote" else f"{kind}/{name}"
        return RedirectResponse(f"{self.door.base}/{quote(then)}", 303)


async def _form(request: Request) -> Mapping[str, str]:
    """The form's fields. Raises UsageError if it is too large, or not of a page of this session."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise UsageError(f"the form is larger than {MAX_FORM_BYTES} bytes", hint="shorten the reason")
    fields = {key: values[0].strip() for key, values in parse_qs(body.decode("utf-8", "replace")).items()}
    if not hmac.compare_digest(fields.pop("form_key", "").encode(), request.scope["session"].form_key.encode()):
        raise UsageError(WRONG_ORIGIN, hint="reload the page")
    return fields


def _plain(sentence: str, status: int) -> Response:
    text = environment_of("hitless.dashboard").get_template("plain.html").render(headline=sentence)
    return HTMLResponse(text, status, {"content-security-policy": NO_SCRIPT})


async def _error_page(request: Request, error: Any) -> Response:
    return _plain(error.message, 403 if error.message == WRONG_ORIGIN else 404)
