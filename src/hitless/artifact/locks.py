"""uv.lock and poetry.lock as a list of requirements, for a service that has no requirements.txt.

Only what the service itself needs is listed: no development groups, no extras that nobody asks for. Each version is
exact. A package from anywhere but an index is refused, as it is in requirements.txt.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hitless.errors import BuildError

LOCKS = ("uv.lock", "poetry.lock")


def read_lock(folder: Path) -> tuple[str, str] | None:
    """The lock file's name and its content as requirements; None without a lock that can be read so. BuildError."""
    for name in LOCKS:
        path = folder / name
        if not path.is_file() or path.is_symlink():
            continue
        try:
            document = tomllib.loads(path.read_text("utf-8"))
            lines = list(_uv(document) if name == "uv.lock" else _poetry(document))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BuildError(f"{name}: cannot be read: {error!r}", hint="lock the dependencies again") from error
        if lines:
            return name, "".join(f"{line}\n" for line in sorted(lines))
    return None


def _poetry(document: Mapping[str, Any]) -> Iterator[str]:
    """Poetry tells a package's groups since 2.0, and its category until 1.4; a lock of others lists nothing here."""
    for package in document.get("package", ()):
        wanted = "main" in package.get("groups", ()) or package.get("category") == "main"
        if wanted and not package["optional"]:
            _check_source("poetry.lock", package["name"], package.get("source", {}).get("type", "legacy") == "legacy")
            markers = package.get("markers", "")
            yield _line(package, markers if isinstance(markers, str) else markers.get("main", ""))


def _uv(document: Mapping[str, Any]) -> Iterator[str]:
    packages = {package["name"]: package for package in document.get("package", ())}
    if len(packages) < len(document.get("package", ())):
        raise BuildError("uv.lock: locks two versions of one package", hint="run: uv export -o requirements.txt")
    roots = [one for one in packages.values() if one["source"].get("virtual", one["source"].get("editable")) == "."]
    todo = [(edge, "") for root in roots for edge in root.get("dependencies", ())]
    found: dict[str, set[str]] = {}
    done: set[tuple[str, tuple[str, ...], str]] = set()
    while todo:
        edge, above = todo.pop()
        name, extras, marker = edge["name"], tuple(edge.get("extra", ())), edge.get("marker", above)
        if (name, extras, marker) in done:
            continue
        done.add((name, extras, marker))
        found.setdefault(name, set()).add(marker)
        package = packages[name]
        optional = package.get("optional-dependencies", {})
        todo += [(one, marker) for one in package.get("dependencies", ())]
        todo += [(one, marker) for extra in extras for one in optional.get(extra, ())]
    for name, markers in found.items():
        _check_source("uv.lock", name, "registry" in packages[name]["source"])
        yield _line(packages[name], "" if "" in markers else " or ".join(f"({one})" for one in sorted(markers)))


def _line(package: Mapping[str, Any], marker: str) -> str:
    return f"{package['name']}=={package['version']}" + (f" ; {marker}" if marker else "")


def _check_source(lock: str, name: str, from_index: bool) -> None:
    if not from_index:
        raise BuildError(
            f"{lock}: {name} does not come from a package index, so the artifact could not be reproduced",
            hint="publish it to an index, or list its wheel in requirements.txt",
        )
