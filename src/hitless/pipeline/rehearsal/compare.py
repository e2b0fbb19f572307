"""Compares the responses of two releases: statuses, and the shape of JSON, field by field. Pure.

Several samples of each show what varies by itself (an optional field, a value of two types). A field that is gone or
has another type breaks a client; a new one does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MAX_PATHS = 5000
ROOT = "the body"
_NUMBER = "a number"
_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: _NUMBER, float: _NUMBER}
"""The types of `json.loads`; the one that is left is null."""


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


Shape = dict[str, set[str]]
"""Types of values by path."""


def differences(live: Iterable[SampledResponse], candidate: Iterable[SampledResponse]) -> list[Difference]:
    """How the candidate's responses to one request differ from live's, the worst first."""
    old, new = list(live), list(candidate)
    statuses_before, statuses_now = ({sample.status for sample in side} for side in (old, new))
    if not statuses_now <= statuses_before:
        return [Difference("the status", f"was {_words(statuses_before)}, is {_words(statuses_now)}", True)]
    if any(sample.is_json for sample in old) and not all(sample.is_json for sample in new):
        return [Difference(ROOT, "was JSON, is not", True)]
    before, now = _shapes(old), _shapes(new)
    types_before, types_now = _union(before), _union(now)
    gone = _topmost(path for path in _common(before) - _common(now) if _has_parent(path, types_now))
    changed = [
        Difference(path or ROOT, f"was {_words(kinds)}, is {_words(types_now[path])}", kinds != {"null"})
        for path, kinds in types_before.items()
        if path in types_now and not types_now[path] <= kinds
    ]
    changed_at = [one.where for one in changed]
    added = _topmost(path for path in types_now if path not in types_before)
    return [
        *(Difference(path or ROOT, "is gone", True) for path in gone),
        *changed,
        *(Difference(path or ROOT, "is new", False) for path in added if not _is_below(path, changed_at)),
    ]


def _shapes(samples: list[SampledResponse]) -> list[Shape]:
    shapes: list[Shape] = []
    for sample in samples:
        if sample.is_json:
            shapes.append({})
            _walk(sample.body, "", shapes[-1])
    return shapes


def _union(shapes: list[Shape]) -> Shape:
    return {path: {kind for one in shapes for kind in one.get(path, ())} for shape in shapes for path in shape}


def _common(shapes: list[Shape]) -> set[str]:
    """Paths that each sample has."""
    return set.intersection(*map(set, shapes)) if shapes else set()


def _walk(value: Any, path: str, found: Shape) -> None:
    if len(found) >= MAX_PATHS:
        return
    found.setdefault(path, set()).add(_KINDS.get(type(value), "null"))
    if isinstance(value, dict):
        for key, child in value.items():
            _walk(child, f"{path}.{key}" if path else key, found)
    elif isinstance(value, list):
        for child in value:
            _walk(child, f"{path}[]", found)


def _has_parent(path: str, now: Shape) -> bool:
    """Whether the object of the field is still there: a field of an item is not gone if the list is empty now."""
    if path.endswith("[]"):
        return False
    parent = path.rpartition(".")[0]
    return parent in now if parent else True


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
