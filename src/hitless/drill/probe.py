"""Asks each request once before the load: what does not answer 2xx is named and left out, so that a drill measures the
service and not its list of requests.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import uuid
from dataclasses import dataclass, replace
from typing import Any

from hitless.drill.requests import DrillRequest
from hitless.drill.target import Target
from hitless.errors import UsageError


@dataclass(frozen=True, slots=True)
class Probed:
    """What the probe found out. `requests` have their status; `left_out` holds (request's name, reason)."""

    requests: tuple[DrillRequest, ...]
    left_out: tuple[tuple[str, str], ...]
    release: int | None  # of the first answer that named one


async def probe(target: Target, requests: tuple[DrillRequest, ...], *, deadline_s: float) -> Probed:
    """Ask each request once, one after the other. Raises UsageError if none answers 2xx."""
    kept: list[DrillRequest] = []
    left_out: list[tuple[str, str]] = []
    release: int | None = None
    for request in requests:
        status, header, reason = await asyncio.to_thread(_ask, target, request, deadline_s)
        if release is None and header is not None and header.isdigit():
            release = int(header)
        if 200 <= status < 300 or (status and status == request.status and status < 500):
            kept.append(replace(request, status=request.status or status))
        else:
            left_out.append((request.name, reason or f"answers {status}"))
    if not kept:
        what = "; ".join(f"{name} {reason}" for name, reason in left_out[:5])
        raise UsageError(
            f"{target.url}: no request answers 2xx: {what}",
            hint="name requests that do with --requests FILE, or as smoke requests of the stage",
        )
    return Probed(tuple(kept), tuple(left_out), release)


def _ask(target: Target, request: DrillRequest, deadline_s: float) -> tuple[int, str | None, str]:
    """Status (0: no answer), the release named in the header, and why there was no answer."""
    options: dict[str, Any] = {"timeout": deadline_s}
    connection: http.client.HTTPConnection
    if target.tls:
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(target.host, target.port, context=context, **options)
    else:
        connection = http.client.HTTPConnection(target.host, target.port, **options)
    headers = {"Host": target.host_header, "User-Agent": "hitless-drill", "Accept": "*/*", **dict(request.headers)}
    if request.fresh_key:
        headers["Idempotency-Key"] = f"drill-{uuid.uuid4().hex}"
    try:
        connection.request(request.method, target.base_path + request.path, request.body or None, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("x-hitless-release"), ""
    except TimeoutError:
        return 0, None, f"does not answer within {deadline_s:g} s"
    except (OSError, http.client.HTTPException) as error:
        return 0, None, f"does not answer: {str(error) or type(error).__name__}"
    finally:
        connection.close()
