"""The service under load: its URL, its addresses, single requests, and a probe of each before the load starts.

A request whose probe gets neither a 2xx response nor its expected status is reported and left out. A drill measures the
service, not mistakes in the list of requests.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from hitless.drill.connection import tls_context
from hitless.drill.document import LeftOut
from hitless.drill.requests import DrillRequest, from_smoke
from hitless.errors import MachineError, UsageError
from hitless.service.model import SmokeRequest


@dataclass(frozen=True, slots=True)
class Target:
    """An http or https URL. `base_path` (`/dev`, or empty) precedes each request's path."""

    url: str
    tls: bool
    host: str
    port: int
    base_path: str

    @property
    def host_header(self) -> str:
        """The host, and the port unless it is the scheme's default."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"


def parse_target(url: str) -> Target:
    """The target that a URL names. Raises UsageError."""
    hint = "give the URL of the service, for example http://127.0.0.1:8080"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--target {url}: {error}", hint=hint) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--target {url}: not an http or https URL", hint=hint)
    if parts.username or parts.query or parts.fragment:
        raise UsageError(f"--target {parts.hostname}: must have no user, query or fragment", hint=hint)
    tls = parts.scheme == "https"
    return Target(url.rstrip("/"), tls, parts.hostname, port or (443 if tls else 80), parts.path.rstrip("/"))


def resolve(target: Target) -> tuple[tuple[str, int], ...]:
    """The addresses of the first family that accepts a connection. Raises MachineError if there is none.

    Resolved once: a long drill keeps its first addresses even if the name's addresses change.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise MachineError(f"{target.host}: cannot be resolved: {error}", hint="check the host name") from error
    refusal: OSError | None = None
    for family, _, _, _, address in found:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.settimeout(5)
                probe.connect(address)
        except OSError as error:
            refusal = error
            continue
        return tuple(dict.fromkeys((str(a[0]), int(a[1])) for f, _, _, _, a in found if f == family))
    raise MachineError(
        f"{target.url} accepts no connection: {refusal}", hint="see `hitless status`; `hitless up` starts the engine"
    )


async def probe(
    target: Target, requests: tuple[DrillRequest, ...], *, deadline_s: float
) -> tuple[tuple[DrillRequest, ...], tuple[LeftOut, ...]]:
    """Send each request once, one after another. Returns those to send, each with its expected status, and the
    others. Raises UsageError if every request is left out.
    """
    kept: list[DrillRequest] = []
    left_out: list[LeftOut] = []
    for request in requests:
        response = await asyncio.to_thread(ask, target, request, deadline_s=deadline_s, agent="hitless-drill")
        status = response.status
        if 200 <= status < 300 or (status and status == request.status and status < 500):
            kept.append(replace(request, status=request.status or status))
        else:
            left_out.append(LeftOut(request.name, response.error or f"status {status}"))
    if not kept:
        what = "; ".join(f"{one.request} {one.reason}" for one in left_out[:5])
        raise UsageError(
            f"{target.url}: no request got a 2xx response: {what}",
            hint="list other requests with --requests FILE, or under the stage's `smoke`",
        )
    return tuple(kept), tuple(left_out)


@dataclass(frozen=True, slots=True)
class TargetResponse:
    """A complete response; `status` is 0 if there was none, and `error` says why. `headers` are in lower case."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""


def ask(
    target: Target, request: DrillRequest, *, deadline_s: float, agent: str, at: tuple[str, int] | None = None
) -> TargetResponse:
    """Send one request. Blocking. `at`: connect to this address of the own machine, without a check of the certificate,
    and not to the one that the URL's domain may have elsewhere.
    """
    connection = http.client.HTTPConnection(target.host, target.port, timeout=deadline_s)
    if target.tls:  # the authorities of a context take 30 ms to load
        context = tls_context(at[0] if at else target.host)
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=deadline_s, context=context)
    headers = {"Host": target.host_header, "User-Agent": agent, "Accept": "*/*", **dict(request.headers)}
    if request.fresh_key:
        headers["Idempotency-Key"] = f"drill-{uuid.uuid4().hex}"
    try:
        if at is not None:
            connection.sock = socket.create_connection(at, deadline_s)
            if target.tls:
                connection.sock = context.wrap_socket(connection.sock, server_hostname=target.host)
        connection.request(request.method, target.base_path + request.path, request.body or None, headers)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return TargetResponse(response.status, found, response.read())
    except TimeoutError:
        return TargetResponse(error=f"no response within {deadline_s:g} s")
    except (OSError, http.client.HTTPException) as error:
        return TargetResponse(error=f"no response: {str(error) or type(error).__name__}")
    finally:
        connection.close()


VERIFY_DEADLINE_S = 10.0


def fault_of(
    url: str, smoke: SmokeRequest, release: int | None = None, at: tuple[str, int] | None = None
) -> str | None:
    """Send a smoke request to a stage's URL. A sentence if it failed. Blocking.

    `release` is the one that a response must name, if it names any. `at`: as for `ask`.
    """
    (request,) = from_smoke([smoke])
    response = ask(parse_target(url), request, deadline_s=VERIFY_DEADLINE_S, agent="hitless-verify", at=at)
    if not response.status:
        return f"{request.name}: {response.error}"
    if response.status != request.status:
        return f"{request.name} responded {response.status} instead of {request.status}"
    named = response.headers.get("x-hitless-release")
    if release is not None and named is not None and named != str(release):
        return f"release {named} responded to {request.name} instead of release {release}"
    return None
