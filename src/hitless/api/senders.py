"""Limits the connections of unverified senders in number, time and size, one request each.

If there are too many, the oldest connection without a complete request is closed, first of the address with the most.
So a sender that sends at once is served, even if a proxy gives all senders one address.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol


class SenderProtocol(H11Protocol):
    """uvicorn's HTTP with limits: `head_s` for a request's headers, `life_s` for the rest, `connections` at once."""

    head_s, life_s, most_of_one, most = 10.0, 60.0, 64, 512

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.source = self.client[0] if self.client else ""
        self.began_s = self.loop.time()
        self._timer = self.loop.call_later(self.head_s, self._look)
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        end_s = 0.0 if self.conn.their_state is h11.IDLE else self.life_s
        self._timer = self.loop.call_later(end_s, self.transport.abort)

    def _make_room(self) -> None:
        standing: list[Any] = [one for one in self.connections if not one.transport.is_closing()]
        of_one = Counter(one.source for one in standing)
        if len(standing) <= self.most and of_one[self.source] <= self.most_of_one:
            return
        crowd = standing if len(standing) > self.most else [one for one in standing if one.source == self.source]
        owing = [one for one in crowd if one is not self and one.conn.their_state in (h11.IDLE, h11.SEND_BODY)]
        max(owing, key=lambda one: (of_one[one.source], -one.began_s), default=self).transport.abort()


def server_of(application: Starlette, protocol: type[SenderProtocol] = SenderProtocol) -> uvicorn.Server:
    """An HTTP server for unverified senders. It closes each connection after its response."""
    options: dict[str, Any] = {"ws": "none", "log_config": None, "access_log": False, "lifespan": "on"}
    return uvicorn.Server(uvicorn.Config(application, http=protocol, headers=[("connection", "close")], **options))
