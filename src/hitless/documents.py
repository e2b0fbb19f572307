"""Documents: what is stored, sent or shown. Each is a frozen `msgspec.Struct` (or a frozen dataclass) whose fields are
its JSON keys, and it is checked once, where it enters the program.

A key that the type does not know is ignored, so that a document of a later version can be read. A field that was added
later has a default, so that a document of an earlier version can be read. A class of our own that extends `str` is
written as its text and read by calling it with that text.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from hitless.errors import EngineError, HitlessError

T = TypeVar("T")


class Discreet(msgspec.Struct, frozen=True):
    """A structure that keeps the fields in `HIDDEN` out of its `repr`, because they may be secrets."""

    HIDDEN: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in self.HIDDEN)
        return f"{type(self).__name__}({', '.join(shown)})"


def decode(raw: bytes | str, kind: type[T], source: str, *, error: type[HitlessError] = EngineError) -> T:
    """The document in a JSON text. `source` names the file, row or sender for the message of the error.

    Raises `error` if the text is not JSON, or not of that type; the message has the path of the wrong field.
    """
    try:
        return msgspec.json.decode(raw, type=kind, dec_hook=_from_text)
    except msgspec.DecodeError as problem:
        raise error(f"{source}: {problem}") from problem


def convert(value: object, kind: type[T], source: str, *, error: type[HitlessError] = EngineError) -> T:
    """The document in what a JSON or YAML parser returned. Raises `error` as `decode` does."""
    try:
        return msgspec.convert(value, type=kind, dec_hook=_from_text)
    except msgspec.ValidationError as problem:
        raise error(f"{source}: {problem}") from problem


def to_plain(document: object) -> Any:
    """The document as a JSON parser returns it, keys in the order of the fields."""
    # `to_builtins` would leave tuples as they are
    return msgspec.json.decode(msgspec.json.encode(document, enc_hook=_text_of))


def to_text(document: object) -> str:
    """The document as one line of JSON."""
    return msgspec.json.encode(document, enc_hook=_text_of).decode()


def replace_file(file: Path, content: str | bytes, *, mode: int = 0o666, durable: bool = False) -> None:
    """Write the file by one rename, so that others read the old content or the new one. Raises OSError.

    A `durable` file has the new content after a power cut, too.
    """
    fresh = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        fresh.touch(mode=mode)
        with fresh.open("wb") as written:
            written.write(content.encode() if isinstance(content, str) else content)
            if durable:
                written.flush()
                os.fsync(written.fileno())
        fresh.replace(file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        error.filename = str(file)  # a full disk's error has none
        raise
    if durable:
        sync_folder(file.parent)


def sync_folder(folder: Path, sync: Callable[[int], None] = os.fsync) -> None:
    """Make the names in a folder survive a power cut. Raises OSError."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        sync(opened)
    finally:
        os.close(opened)


def _text_of(value: object) -> str:
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _from_text(kind: type[T], value: object) -> T:
    if issubclass(kind, str):
        return kind(value)
    raise TypeError(f"{kind.__name__} has no form in JSON")
