"""Readers of settings: each is a function of a `Value`, and the JSON Schema of what the function accepts.

So the schema that editors use (`hitless.service.schema`) and the validation have one source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from hitless.service.value import Value

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Word = TypeVar("Word", bound=StrEnum)
Schema = dict[str, Any]
"""A part of a JSON Schema."""


class Reader(msgspec.Struct, Generic[T_co], frozen=True):
    """Reads a value; `schema` describes for editors what it accepts. It never refuses what the reader accepts."""

    read: Callable[[Value], T_co]
    schema: Schema

    def __call__(self, value: Value) -> T_co:
        return self.read(value)


Readers = Mapping[str, Reader[Any]]


def reads(schema: Schema) -> Callable[[Callable[[Value], T]], Reader[T]]:
    """Decorates a function that reads a value."""
    return lambda read: Reader(read, schema)


def matching(pattern: str) -> Schema:
    """The schema of a text that matches as a whole. The pattern is one of both Python and JavaScript."""
    unnamed = re.sub(r"\?P<\w+>", "", pattern)
    return {"type": ["string", "number", "boolean"], "pattern": f"^(?:{unnamed})$"}


def map_of(readers: Readers, *required: str) -> Schema:
    """The schema of a map with these keys and no other."""
    properties = {key: or_variable(reader.schema) for key, reader in readers.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": list(required)}


def list_of(schema: Schema) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": or_variable(schema)}


def any_map(schema: Schema) -> Schema:
    """The schema of a map with any keys."""
    return {"type": "object", "additionalProperties": or_variable(schema)}


def or_variable(schema: Schema) -> Schema:
    """The schema, or what stands in for a value: nothing, or a variable."""
    return {"anyOf": [schema, {"$ref": "#/$defs/variable"}]} if schema else {}


def whole(low: int, high: int) -> Reader[int]:
    """Reads a whole number in that range."""
    schema = {"type": ["integer", "string"], "minimum": low, "maximum": high, "pattern": "^ *-?[0-9]+ *$"}
    return Reader(lambda value: value.integer(low, high), schema)


def number(low: float, high: float) -> Reader[float]:
    """Reads a finite number in that range."""
    schema = {"type": ["number", "string"], "minimum": low, "maximum": high, "pattern": "^[-+0-9.eE_ ]+$"}
    return Reader(lambda value: value.number(low, high), schema)


def word(words: type[Word]) -> Reader[Word]:
    """Reads a word of an enumeration."""
    return Reader(lambda value: words(value.choice(list(words))), {"enum": list(words)})


def struct(kind: Callable[..., T], readers: Readers) -> Reader[T]:
    """Reads the entries of a map as the fields of that class."""
    return Reader(lambda value: kind(**value.fields(readers)), map_of(readers))


def parsed(parse: Callable[[str], T], wanted: str, hint: str, pattern: str = r"[\s\S]*") -> Reader[T]:
    """Reads a text by a function that raises ValueError."""

    def read(value: Value) -> T:
        try:
            return parse(value.text())
        except ValueError as error:
            message = str(error) if value.origin is None else f"the value is not {wanted}"
            raise value.fault(message, hint) from error

    return Reader(read, matching(pattern))


TEXT = Reader(Value.text, {"type": ["string", "number", "boolean"]})
FLAG = Reader(Value.flag, {"enum": [True, False, "true", "false"]})
