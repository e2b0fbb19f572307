"""Reads a stage's access log as HAProxy writes it: one JSON line per request, over the rotated files.

Headers and bodies are never logged, and query values are masked if their names suggest a secret. An incomplete line (a
full disk, a path of many thousand characters) is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict

from hitless.gateway.logfiles import ACCESS_LOGS_KEPT, LIVE_SERVER

MASK = "***"
_BLOCK_BYTES = 1 << 16
_CUT_OFF = ("C", "c", "S", "s")
"""The first letter of HAProxy's termination state if client or server, or a timeout of theirs, ended the session
(HAProxy's Configuration Manual, "Session state at disconnection").
"""


class AccessLine(msgspec.Struct, frozen=True):
    """One request. `release` is the release that it was routed to; None if the stage had none or the request was
    refused before. `shielded`: the live release responded in place of the candidate. `bytes` includes the headers.
    """

    at: str
    method: str
    path: str
    query: str
    status: int
    duration_ms: int
    bytes: int
    release: int | None
    shielded: bool
    request: str
    cut_off: bool
    """The client, the worker or a timeout ended it before its response was complete."""
    traceparent: str = ""
    """As the handler got it, if the stage's requests are traced."""

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    def to_json(self) -> dict[str, Any]:
        """The line's JSON document. The command line adds function and route, which depend on the release."""
        document = {**asdict(self), "path": self.target, "request": self.request or None}
        del document["query"]
        return document


def parse(line: str) -> AccessLine | None:
    """A line of the log; None if it is incomplete or not hitless's."""
    try:
        found = json.loads(line)
        number = str(found["release"]).rpartition(".")[2]
        at = datetime.fromtimestamp(found["at_ms"] / 1000, UTC)
        return AccessLine(
            at=at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z",
            method=str(found["method"]),
            path=_text(found["path"]),
            query=_text(found["query"]),
            status=int(found["status"]),
            duration_ms=int(found["duration_ms"]),
            bytes=int(found["bytes"]),
            release=int(number) if number.isdecimal() else None,
            shielded=found["server"] == LIVE_SERVER,
            request=_text(found["request"]),
            cut_off=found["end"][:1] in _CUT_OFF,
            traceparent=_text(found.get("traceparent", "-")),
        )
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None


def _text(value: object) -> str:
    """HAProxy writes a dash for a missing value."""
    return "" if value == "-" else str(value)


def files_of(log: Path) -> list[Path]:
    """The log's existing files, oldest first."""
    return [path for path in _names(log) if path.is_file()]


def _names(log: Path) -> list[Path]:
    return [*(log.with_name(f"{log.name}.{number}") for number in range(ACCESS_LOGS_KEPT, 0, -1)), log]


def newest(log: Path, count: int) -> list[AccessLine]:
    """The newest `count` requests, oldest first."""
    found: list[AccessLine] = []
    for path in reversed(_names(log)):
        for line in _backwards(path):
            if len(found) == count:
                return found[::-1]
            if (one := parse(line)) is not None:
                found.append(one)
    return found[::-1]


def followed(log: Path, count: int, *, pause: Callable[[], None]) -> Iterator[AccessLine]:
    """The newest `count` requests, then each new one, forever; `pause` waits between two reads.

    The file is emptied when it is rotated, and may not exist yet.
    """
    position = size_of(log)
    yield from newest(log, count)
    while True:
        lines, position = lines_since(log, position)
        yield from filter(None, map(parse, lines))
        pause()


def lines_since(log: Path, position: int) -> tuple[list[str], int]:
    """The complete lines after that position, and the position after them.

    A file shorter than the position was started anew. A missing file has no lines: the next request creates it.
    """
    try:
        with log.open("rb") as file:
            position = position if file.seek(0, 2) >= position else 0
            file.seek(position)
            whole, newline, _ = file.read().rpartition(b"\n")
    except FileNotFoundError:
        return [], 0
    lines = whole.decode("utf-8", "replace").split("\n") if newline else []
    return lines, position + len(whole) + len(newline)


def size_of(log: Path) -> int:
    """The log's size; 0 if it does not exist."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def _backwards(path: Path) -> Iterator[str]:
    """A file's lines from its end; none if it does not exist or was just renamed."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        position, rest = file.seek(0, 2), b""
        while position > 0:
            size = min(_BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            first, *lines = (file.read(size) + rest).split(b"\n")
            for line in reversed(lines):
                yield line.decode("utf-8", "replace")
            rest = first
        yield rest.decode("utf-8", "replace")
