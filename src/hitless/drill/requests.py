"""The requests of a drill: from a file of JSON lines, the stage's smoke requests, or one per route.

Everything that comes from outside is limited and checked here, and an error names file and line. The sender sets the
connection's headers and the content-length, so a file may not set them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from hitless.documents import decode
from hitless.drill.wire import WireRequest
from hitless.errors import UsageError
from hitless.service.event_sources import Route
from hitless.service.model import SmokeRequest

MAX_BODY_BYTES = 1_048_576
MAX_REQUESTS = 1_000
MAX_FILE_BYTES = 64 * MAX_BODY_BYTES
MAX_WEIGHT = 1_000
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_PATH = re.compile(r"/[!-~]*\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_OURS = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "expect", "upgrade"})
_LINE_HINT = 'a line is like {"method": "POST", "path": "/items", "headers": {}, "body": "{}"}'
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
KEY = "idempotency-key"
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class DrillRequest:
    """One kind of request. `status` is the expected one (None: the one that the probe saw); others are counted."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    weight: int = 1
    status: int | None = None
    check_release: bool = True
    fresh_key: bool = False  # each one that is sent has a new Idempotency-Key

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


class RequestLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A line of a requests file. A `body` that is not a string is sent as JSON."""

    path: str
    method: str = "GET"
    headers: dict[str, Any] = {}
    body: Any = None
    weight: Annotated[int, msgspec.Meta(ge=1, le=MAX_WEIGHT)] = 1
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    check_release: bool = True


def read_requests(file: Path) -> tuple[DrillRequest, ...]:
    """The requests of a file of JSON lines. Blank lines and lines that begin with `#` are skipped.

    Raises UsageError naming file and line.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{file}: larger than {MAX_FILE_BYTES >> 20} MiB", hint="send fewer or smaller bodies")
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}", hint="--requests takes a file of JSON lines") from error
    requests = list(_from_lines(text, file))
    if not 0 < len(requests) <= MAX_REQUESTS:
        raise UsageError(
            f"{file}: {len(requests)} requests; a drill takes 1 to {MAX_REQUESTS}",
            hint='one per line: {"method": "GET", "path": "/items"}',
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
    """One request per route: each `{param}` is `1`, the body `{}`, ANY is GET."""
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
    """The same requests; an unsafe one without an Idempotency-Key gets a new key each time it is sent."""
    return tuple(
        replace(one, fresh_key=one.method not in SAFE and not any(name.lower() == KEY for name, _ in one.headers))
        for one in requests
    )


def _from_lines(text: str, file: Path) -> Iterable[DrillRequest]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            where = f"{file}:{number}"
            try:
                read = decode(line, RequestLine, where, error=UsageError)
            except UsageError as wrong:
                raise UsageError(wrong.message, hint=_LINE_HINT) from wrong
            yield _request_of(read, where)


def _request_of(read: RequestLine, where: str) -> DrillRequest:
    method = read.method
    if not _TOKEN.match(method) or method != method.upper() or method == "CONNECT":
        raise _bad(where, f"method: {method!r} is not an HTTP method in capitals")
    if not _PATH.match(read.path):
        raise _bad(where, f"path: {read.path!r} must begin with / and have no blanks or raw non-ASCII letters")
    headers = _headers(read.headers, where)
    body = read.body
    if body is not None and not isinstance(body, str):
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers = (*headers, ("Content-Type", "application/json"))
        body = json.dumps(body)
    data = (body or "").encode()
    if len(data) > MAX_BODY_BYTES:
        raise _bad(where, f"body: {len(data)} bytes; at most {MAX_BODY_BYTES}")
    return DrillRequest(method, read.path, headers, data, read.weight, read.status, read.check_release)


def _headers(headers: Mapping[str, object], where: str) -> tuple[tuple[str, str], ...]:
    checked = []
    for name, value in headers.items():
        if not isinstance(value, str) or not _VALUE.match(value):
            raise _bad(where, f"headers.{name}: {value!r} is not a header's value")
        if not _TOKEN.match(name):
            raise _bad(where, f"headers: {name!r} is not a header's name")
        if name.lower() in _OURS:
            raise _bad(where, f"headers.{name}: the drill sets this header itself")
        checked.append((name, value))
    return tuple(checked)


def _bad(where: str, what: str) -> UsageError:
    return UsageError(f"{where}: {what}", hint=_LINE_HINT)
