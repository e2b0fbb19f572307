"""Smoke requests: a few requests to a candidate's own workers before it sees a client.

They go straight to a worker's socket, in the same form as the gateway's, so that the candidate is judged without
being reachable.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from hitless.errors import CandidateFailedError
from hitless.service.model import Function, SmokeRequest
from hitless.service.routes import compile_route, order_routes

SHOWN_BODY_BYTES = 300


async def send_smoke_requests(
    requests: Sequence[SmokeRequest], functions: Sequence[Function], sockets: Mapping[str, Path]
) -> None:
    """Send each request to the function that its route names (`sockets`: function → a worker's socket).

    Raises CandidateFailedError at the first answer that is not the expected one.
    """
    for request in requests:
        function = find_function(functions, request.method, urlsplit(request.path).path)
        if function is None:
            raise CandidateFailedError(
                f"smoke request {request.method} {request.path}: no route of the candidate answers it",
                hint="mend the route, or the smoke request under custom.hitless",
            )
        status, body = await asyncio.to_thread(_send, request, sockets[function.name], function.timeout_s + 2.0)
        if status != request.status:
            shown = body[:SHOWN_BODY_BYTES].decode("utf-8", "replace")
            raise CandidateFailedError(
                f"smoke request {request.method} {request.path}: {status} instead of {request.status}: {shown}",
                hint=f"see `hitless logs {function.name}`",
            )


def find_function(functions: Sequence[Function], method: str, path: str) -> Function | None:
    """The function whose route answers the request, by API Gateway's precedence."""
    owner = {route: function for function in functions for route in function.routes}
    for route in order_routes(owner):
        if route.method in (method, "ANY") and re.fullmatch(compile_route(route.path), path):
            return owner[route]
    return None


def _send(request: SmokeRequest, worker: Path, timeout_s: float) -> tuple[int | str, bytes]:
    connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(timeout_s)
    own = {"x-hl-id": str(uuid.uuid4()), "x-hl-proto": "http", "x-hl-port": "80", "x-forwarded-for": "127.0.0.1"}
    try:
        connection.sock.connect(str(worker))
        connection.request(
            request.method,
            request.path,
            request.body.encode() if request.body is not None else None,
            {"user-agent": "hitless-smoke", **dict(request.headers), **own},
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({type(error).__name__}: {error})", b""
    finally:
        connection.close()
