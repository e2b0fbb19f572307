"""Sends one request of a case exactly as it is written, which no HTTP library does."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from tests.conformance.matching import Observed, Places
from tests.conformance.table import Request

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """A deployed service by its URL; `base` is the path before the case's own, `/dev` of an API's default domain."""

    host: str
    port: int
    tls: bool
    base: str

    @classmethod
    def of(cls, url: str) -> Target:
        """From `http://127.0.0.1:8080` or `https://id.execute-api.eu-west-1.amazonaws.com/dev`."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is not an HTTP URL")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """What a client's Host header says."""
        return self.host if self.port in (80, 443) else f"{self.host}:{self.port}"

    @property
    def places(self) -> Places:
        """What the placeholders of expected texts stand for."""
        names = {"base": self.base, "host": self.host, "authority": self.authority, "port": str(self.port)}
        return Places({**names, "long": "x" * 8000})


def send(target: Target, request: Request) -> Observed:
    """The response; `error` says why there is none."""
    try:
        with _connected(target) as connection:
            try:
                connection.sendall(_written(target, request))
            except (BrokenPipeError, ConnectionResetError):
                pass  # the response may say why the rest of the body was not read
            response = http.client.HTTPResponse(connection, method=request.method)
            response.begin()
            return Observed(response.status, tuple(response.getheaders()), response.read())
    except (OSError, http.client.HTTPException) as error:
        return Observed(error=f"no response: {error!r}")


def _connected(target: Target) -> socket.socket:
    plain = socket.create_connection((target.host, target.port), timeout=_TIMEOUT_S)
    return ssl.create_default_context().wrap_socket(plain, server_hostname=target.host) if target.tls else plain


def _written(target: Target, request: Request) -> bytes:
    lines = [f"{request.method} {target.base}{target.places.fill(request.path)} HTTP/1.1"]
    names = {line.partition(":")[0].lower() for line in request.headers}
    if "host" not in names:
        lines.append(f"Host: {target.authority}")
    lines += [target.places.fill(line) for line in request.headers]
    if "connection" not in names:
        lines.append("Connection: close")
    body = _body(request)
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def _body(request: Request) -> bytes | None:
    if request.base64 is not None:
        return base64.b64decode(request.base64)
    if request.size is not None:
        return b"x" * request.size
    if request.json is not msgspec.UNSET:
        return json.dumps(request.json).encode()
    return None if request.body is None else request.body.encode()
