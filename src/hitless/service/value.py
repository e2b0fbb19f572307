"""A value of a service file that knows its place, so that every error and notice names file, line and key path.

A file is read as a tree of `Value`s. The accessors (`text()`, `integer()`, …) return its data, and raise
`ServiceFileError` with the place. A value that came by a variable has the place of its reference, and remembers where
it was written. Data stays out of `repr` and, if it came from elsewhere, out of messages, because it may be a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from hitless.documents import Discreet
from hitless.errors import ServiceFileError

T = TypeVar("T")
D = TypeVar("D")
Scalar = str | int | float | bool | None

JAVASCRIPT = "a JavaScript file"
"""The `kind` of an `Unresolved` that a script would compute."""
SEALED = re.compile(r"\{hitless-secret:([\w./-]+):([\w=-]+)\}", re.ASCII)
"""A secret in a text, as its name and its encrypted value: `hitless.store.secrets`."""


class FilePlace(msgspec.Struct, frozen=True):
    """Line and column count from 1; `file` is relative to the service's folder."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Unresolved(msgspec.Struct, frozen=True):
    """A value that only AWS (or a plugin) knows: the reference as it was written, and its source's kind.

    Or a value that cannot be resolved: `error` says why, and is raised when the value is read.
    """

    reference: str
    kind: str
    error: ServiceFileError | None = None


