"""What a drill sends: read from a file of JSON lines, or taken from the stage's smoke requests, or one a route.

Everything that comes from outside is bounded and checked here, and an error names file and line. Connection headers and
lengths belong to the sender, so a file may not set them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hitless.drill.recording import SUFFIX, BadRecording, requests_of
from hitless.drill.wire import WireRequest
from hitless.errors import UsageError
from hitless.service.model import Route, SmokeRequest

MAX_BODY_BYTES = 1_048_576
MAX_REQUESTS = 1_000
MAX_FILE_BYTES = 64 * MAX_BODY_BYTES
MAX_WEIGHT = 1_000
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_PATH = re.compile(r"/[!-~]*\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_OURS = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "expect", "upgrade"})
_KEYS = frozenset({"method", "path", "headers", "body", "weight", "status", "check_release"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
KEY = "idempotency-key"
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class DrillRequest:
    """One kind of request. `status`: what it should be answered with (None: what the probe saw); others are counted."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    weight: int = 1
    status: int | None = None
    check_release: bool = True
    fresh_key: bool = False  # each one sent carries an Idempotency-Key of its own

    @property
    def name(self) -> str:
        """`POST /items`."""
        return f"{self.method} {self.path}"

    def to_wire(self, host: str) -> WireRequest:
        """The bytes to send; `host` is the Host header's value unless the request has its own."""
        given = {name.lower() for name, _ in self.headers}
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        if "host" not in given:
            lines.append(f"Host: {host}")
        if "user-agent" not in given:
            lines.append("User-Agent: hitless-drill")
        if "accept" not in given:
            lines.append("Accept: */*")
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body or self.method in _WITH_BODY:
            lines.append(f"Content-Length: {len(self.body)}")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n"
        return WireRequest(head, self.body, self.method == "HEAD", self.check_release, self.fresh_key)


def read_requests(file: Path) -> tuple[DrillRequest, ...]:
    """The requests of a file of JSON lines, or of an HTTP archive (`*.har`).

    Blank lines and lines that begin with `#` are skipped. Raises UsageError naming file and line, or entry.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{file}: larger than {MAX_FILE_BYTES >> 20} MiB", hint="send fewer or smaller bodies")
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}", hint="--requests takes a file of JSON lines") from error
    requests = list(_from_archive(text, file) if file.suffix == SUFFIX else _from_lines(text, file))
    if not 0 < len(requests) <= MAX_REQUESTS:
        raise UsageError(
            f"{file}: {len(requests)} requests; a drill takes 1 to {MAX_REQUESTS}",
            hint='one a line: {"method": "GET", "path": "/items"}',
        )
    return tuple(requests)


def from_smoke(smoke: Iterable[SmokeRequest]) -> tuple[DrillRequest, ...]:
    """The stage's smoke requests as load."""
    return tuple(
        DrillRequest(
            one.method, one.path, tuple(dict(one.headers).items()), (one.body or "").encode(), status=one.status
        )
        for one in smoke
    )


def from_routes(routes: Iterable[Route]) -> tuple[DrillRequest, ...]:
    """One request a route: each `{param}` is `1`, the body `{}`, ANY is GET."""
    requests: dict[str, DrillRequest] = {}
    for route in routes:
        method = "GET" if route.method == "ANY" else route.method
        path = re.sub(r"\{[^}]*\}", "1", route.path)
        with_body = method in _WITH_BODY
        request = DrillRequest(
            method, path, (("Content-Type", "application/json"),) if with_body else (), b"{}" if with_body else b""
        )
        requests.setdefault(request.name, request)
    return tuple(requests.values())


def with_keys(requests: Iterable[DrillRequest]) -> tuple[DrillRequest, ...]:
    """The same, but each unsafe request that has no Idempotency-Key of its own gets a fresh one whenever it is sent."""
    return tuple(
        replace(one, fresh_key=one.method not in SAFE and not any(name.lower() == KEY for name, _ in one.headers))
        for one in requests
    )


def _from_lines(text: str, file: Path) -> Iterable[DrillRequest]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            where = f"{file}:{number}"
            try:
                document = json.loads(line)
            except ValueError as error:
                raise _bad(where, f"not JSON: {error}") from error
            yield _request_of(document, where)


def _from_archive(text: str, file: Path) -> Iterable[DrillRequest]:
    try:
        documents = requests_of(text, most_weight=MAX_WEIGHT, not_taken=_OURS)
    except BadRecording as error:
        raise UsageError(f"{file}: {error}", hint="export it from the browser's network panel as HAR") from error
    for document in documents:
        yield _request_of(document, f"{file}: {document['method']} {document['path']}")


def _request_of(document: object, where: str) -> DrillRequest:
    if not isinstance(document, dict):
        raise _bad(where, "not a JSON object")
    unknown = sorted(set(document) - _KEYS)
    if unknown:
        raise _bad(where, f"unknown key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
    method = document.get("method", "GET")
    if not isinstance(method, str) or not _TOKEN.match(method) or method != method.upper() or method == "CONNECT":
        raise _bad(where, f"method: {method!r} is not an HTTP method in capitals")
    path = document.get("path")
    if not isinstance(path, str) or not _PATH.match(path):
        raise _bad(where, f"path: {path!r} must begin with / and hold no blanks or raw non-ASCII letters")
    headers = _headers(document.get("headers", {}), where)
    body = document.get("body")
    if body is not None and not isinstance(body, str):
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers = (*headers, ("Content-Type", "application/json"))
        body = json.dumps(body)
    data = (body or "").encode()
    if len(data) > MAX_BODY_BYTES:
        raise _bad(where, f"body: {len(data)} bytes; at most {MAX_BODY_BYTES}")
    return DrillRequest(
        method,
        path,
        headers,
        data,
        weight=_whole(document, "weight", 1, MAX_WEIGHT, where) or 1,
        status=_whole(document, "status", 200, 599, where),
        check_release=_truth(document, "check_release", where),
    )


def _headers(headers: object, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(headers, Mapping):
        raise _bad(where, "headers: not an object of names and texts")
    for name, value in headers.items():
        if not isinstance(value, str) or not _VALUE.match(value):
            raise _bad(where, f"headers.{name}: {value!r} cannot stand in a header")
        if not _TOKEN.match(name):
            raise _bad(where, f"headers: {name!r} is not a header's name")
        if name.lower() in _OURS:
            raise _bad(where, f"headers.{name}: is the drill's own to set")
    return tuple(headers.items())


def _whole(document: Mapping[str, Any], key: str, least: int, most: int, where: str) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _bad(where, f"{key}: {value!r} is not a whole number from {least} to {most}")
    return value


def _truth(document: Mapping[str, Any], key: str, where: str) -> bool:
    value = document.get(key, True)
    if not isinstance(value, bool):
        raise _bad(where, f"{key}: {value!r} is neither true nor false")
    return value


def _bad(where: str, what: str) -> UsageError:
    return UsageError(
        f"{where}: {what}", hint='a line is like {"method": "POST", "path": "/items", "headers": {}, "body": "{}"}'
    )
