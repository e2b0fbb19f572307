"""The daemon's API on its Unix socket: the user who calls, request bodies within a limit, streams.

The kernel reports the user of the process at the other end (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hitless.documents import decode
from hitless.errors import UsageError

MAX_BODY_BYTES = 4 * 1024 * 1024
T = TypeVar("T")
_KEY = "hitless.peer_uid"
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


def listen_for_owner(path: Path) -> socket.socket:
    """A listening Unix socket that only its owner can connect to."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(64)
    return listener


class PeerProtocol(HttpToolsProtocol):
    """Adds the caller's user id to each request's scope, because uvicorn does not show the application the socket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app, uid = self.app, _uid_behind(transport.get_extra_info("socket"))

        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, _KEY: uid}, receive, send)

        self.app = with_peer


def user_of(request: Request) -> str | None:
    """The caller's user name, or `uid N` if the id has no name; None if the kernel does not report it."""
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


async def read_body(request: Request, kind: type[T]) -> T:
    """The request's body. Raises UsageError if it is not of that type, or too large."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise UsageError(
                f"the request is larger than {MAX_BODY_BYTES} bytes", hint="make serverless.yml and its values smaller"
            )
        chunks.append(chunk)
    return decode(b"".join(chunks) or b"{}", kind, "the request", error=UsageError)


async def one_line(document: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """A stream of one document."""
    yield document


def json_lines(documents: AsyncIterator[dict[str, Any]]) -> Response:
    """A response with one document per line, each sent as soon as it exists."""

    async def encoded() -> AsyncIterator[bytes]:
        async for document in documents:
            yield json.dumps(document).encode() + b"\n"

    return StreamingResponse(encoded(), media_type="application/x-ndjson")
