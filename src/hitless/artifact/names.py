"""Which names may stand in an artifact.

A name is relative, with `/` between its parts, and unpacks below its folder on every system: this is checked where a
name comes in (a walk, a generated file) and again where a zip is unpacked. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_PART_BYTES = 255


def flaw(name: str) -> str | None:
    """Why this name cannot stand in an artifact, in words; None for a good name."""
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8"
    if not name or name.startswith("/"):
        return "is not a relative path"
    if any(byte < 0x20 or byte == 0x7F for byte in encoded) or "\\" in name:
        return "holds a control character or a backslash"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of its folder, or holds an empty part"
    if any(len(part.encode("utf-8")) > LONGEST_PART_BYTES for part in parts):
        return f"has a part longer than {LONGEST_PART_BYTES} bytes"
    return None


def shown(name: str) -> str:
    """The name for a message: what cannot be printed is escaped."""
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
    """Every folder that the names need, parents first."""
    folders: set[str] = set()
    for name in names:
        parent = name.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    return sorted(folders)
