"""Decides who may use the dashboard: links that work once, sessions, and the checks on each request.

Cookies do not depend on the port, so services on this host would get the dashboard's. Therefore all pages are below a
path that cannot be guessed, and the cookie is limited to that path (RFC 6265, 8.5 and 5.1.4).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from hitless.clock import Clock

COOKIE = "hitless_dashboard"
LINK_S = 600.0
"""How long a link works if nobody opens it."""
SESSION_S = 12 * 3600.0
MOST_SESSIONS = 32
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
WRONG_HOST = "The address in the browser is not one of this dashboard."
WRONG_ORIGIN = "The request does not come from a page of this dashboard."
NO_SESSION = "Your session has ended, or this browser has none. Run `hitless dashboard` for a new link."
USED_LINK = "This link was already used, or is too old. Run `hitless dashboard` for a new link."


@dataclass(slots=True)
class Session:
    """One browser. `form_key` is in each form of its pages; `said` is shown on its next page, and whether it is bad."""

    ends_s: float
    form_key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    said: tuple[str, bool] | None = None


class Door:
    """The links and sessions of one dashboard. `hosts`: the names that browsers may address it by."""

    def __init__(self, clock: Clock, *, hosts: frozenset[str] = LOOPBACK, secure: bool = False) -> None:
        self.base = f"/{secrets.token_urlsafe(16)}"
        """The path of all pages."""
        self._clock, self._hosts, self._secure = clock, hosts, secure
        self._links: dict[str, float] = {}
        self._sessions: dict[str, Session] = {}

    def new_link(self) -> str:
        """The path of a link that works once."""
        token = secrets.token_urlsafe(32)
        self._links[token] = self._clock.monotonic() + LINK_S
        return f"{self.base}/enter/{token}"

    def enter(self, token: str) -> str | None:
        """Use a link up. The `Set-Cookie` header of a new session; None if the link is not valid."""
        if self._links.pop(token, 0.0) <= self._clock.monotonic():
            return None
        name = secrets.token_urlsafe(32)
        self._sessions[name] = Session(self._clock.monotonic() + SESSION_S)
        for oldest in list(self._sessions)[:-MOST_SESSIONS]:
            del self._sessions[oldest]
        secure = "; Secure" if self._secure else ""
        return f"{COOKIE}={name}; Path={self.base}; Max-Age={SESSION_S:.0f}; HttpOnly; SameSite=Strict{secure}"

    def session_of(self, headers: Mapping[str, str]) -> Session | None:
        """The session of the request's cookie, unless it has ended."""
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return None
        session = self._sessions.get(found.value) if found else None
        return session if session and self.is_open(session) else None

    def is_open(self, session: Session) -> bool:
        return session.ends_s > self._clock.monotonic()

    def refusal(self, method: str, headers: Mapping[str, str]) -> str | None:
        """Why a request is refused whatever its session: an address that is not ours (DNS rebinding), or another
        page's form (cross-site request forgery). Browsers send `Origin` with each POST.
        """
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            name = None
        if name not in self._hosts:
            return WRONG_HOST
        own = f"{'https' if self._secure else 'http'}://{host}"
        if method not in ("GET", "HEAD") and headers.get("origin") != own:
            return WRONG_ORIGIN
        return None