class Value(Discreet, frozen=True):
    """`path` is the key path (`functions.api.events[0].http`); `raw` a plain scalar as it was written; `tag` `!Ref`."""

    HIDDEN = ("data", "raw")
    data: Scalar | tuple[Value, ...] | Mapping[str, Value] | Unresolved
    place: FilePlace
    path: str = ""
    origin: FilePlace | None = None
    tag: str = ""
    raw: str = ""

    def fault(self, message: str, hint: str = "") -> ServiceFileError:
        """An error about this value: place, key path, message."""
        where = f"{self.place}: {self.path}: " if self.path else f"{self.place}: "
        written = f" (written in {self.origin})" if self.origin and str(self.origin) != str(self.place) else ""
        place = {"file": self.place.file, "line": self.place.line, "column": self.place.column, "path": self.path}
        return ServiceFileError(f"{where}{message}{written}", hint=hint, details=place)

    def mapping(self) -> Mapping[str, Value]:
        """The entries of a map, in the file's order; null is an empty map."""
        match self._known():
            case Mapping() as entries:
                return entries
            case None:
                return {}
            case _:
                raise self._wrong("a map")

    def items(self) -> tuple[Value, ...]:
        """The items of a list; null is an empty list."""
        match self._known():
            case tuple() as items:
                return items
            case None:
                return ()
            case _:
                raise self._wrong("a list")

    def listed(self) -> tuple[Value, ...]:
        """The items of a list, or the one value in its place."""
        return self.items() if isinstance(self.data, tuple) else (self,)

    def get(self, key: str, *path: str) -> Value | None:
        """The entry of a map, or of the maps in it along `path`; None if it is missing or null."""
        found = self.mapping().get(key)
        if found is None or found.data is None:
            return None
        return found.get(*path) if path else found

    def optional(self, key: str, read: Callable[[Value], T], default: D) -> T | D:
        """What `read` returns for an entry of a map; the default if the entry is missing or null."""
        found = self.get(key)
        return default if found is None else read(found)

    def fields(self, readers: Mapping[str, Callable[[Value], Any]]) -> dict[str, Any]:
        """What the readers return for the entries that the map has. ServiceFileError for a key without one."""
        check_known(self, tuple(readers))
        return {key: read(found) for key, read in readers.items() if (found := self.get(key)) is not None}

    def text(self) -> str:
        """A string; numbers and booleans are converted as in Serverless Framework."""
        match self._known():
            case str() as text:
                return text
            case bool() | int() | float() as scalar:
                return scalar_text(scalar)
            case _:
                raise self._wrong("a string")

    def sealed_text(self) -> str:
        """As `text()`, of a value that may have secrets in it; they stay encrypted."""
        return self.data if isinstance(self.data, str) and not self.tag else self.text()

    def integer(self, low: int, high: int) -> int:
        """A whole number in that range; digits in a string count too, since `${env:}` gives strings."""
        data = self._known()
        if isinstance(data, str) and data.isascii() and data.strip().removeprefix("-").isdecimal() and len(data) < 20:
            data = int(data)
        if isinstance(data, float) and data.is_integer():
            data = int(data)
        if isinstance(data, bool) or not isinstance(data, int) or not low <= data <= high:
            raise self._wrong(f"a whole number from {low} to {high}")
        return data

    def number(self, low: float, high: float) -> float:
        """A finite number in that range."""
        data = self._known()
        try:
            found = math.nan if isinstance(data, bool) or data is None else float(data)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            found = math.nan
        if not low <= found <= high:
            raise self._wrong(f"a number from {low:g} to {high:g}")
        return found

    def flag(self) -> bool:
        """A boolean; the strings "true" and "false" count too."""
        match self._known():
            case bool() as flag:
                return flag
            case "true":
                return True
            case "false":
                return False
            case _:
                raise self._wrong("true or false")

    def choice(self, choices: Iterable[str]) -> str:
        """One of the words given."""
        allowed = list(choices)
        found = self.text()
        if found not in allowed:
            hint = did_you_mean(found, allowed) or f"write {' or '.join(allowed)}"
            raise self.fault(f"{self.shown()} is not one of {', '.join(allowed)}", hint)
        return found

    def walk(self) -> Iterator[Value]:
        """This value and all values in it."""
        yield self
        entries = tuple(self.data.values()) if isinstance(self.data, Mapping) else self.data
        for entry in entries if isinstance(entries, tuple) else ():
            yield from entry.walk()

    def plain(self) -> Any:
        """The data without places, as JSON would hold it."""
        match self._known():
            case Mapping() as entries:
                return {key: entry.plain() for key, entry in entries.items()}
            case tuple() as items:
                return [item.plain() for item in items]
            case scalar:
                return scalar

    def shown(self) -> str:
        """The data for a message: only text that the file has at this place is repeated."""
        if self.origin or not isinstance(self.data, str | int | float):
            return "the value"
        return repr(self.data) if isinstance(self.data, str) else scalar_text(self.data)

    def intrinsic(self) -> str | None:
        """The name of the CloudFormation function that this is (`!Ref`, `Fn::GetAtt`), or None."""
        if self.tag:
            return self.tag
        if isinstance(self.data, Mapping) and len(self.data) == 1:
            name = next(iter(self.data))
            return name if name == "Ref" or name.startswith("Fn::") else None
        return None

    def moved(self, at: Value, path: str | None = None) -> Value:
        """The same tree as the value of a reference that stands at `at`."""
        here = at.path if path is None else path
        data = self.data
        if isinstance(data, Mapping):
            data = {key: entry.moved(at, child_path(here, key)) for key, entry in data.items()}
        elif isinstance(data, tuple):
            data = tuple(item.moved(at, f"{here}[{index}]") for index, item in enumerate(data))
        return replace(self, data=data, path=here, place=at.place, origin=self.origin or self.place)

    def _known(self) -> Scalar | tuple[Value, ...] | Mapping[str, Value]:
        if isinstance(self.data, Unresolved):
            if self.data.error is not None:
                raise self.data.error
            name, kind = self.data.reference[2:-1], self.data.kind
            why, first = f"{kind} is not available here", ""
            if name.startswith("ssm:"):
                why = "the stage has no secret of this name"
                first = f"store it with `hitless secrets set {name[4:].removesuffix('~true')}`, "
            elif kind == JAVASCRIPT:
                why, first = f"{kind} is not run here", "move its values to a YAML or JSON file, "
            raise self.fault(
                f"{self.data.reference} cannot be resolved here: {why}",
                f"{first}pass --param '{name}=VALUE', put an available source before it (${{env:NAME, …}}), "
                "or give it a default (${…, 'value'})",
            )
        if self.tag:
            raise self.fault(f"{self.tag} is resolved by CloudFormation and has no value here", "write the value")
        if isinstance(self.data, str) and (secret := SEALED.search(self.data)):
            raise self.fault(f"the secret {secret[1]} is used here", "use it in the environment of functions only")
        return self.data

    def _wrong(self, wanted: str) -> ServiceFileError:
        found = {dict: "a map", tuple: "a list", str: "a string", bool: "a boolean", type(None): "empty"}
        kind = found.get(type(self.data), "a number")
        hint = {"a list": "write [FIRST, SECOND], or one '- ITEM' per line", "a map": "write KEY: VALUE lines below it"}
        shown = kind if self.shown() == "the value" else self.shown()
        return self.fault(f"must be {wanted}, not {shown}", hint.get(wanted, f"write {wanted}"))


