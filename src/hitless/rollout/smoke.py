"""Sends smoke requests to a candidate's workers, before the gateway knows the candidate.

The requests look like the gateway's, and go directly to a worker's socket.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from hitless.errors import CandidateFailedError
from hitless.release.smoke import SmokeResponse, send_smoke_requests
from hitless.service.event_sources import Route
from hitless.service.model import Function, SmokeRequest

_NO_RESPONSE = b'{"no_response": '


async def smoke_workers(
    requests: Sequence[SmokeRequest], functions: Sequence[Function], sockets: Mapping[str, Path]
) -> str | None:
    """Send the requests to workers (`sockets`: function → a worker's socket), as `send_smoke_requests` does."""
    cancelled = threading.Event()

    def send(request: SmokeRequest, function: Function, _route: Route) -> SmokeResponse:
        if cancelled.is_set():  # the thread outlives the task: send nothing more to a candidate that is being withdrawn
            raise CandidateFailedError("the rollout was stopped during its smoke requests")
        worker, asked = sockets[function.name], [one.name for one in functions if one.authorizer]
        authorizers = {
            f"x-hl-at-{name}": _linked(sockets[name], worker.parent, number) for number, name in enumerate(asked)
        }
        return _send(request, worker, function.timeout_s + 2.0, authorizers)

    try:
        return await asyncio.to_thread(send_smoke_requests, requests, functions, send)
    finally:
        cancelled.set()


def _linked(authorizer: Path, folder: Path, number: int) -> str:
    """The authorizer's socket in the folder of the workers that invoke it: isolated workers see no other."""
    link = folder / f"at{number}.sock"
    link.unlink(missing_ok=True)
    os.link(authorizer, link, follow_symlinks=False)
    return str(link)


def _send(request: SmokeRequest, worker: Path, timeout_s: float, authorizers: Mapping[str, str]) -> SmokeResponse:
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
            {"user-agent": "hitless-smoke", **dict(request.headers), **own, **authorizers},
        )
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return SmokeResponse(f"no response ({type(error).__name__}: {error})", "")
    finally:
        connection.close()
    refused = response.status == 502 and body.startswith(_NO_RESPONSE)
    returned = str(json.loads(body)["no_response"]) if refused else None
    return SmokeResponse(response.status, body.decode("utf-8", "replace"), returned)
