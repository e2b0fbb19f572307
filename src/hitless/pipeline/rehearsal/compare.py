"""Compares the responses of two releases: statuses, and the shape of JSON, field by field. Pure.

Several samples of each show what varies by itself (an optional field, a value of two types). A field that is gone or
has another type breaks a client; a new one does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_PATHS = 5000
ROOT = "the body"


@dataclass(frozen=True, slots=True)
class SampledResponse:
    """One response. `body` is None if it is not JSON; `status` is 0 if there was no response."""

    status: int
    body: Any = None
    is_json: bool = False

    @property
    def was_heard(self) -> bool:
        """Whether a worker responded: with none free there is no response, a 503 or a 504."""
        return self.status not in (0, 503, 504)

    @classmethod
    def of(cls, status: int, content: bytes) -> SampledResponse:
        try:
            return cls(status, json.loads(content), True)
        except (ValueError, RecursionError):
            return cls(status)


@dataclass(frozen=True, slots=True)
class Difference:
    """A change at one place; `breaks` says whether a client that relied on it breaks."""

    where: str
    what: str
    breaks: bool

    def __str__(self) -> str:
        return f"{self.where} {self.what}"


@dataclass(slots=True)
class Shape:
    """Types by path over several samples; `always` are the paths that each sample has."""

    types: dict[str, set[str]] = field(default_factory=dict)
    always: set[str] | None = None

    def add(self, body: Any) -> None:
        found: dict[str, set[str]] = {}
        _walk(body, "", found)
        for path, kinds in found.items():
            self.types.setdefault(path, set()).update(kinds)
        self.always = set(found) if self.always is None else self.always & set(found)


def differences(live: Iterable[SampledResponse], candidate: Iterable[SampledResponse]) -> list[Difference]:
    """How the candidate's responses to one request differ from live's, the worst first."""
    old, new = list(live), list(candidate)
    statuses_before, statuses_now = ({sample.status for sample in side} for side in (old, new))
    if not statuses_now <= statuses_before:
        return [Difference("the status", f"was {_words(statuses_before)}, is {_words(statuses_now)}", True)]
    if any(sample.is_json for sample in old) and not all(sample.is_json for sample in new):
        return [Difference(ROOT, "was JSON, is not", True)]
    before, now = _shape(old), _shape(new)
    gone = _topmost(path for path in before.always or () if path not in (now.always or ()) and _parent(path, now))
    changed = [
        Difference(path or ROOT, f"was {_words(kinds)}, is {_words(now.types[path])}", kinds != {"null"})
        for path, kinds in before.types.items()
        if path in now.types and not now.types[path] <= kinds
    ]
    changed_at = [one.where for one in changed]
    added = _topmost(path for path in now.types if path not in before.types)
    return [
        *(Difference(path or ROOT, "is gone", True) for path in gone),
        *changed,
        *(Difference(path or ROOT, "is new", False) for path in added if not _is_below(path, changed_at)),
    ]


def _shape(samples: list[SampledResponse]) -> Shape:
    shape = Shape()
    for sample in samples:
        if sample.is_json:
            shape.add(sample.body)
    return shape


def _walk(value: Any, path: str, found: dict[str, set[str]]) -> None:
    if len(found) >= MAX_PATHS:
        return
    match value:
        case Mapping():
            found.setdefault(path, set()).add("an object")
            for key, child in value.items():
                _walk(child, f"{path}.{key}" if path else str(key), found)
        case list():
            found.setdefault(path, set()).add("a list")
            for child in value:
                _walk(child, f"{path}[]", found)
        case _:
            found.setdefault(path, set()).add(_kind(value))


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case _:
            return "a string"


def _parent(path: str, now: Shape) -> bool:
    """Whether the object of the field is still there: a field of an item is not gone if the list is empty now."""
    if path.endswith("[]"):
        return False
    parent = path.rpartition(".")[0]
    return parent in now.types if parent else True


def _topmost(paths: Iterable[str]) -> list[str]:
    """Without paths below another of them."""
    kept: list[str] = []
    for path in sorted(paths, key=lambda one: (len(one), one)):
        if not _is_below(path, kept):
            kept.append(path)
    return kept


def _is_below(path: str, others: Iterable[str]) -> bool:
    return any(path.startswith((f"{other}.", f"{other}[]")) for other in others)


def _words(values: Iterable[object]) -> str:
    return " or ".join(sorted(str(value) for value in values)) or "nothing"
