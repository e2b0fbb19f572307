"""Smoke requests: a few requests to a candidate's own workers before it sees a client.

They go straight to a worker's socket, in the same form as the gateway's, so that the candidate is judged without
being reachable.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from hitless.errors import CandidateFailedError
from hitless.service.model import Function, SmokeRequest
from hitless.service.routes import ANY, compile_route, is_literal, order_routes

SHOWN_BODY_BYTES = 300
_NO_RESPONSE = b'{"no_response": '
ANY_STATUS = 0  # what a request asks for that is not one of the stage's smoke requests


async def send_smoke_requests(
    requests: Sequence[SmokeRequest], functions: Sequence[Function], sockets: Mapping[str, Path]
) -> str | None:
    """Send each request to the function that its route names (`sockets`: function → a worker's socket).

    Raises CandidateFailedError at the first response that is not the expected one, or if a handler returns no object or
    no `statusCode` and API Gateway refuses that. Returns a sentence about an error where any status will do.
    """
    for request in requests:
        function = find_function(functions, request.method, urlsplit(request.path).path)
        if function is None:
            raise CandidateFailedError(
                f"smoke request {request.method} {request.path}: no route of the candidate answers it",
                hint="mend the route, or the smoke request under custom.hitless",
            )
        status, body = await asyncio.to_thread(_send, request, sockets[function.name], function.timeout_s + 2.0)
        if status == 502 and body.startswith(_NO_RESPONSE):
            module, _, handler = function.handler.rpartition(".")
            raise CandidateFailedError(
                f"{module.replace('.', '/')}.py: {handler} (function {function.name}) returned no statusCode to"
                f" {request.method} {request.path}: {json.loads(body)['no_response'][:SHOWN_BODY_BYTES]}"
            )
        if request.status == ANY_STATUS:
            if isinstance(status, str) or status >= 400:
                return f"{request.method} {request.path}: {status}, see `hitless logs {function.name}`"
        elif status != request.status:
            shown = body[:SHOWN_BODY_BYTES].decode("utf-8", "replace")
            raise CandidateFailedError(
                f"smoke request {request.method} {request.path}: {status} instead of {request.status}: {shown}",
                hint=f"see `hitless logs {function.name}`",
            )
    return None


def first_request(functions: Sequence[Function]) -> tuple[SmokeRequest, ...]:
    """One GET to the first route that takes it and has no parameter, for a stage without smoke requests."""
    routes = [route for function in functions for route in function.routes if is_literal(route.path)]
    paths = (route.path for method in ("GET", ANY) for route in routes if route.method == method)
    return tuple(SmokeRequest("GET", path, status=ANY_STATUS) for path in paths)[:1]


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
    own["x-hl-smoke"] = "1"
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
        return f"no response ({type(error).__name__}: {error})", b""
    finally:
        connection.close()
