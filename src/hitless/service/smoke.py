"""`smoke` of a stage: requests that a candidate must answer before it gets traffic."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from hitless.service.model import SmokeRequest
from hitless.service.routes import METHODS
from hitless.service.value import Value, check_known

SMOKE_KEYS = ("method", "path", "headers", "body", "status")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_TARGET = re.compile(r"/[!-~]*")


def read_smoke(value: Value | None) -> tuple[SmokeRequest, ...]:
    """The requests in the file's order; ServiceFileError on what is none."""
    return tuple(_smoke_request(item) for item in value.items()) if value is not None else ()


def _smoke_request(item: Value) -> SmokeRequest:
    if isinstance(item.data, str):
        method, _, path = item.data.strip().partition(" ")
        return SmokeRequest(_method(item, method), _target(item, path.strip()))
    check_known(item, SMOKE_KEYS)
    path_at = item.get("path")
    if path_at is None:
        raise item.fault("has no path", "write GET /path, or a map with method and path")
    method_at, status = item.get("method"), item.get("status")
    body, headers = _body(item.get("body"), _headers(item.get("headers")))
    return SmokeRequest(
        method=_method(method_at, method_at.text()) if method_at is not None else "GET",
        path=_target(path_at, path_at.text()),
        headers=headers,
        body=body,
        status=status.integer(100, 599) if status is not None else 200,
    )


def _method(at: Value, method: str) -> str:
    if method.upper() not in METHODS:
        raise at.fault(f"{at.shown()} has an unknown method; known are {', '.join(METHODS)}", "write GET /path")
    return method.upper()


def _target(at: Value, path: str) -> str:
    if not _TARGET.fullmatch(path):
        raise at.fault("has no path that begins with a slash and has no blanks", "write GET /path?query=value")
    return path


def _headers(value: Value | None) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for name, entry in value.mapping().items() if value is not None else ():
        text = entry.text()
        if not HEADER_NAME.fullmatch(name) or not text.isprintable():
            raise entry.fault("is not a header: a name of letters, digits and -, and a value in one line")
        pairs.append((name, text))
    return tuple(pairs)


def _body(value: Value | None, headers: tuple[tuple[str, str], ...]) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """The body as sent; maps and lists as JSON, which the headers then say unless they name a type."""
    if value is None or not isinstance(value.data, Mapping | tuple):
        return (None if value is None else value.text()), headers
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers = (*headers, ("content-type", "application/json"))
    return json.dumps(value.plain(), ensure_ascii=False, separators=(",", ":")), headers
