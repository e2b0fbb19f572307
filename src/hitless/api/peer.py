"""Whose process is at the other end of the API's socket, by the kernel's word (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import asyncio
import pwd
import socket
import struct
from typing import Any

from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_KEY = "hitless.peer_uid"
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's HTTP with the caller's user id in each request's scope: it gives the application no socket to ask."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app, uid = self.app, _uid_behind(transport.get_extra_info("socket"))

        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, _KEY: uid}, receive, send)

        self.app = with_peer


def user_of(request: Request) -> str | None:
    """The caller's user name; its number where the machine has no name for it; None where the kernel does not say."""
    uid = request.scope.get(_KEY)
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _uid_behind(connection: Any) -> int | None:
    option = getattr(socket, "SO_PEERCRED", None)  # Linux has it; macOS does not
    if option is None or connection is None or connection.family != socket.AF_UNIX:
        return None
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return int(uid)
