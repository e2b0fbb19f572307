"""Compares what was observed with what a case expects, and says in words what differs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tests.conformance.table import Expected

_SHOWN: Final = 300


class _Absent:
    """What a key or header that is not there has for a value: equal to no value of a case."""

    def __repr__(self) -> str:
        return "(absent)"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Observed:
    """What came back: a response with its log, or the result of an invocation with its log."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    result: Any = None
    log: tuple[str, ...] = ()
    error: str = ""
    """Why there is no response at all."""

    def values(self, name: str) -> list[str]:
        """The values of a response header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass(frozen=True, slots=True)
class Places:
    """What `${name}` in an expected text stands for: the base path of the URL, the host and so on."""

    names: Mapping[str, str] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """The text with its placeholders filled in."""
        for name, value in self.names.items():
            text = text.replace(f"${{{name}}}", value)
        return text


def differences(expected: Expected, observed: Observed, places: Places) -> list[str]:
    """What is not as expected; empty if all is."""
    if observed.error:
        return [observed.error]
    return list(_differences(expected, observed, places))


def _differences(expected: Expected, observed: Observed, places: Places) -> Iterator[str]:
    if expected.status is not None:
        yield from _compare("status", expected.status, observed.status, places)
    for name, value in expected.headers.items():
        values: Any = observed.values(name)
        if not isinstance(value, list):
            values = ABSENT if not values else values[0] if len(values) == 1 else values
        yield from _compare(f"header {name}", value, values, places)
    names = [name for name, _ in observed.headers]
    for spelt in expected.spelt:
        if spelt not in names:
            yield f"header {spelt}: not among {names}"
    if expected.body is not msgspec.UNSET:
        yield from _compare("body", expected.body, observed.body.decode("utf-8", "backslashreplace"), places)
    if expected.json is not msgspec.UNSET:
        yield from _compare("json", expected.json, _json(observed.body), places)
    if expected.result is not msgspec.UNSET:
        yield from _compare("result", expected.result, observed.result, places)
    for pattern in expected.log:
        if not any(re.search(places.fill(pattern), line) for line in observed.log):
            yield f"log: no line matches {pattern!r} in {_short(observed.log)}"
    for pattern in expected.no_log:
        found = [line for line in observed.log if re.search(places.fill(pattern), line)]
        if found:
            yield f"log: {pattern!r} matches {_short(found)}"


def _compare(where: str, expected: Any, found: Any, places: Places) -> Iterator[str]:
    """Objects are compared by the expected keys, anything else as a whole."""
    match expected:
        case {"$regex": str(pattern)}:
            if not isinstance(found, str) or not re.fullmatch(places.fill(pattern), found, re.DOTALL):
                yield f"{where}: expected a match of {pattern!r}, got {_short(found)}"
        case {"$absent": True}:
            if found is not ABSENT:
                yield f"{where}: expected none, got {_short(found)}"
        case {"$any": True}:
            if found is ABSENT:
                yield f"{where}: expected a value, got none"
        case {"$not": unwanted}:
            if found == unwanted:
                yield f"{where}: got {_short(found)}"
        case {"$keys": list(keys)}:
            if not isinstance(found, dict) or sorted(found) != sorted(keys):
                yield f"{where}: expected the keys {sorted(keys)}, got {_short(found)}"
        case dict():
            if not isinstance(found, dict):
                yield f"{where}: expected an object, got {_short(found)}"
                return
            for key, value in expected.items():
                yield from _compare(f"{where}.{key}", value, found.get(key, ABSENT), places)
        case list():
            if not isinstance(found, list) or len(found) != len(expected):
                yield f"{where}: expected {_short(expected)}, got {_short(found)}"
                return
            for index, value in enumerate(expected):
                yield from _compare(f"{where}[{index}]", value, found[index], places)
        case _:
            wanted = places.fill(expected) if isinstance(expected, str) else expected
            if wanted != found or isinstance(wanted, bool) != isinstance(found, bool):
                yield f"{where}: expected {_short(wanted)}, got {_short(found)}"


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return f"(not JSON) {body[:_SHOWN]!r}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