def child_path(parent: str, key: str) -> str:
    """`functions` and `api` → `functions.api`."""
    return f"{parent}.{key}" if parent else key


def did_you_mean(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """A hint that names the nearest known word, or nothing if none is as alike (0 to 1)."""
    near = get_close_matches(word, list(known), n=1, cutoff=likeness)
    return f"did you mean {near[0]}?" if near else ""


def check_known(value: Value, known: Sequence[str]) -> None:
    """ServiceFileError on a map's first key that is not one of these."""
    for name, entry in value.mapping().items():
        if name not in known:
            hint = did_you_mean(name, known) or f"known here: {', '.join(known)}"
            raise entry.fault("is not a setting", hint)


def from_plain(data: Any, place: FilePlace, path: str = "") -> Value:
    """A tree of JSON's types, all of it standing at one place."""
    if isinstance(data, dict):
        entries = {str(key): from_plain(entry, place, child_path(path, str(key))) for key, entry in data.items()}
        return Value(entries, place, path)
    if isinstance(data, list):
        return Value(tuple(from_plain(item, place, f"{path}[{i}]") for i, item in enumerate(data)), place, path)
    return Value(data, place, path)


def scalar_text(scalar: str | int | float | bool | None) -> str:
    """A scalar as JavaScript prints it, for that is what reaches AWS: 1.0 is `1`, true is `true`, 1.10 is `1.1`."""
    if isinstance(scalar, str):
        return scalar
    if scalar is None or isinstance(scalar, bool):
        return {None: "null", True: "true", False: "false"}[scalar]
    if isinstance(scalar, int) and abs(scalar) <= 2**53:
        return str(scalar)
    try:
        number = float(scalar)
    except OverflowError:
        number = math.inf if scalar > 0 else -math.inf
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if number == 0:
        return "0"
    if 1e-6 <= abs(number) < 1e21:
        text = format(Decimal(repr(number)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = repr(number).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


class Notices(msgspec.Struct):
    """Collects while a file is read. Equal causes share a line, so that thirty routes with `cors` are one sentence."""

    values: dict[str, dict[str, Value]] = msgspec.field(default_factory=dict)
    """The values by cause, then by place. The cause of a noticed key is its path in `hitless.service.keys`."""
    _first: dict[str, str] = msgspec.field(default_factory=dict)

    def add(self, cause: str, value: Value, sentence: str) -> None:
        """`sentence` says what is different here; it never repeats the value, which may be a secret."""
        where = f"{value.place}: {value.path}"
        self._first.setdefault(cause, f"{where}: {sentence}")
        self.values.setdefault(cause, {})[where] = value

    def sentences(self) -> tuple[str, ...]:
        """`serverless.yml:12: functions.api.layers: …`, in the order of discovery."""
        more = ((line, len(self.values[cause]) - 1) for cause, line in self._first.items())
        places = {0: "", 1: " (and in one more place)"}
        return tuple(line + places.get(count, f" (and in {count} more places)") for line, count in more)
