"""Makes the responses of two homes to the same request comparable, and reads the table of known differences.

A difference has a field and the request that shows it. What is never the same twice (ids, times, addresses) is replaced
by its kind where it has the form that AWS documents, and stays where it has not, so that a wrong form is a difference.
"""

from __future__ import annotations

import base64
import fnmatch
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.aws.parity_requests import Asked

ABSENT: Final = "(absent)"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "differences-from-aws.md"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_KINDS: Final = {
    "answer.headers.date": r"\['\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT'\]",
    "answer.headers.x-amzn-requestid": rf"\['{_UUID}'\]",
    "event.requestContext.requestId": _UUID,
    "event.requestContext.requestTime": r"\d{2}/\w{3}/\d{4}:\d{2}:\d{2}:\d{2} \+0000",
    "event.requestContext.requestTimeEpoch": r"\d{13}",
    "event.requestContext.extendedRequestId": r"[A-Za-z0-9+/]{15}=",
    "event.headers.X-Amzn-Trace-Id": r"(Root=1-[0-9a-f]{8}-[0-9a-f]{24}) of \['\1'\]",
}
_CAUSES: Final = ("by design", "emulator", "undocumented")
"""The engine does otherwise and the document says why; the emulator does otherwise than AWS's document; none says."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one request's observation that differs between the homes."""

    field: str
    request: str
    engine: str
    aws: str

    def __str__(self) -> str:
        return f"{self.field} @ {self.request}: engine {self.engine[:160]}, AWS {self.aws[:160]}"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the document's table. `request` is `any` or one request's name; `field` may end with `.*`.

    `engine` and `aws` are None if the cell describes the value in words, else the exact value of each difference.
    """

    field: str
    request: str
    engine: str | None
    aws: str | None
    cause: str
    why: str

    def covers(self, found: Difference) -> bool:
        """Whether this row describes that difference correctly."""
        about = fnmatch.fnmatchcase(found.field, self.field) and self.request in ("any", found.request)
        return about and self.engine in (None, found.engine) and self.aws in (None, found.aws)


def observe(base: str, asked: Asked) -> dict[str, str]:
    """Field → value of what the home at that URL answers; of an echo the event's fields in the body's place."""
    url = urlsplit(base)
    assert url.hostname
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    try:
        connection.putrequest(asked.method, url.path + asked.target, skip_accept_encoding=True)
        for name, value in asked.headers:
            connection.putheader(name, value)
        if asked.body is not None:
            connection.putheader("Content-Length", str(len(asked.body)))
        connection.endheaders(asked.body)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    found = {"answer.status": str(answer.status)}
    for name in {name.lower() for name, _ in answer.getheaders()}:
        found[f"answer.headers.{name}"] = str(answer.headers.get_all(name))
    if asked.echoes:
        found.pop("answer.headers.content-length")  # of an event: its fields are compared
    text = _text(body)
    if asked.target.startswith("/zones/"):  # what time it is there: the two are not asked within one second
        instant = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"  # in another form it stays, and is a difference
        text = re.sub(rf'"at":"{instant}Z"', '"at":"<at>"', text)
        text = re.sub(rf'"local":"{instant}([+-]\d\d:\d\d)"', r'"local":"<local>\1"', text)
    found |= _event(json.loads(body), str(url.port)) if asked.echoes and body else {"answer.body": text}
    return {field: _kind(field, value.replace(url.netloc, "HOST:PORT")) for field, value in found.items()}


def _event(event: dict[str, Any], port: str) -> dict[str, str]:
    """An event's fields; each header is one field, with the list of its values."""
    single, several = event.pop("headers"), event.pop("multiValueHeaders")
    headers = {name: f"{single.get(name, ABSENT)} of {several.get(name, ABSENT)}" for name in {*single, *several}}
    headers["X-Forwarded-Port"] = headers.get("X-Forwarded-Port", ABSENT).replace(port, "PORT")
    return {f"event.headers.{name}": value for name, value in headers.items()} | dict(_flat("event", event))


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(body).decode()


def _kind(field: str, value: str) -> str:
    kind = _KINDS.get(field)
    return f"<{field.rpartition('.')[2]}>" if kind and re.fullmatch(kind, value) else value


def _flat(name: str, node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flat(f"{name}.{key}", value)
    else:
        yield name, str(node)


def compare(asked: Asked, engine: Mapping[str, str], aws: Mapping[str, str]) -> list[Difference]:
    """The fields that differ."""
    return [
        Difference(field, asked.name, engine.get(field, ABSENT), aws.get(field, ABSENT))
        for field in sorted({*engine, *aws})
        if engine.get(field, ABSENT) != aws.get(field, ABSENT)
    ]


def listed(text: str) -> list[Row]:
    """The rows of the table below its mark in the document. AssertionError if a row is malformed."""
    _, mark, rest = text.partition("<!-- parity: compared by tests/aws/test_parity.py -->\n")
    assert mark, "the document has no table of parity"
    lines = rest.splitlines()
    assert lines[0] == "| field | request | engine | emulated AWS | cause | why |", lines[0]
    rows = []
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert len(cells) == 6, line
        assert cells[4] in _CAUSES, f"{cells[4]!r} is none of {_CAUSES}: {line}"
        rows.append(Row(cells[0].strip("`"), cells[1], _told(cells[2]), _told(cells[3]), cells[4], cells[5]))
    return rows


def _told(cell: str) -> str | None:
    """A value in backquotes is literal, `absent` too; any other text describes the value."""
    if cell == "absent":
        return ABSENT
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == "`" else None
