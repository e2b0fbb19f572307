"""Reads untyped input (a JSON object, the query) into types, field by field; whatever is wrong is an InvalidRequest.

A parser takes the raw value and returns the typed one, or raises InvalidRequest with the problem; `Fields` and `many`
add the field's name, so that a client reads `participants[1].zone: …`. Written by hand because Pydantic would double
the import time of each function, and add 10 MiB to its memory and native code to its artifact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from typing import TypeVar, cast
from zoneinfo import ZoneInfo

from worldclock import zones
from worldclock.errors import InvalidRequest

T = TypeVar("T")
Parser = Callable[[object], T]

_YEAR_1800_TO_2499 = r"(1[89]|2[0-4])\d\d"
_LEAP_YEAR = r"((1[89]|2[0-4])(0[48]|[2468][048]|[13579][26])|2000|2400)"
_DAY_OF_MONTH = r"((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))"
_HOUR = r"([01]\d|2[0-3]):[0-5]\d"
DAY = rf"({_YEAR_1800_TO_2499}-{_DAY_OF_MONTH}|{_LEAP_YEAR}-02-29)"
INSTANT = rf"{DAY}T{_HOUR}(:[0-5]\d(\.\d{{1,6}})?)?(Z|[+-]{_HOUR})"
MOMENT = f"{INSTANT}?"
"""As in `openapi.json`. A client's library can generate and check values by these patterns alone."""

# `+` in a query means a space, and clients forget to encode it: `12:00+01:00` arrives as `12:00 01:00`.
_LOST_PLUS = re.compile(r"(T\S+) (\d\d:?\d\d)$")


class Fields:
    """The named values of one object."""

    def __init__(self, values: Mapping[str, object], known: set[str]) -> None:
        """Raises InvalidRequest if there is a field that is not known: a misspelt one must not be swallowed."""
        for name in values:
            if name not in known:
                raise InvalidRequest(f"is not a field; known are {', '.join(sorted(known))}", name)
        self._values = values

    def required(self, name: str, parse: Parser[T]) -> T:
        """The parsed value. Raises InvalidRequest if it is missing or wrong."""
        if name not in self._values:
            raise InvalidRequest("is required", name)
        try:
            return parse(self._values[name])
        except InvalidRequest as invalid:
            raise invalid.inside(name) from None

    def optional(self, name: str, parse: Parser[T], default: T) -> T:
        """The parsed value, or the default if it is missing. Raises InvalidRequest if it is wrong."""
        return self.required(name, parse) if name in self._values else default


def text(raw: object) -> str:
    if not isinstance(raw, str):
        raise InvalidRequest("must be a string")
    return raw


def choice(*allowed: str) -> Parser[str]:
    def parse(raw: object) -> str:
        if raw not in allowed:
            raise InvalidRequest(f"must be one of {', '.join(allowed)}")
        return text(raw)

    return parse


def integer(least: int, most: int) -> Parser[int]:
    def parse(raw: object) -> int:
        whole = isinstance(raw, int) and not isinstance(raw, bool)
        whole = whole or (isinstance(raw, float) and raw.is_integer())  # JSON has one kind of number: 30.0 is 30
        if not whole or not least <= cast(float, raw) <= most:
            raise InvalidRequest(f"must be a whole number from {least} to {most}")
        return int(cast(float, raw))

    return parse


def digits(least: int, most: int) -> Parser[int]:
    """A whole number in a query, where everything is text."""

    def parse(raw: object) -> int:
        is_number = isinstance(raw, str) and re.fullmatch(r"[0-9]{1,9}", raw)
        return integer(least, most)(int(raw) if is_number and isinstance(raw, str) else raw)

    return parse


def many(parse: Parser[T], *, most: int) -> Parser[list[T]]:
    def parse_list(raw: object) -> list[T]:
        if not isinstance(raw, list) or not 1 <= len(raw) <= most:
            raise InvalidRequest(f"must be a list of 1 to {most} items")
        return [_item(parse, index, item) for index, item in enumerate(raw)]

    return parse_list


def _item(parse: Parser[T], index: int, raw: object) -> T:
    try:
        return parse(raw)
    except InvalidRequest as invalid:
        raise invalid.inside(f"[{index}]") from None


def json_object(raw: object) -> Mapping[str, object]:
    if not isinstance(raw, dict):
        raise InvalidRequest("must be a JSON object")
    return raw


def zone(raw: object) -> ZoneInfo:
    name = text(raw)
    if not zones.is_known(name):
        raise InvalidRequest("is not an IANA time zone; GET /zones?q=TEXT finds one")
    return zones.load(name)


def date_time(raw: object) -> datetime:
    """ISO 8601; with an offset it is an instant, without (naive) a time on somebody's clock."""
    moment = _LOST_PLUS.sub(r"\1+\2", text(raw))
    return datetime.fromisoformat(
        _matching(moment, MOMENT, "must be an ISO 8601 time from 1800 to 2499, such as 2026-11-24T12:00:00Z")
    )


def instant(raw: object) -> datetime:
    """ISO 8601 with an offset, as UTC."""
    parsed = date_time(raw)
    if parsed.tzinfo is None:
        raise InvalidRequest("needs an offset, such as the Z of 2026-11-24T12:00:00Z")
    return parsed.astimezone(UTC)


def day(raw: object) -> date:
    return date.fromisoformat(_matching(raw, DAY, "must be a date from 1800 to 2499, such as 2026-11-24"))


def clock_time(raw: object) -> time:
    try:
        return time.fromisoformat(_matching(raw, r"\d\d:\d\d", "must be a time such as 09:00"))
    except ValueError:
        raise InvalidRequest("must be a time from 00:00 to 23:59") from None


def _matching(raw: object, pattern: str, problem: str) -> str:
    if not re.fullmatch(pattern, value := text(raw), re.ASCII):
        raise InvalidRequest(problem)
    return value
