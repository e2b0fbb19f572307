"""Zips whose bytes depend on nothing but names, contents and the executable bit; and the names that they may contain.

Every entry has one date (the format's first), one origin (Unix), mode 0644 or 0755 and is stored, not deflated: Python
uses whichever zlib it was built with, and zlib and zlib-ng give different bytes for the same file at the same level
(docs/decisions/artifacts.md). The caller decides the order.

A name is relative, with `/` between its parts, and unpacks below its folder on every system. This is checked when a
name comes in (a walk, a generated file) and again when a zip is unpacked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, BinaryIO

import msgspec

from hitless.artifact.model import UNPACKED_LIMIT_BYTES
from hitless.errors import BuildError, EngineError

_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_CHUNK_BYTES = 1 << 20


class ZipMember(msgspec.Struct, frozen=True):
    """A file for a zip: its name there; `source`: its bytes or their path; `executable`: for its owner."""

    name: str
    source: Path | bytes
    executable: bool = False


def write(target: Path, members: Iterable[ZipMember], *, prefix: Path | None = None) -> int:
    """Write `members` in their order into a new zip, after those of the zip `prefix`, and put it on disk.

    Returns the bytes of all files, unpacked. Raises BuildError for a file that cannot be read or goes over Lambda's
    limit; OSError if `target` cannot be written.
    """
    if prefix is not None:
        shutil.copyfile(prefix, target)
    with zipfile.ZipFile(target, "x" if prefix is None else "a", zipfile.ZIP_STORED) as archive:
        total = sum(info.file_size for info in archive.infolist())
        for member in members:
            total += _add(archive, member)
            _check_limit(total, archive)
    with target.open("rb") as written:
        os.fsync(written.fileno())
    return total


def unpacked(package: Path, into: Path) -> list[ZipMember]:
    """The files of a zip that somebody else made, unpacked into the new folder `into`, sorted by name.

    Raises BuildError for what cannot be part of an artifact: links, unsafe names, too many bytes, a damaged zip.
    """
    into.mkdir()
    found: dict[str, ZipMember] = {}
    try:
        with zipfile.ZipFile(package) as archive:
            _check_limit(sum(info.file_size for info in archive.infolist()), archive)  # which bound what is read
            for number, info in enumerate(entries_of(archive)):
                name, mode = info.filename, info.external_attr >> 16
                why = "is in the zip twice" if name in found else why_unsafe(name)
                if why or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                    raise BuildError(
                        f"{shown(name)}: the name {why or 'is that of a link or device'}", hint="make the zip again"
                    )
                with archive.open(info) as source, (into / str(number)).open("xb") as out:
                    shutil.copyfileobj(source, out, _CHUNK_BYTES)
                found[name] = ZipMember(name, into / str(number), bool(mode & stat.S_IXUSR))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BuildError(f"the zip cannot be read: {error}", hint="make the zip again, without a password") from error
    return [found[name] for name in sorted(found)]


def digest_of(path: Path) -> str:
    """`sha256:` and the hexadecimal SHA-256 of the file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def entries_of(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of a zip, in its own order."""
    return [info for info in archive.infolist() if not info.is_dir()]


def extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Write one entry to `target`, a new file, read-only. Raises EngineError if its CRC is wrong."""
    try:
        with archive.open(info) as source, target.open("xb") as out:
            shutil.copyfileobj(source, out, _CHUNK_BYTES)
            os.fchmod(out.fileno(), 0o555 if (info.external_attr >> 16) & stat.S_IXUSR else 0o444)
    except (zipfile.BadZipFile, EOFError) as error:
        raise EngineError(f"the artifact is damaged at {shown(info.filename)}: {error}", hint="deploy again") from error


def _add(archive: zipfile.ZipFile, member: ZipMember) -> int:
    info = zipfile.ZipInfo(member.name, _DATE)
    info.create_system = _UNIX
    info.external_attr = (stat.S_IFREG | (0o755 if member.executable else 0o644)) << 16
    if isinstance(member.source, bytes):
        archive.writestr(info, member.source)
        return len(member.source)
    try:
        source = member.source.open("rb")
    except OSError as error:
        raise BuildError(
            f"{member.name}: the file cannot be read: {error.strerror}",
            hint="fix its permissions, or exclude it with package.patterns",
        ) from error
    with source, archive.open(info, "w") as out:
        return _copied(member.name, source, out)


def _copied(name: str, source: BinaryIO, out: IO[bytes]) -> int:
    copied = 0
    while True:
        try:
            chunk = source.read(_CHUNK_BYTES)
        except OSError as error:
            raise BuildError(f"{name}: reading the file failed: {error.strerror}", hint="check its disk") from error
        if not chunk:
            return copied
        out.write(chunk)
        copied += len(chunk)
        if copied > UNPACKED_LIMIT_BYTES:
            return copied


def _check_limit(total: int, archive: zipfile.ZipFile) -> None:
    if total <= UNPACKED_LIMIT_BYTES:
        return
    largest = sorted(archive.infolist(), key=lambda info: info.file_size, reverse=True)[:3]
    names = ", ".join(f"{shown(info.filename)} ({info.file_size / 1e6:.1f} MB)" for info in largest)
    raise BuildError(
        f"the package unpacks to more than Lambda's limit of {UNPACKED_LIMIT_BYTES:,} bytes",
        hint=f"with package.patterns, exclude what the functions do not need; the largest so far: {names}",
    )


LONGEST_PART_BYTES = 255


def why_unsafe(name: str) -> str | None:
    """Why this name is not allowed in an artifact; None if it is."""
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8"
    if not name or name.startswith("/"):
        return "is not a relative path"
    if any(byte < 0x20 or byte == 0x7F for byte in encoded) or "\\" in name:
        return "contains a control character or a backslash"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty part, or one that is . or .."
    if any(len(part.encode("utf-8")) > LONGEST_PART_BYTES for part in parts):
        return f"has a part longer than {LONGEST_PART_BYTES} bytes"
    return None


def shown(name: str) -> str:
    """The name for a message, with unprintable characters escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8") if name.isprintable() else ascii(name)


def case_collisions(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ by case only: they are one file on a file system that ignores case."""
    seen: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    for name in sorted(names):
        first = seen.setdefault(name.casefold(), name)
        if first != name:
            pairs.append((first, name))
    return pairs


def folders_of(names: Iterable[str]) -> list[str]:
    """All folders of these names, parents first."""
    folders: set[str] = set()
    for name in names:
        parent = name.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    return sorted(folders)
