"""uv.lock, poetry.lock and Pipfile.lock as a list of requirements, for a service that has no requirements.txt.

Only what the service itself needs is listed: no development groups, no extras that are not requested. Each version is
exact. A package from anywhere but an index is refused, as it is in requirements.txt.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hitless.errors import BuildError

LOCKS = ("uv.lock", "poetry.lock", "Pipfile.lock")

_EXTRA = re.compile(r"""extra == ("[^"]*"|'[^']*')""")
_ALWAYS = 'python_version >= "3"'
"""Takes the place of Poetry's marker for an extra, once that extra is asked for."""

_Edge = tuple[str, tuple[str, ...], str]
"""A dependency: its name, its extras, and its marker or an empty string."""


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it. By `packaging`, that import alone would take 20 ms."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(folder: Path) -> tuple[str, str] | None:
    """The lock file's name and its content as requirements; None without a lock that can be read so. BuildError."""
    for name in LOCKS:
        path = folder / name
        if not path.is_file() or path.is_symlink():
            continue
        try:
            lines = list(_lines(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BuildError(f"{name}: cannot be read: {error!r}", hint="create the lock file again") from error
        if lines:
            return name, "".join(f"{line}\n" for line in sorted(lines))
    return None


def _lines(lock: Path) -> Iterator[str]:
    text = lock.read_text("utf-8")
    if lock.name == "Pipfile.lock":
        return _pipenv(json.loads(text))
    document = tomllib.loads(text)
    if lock.name == "uv.lock":
        return _uv(document)
    if any("groups" in package or "category" in package for package in document.get("package", ())):
        return _poetry(document)
    project = lock.with_name("pyproject.toml")
    if not project.is_file() or project.is_symlink():
        return iter(())
    tool = tomllib.loads(project.read_text("utf-8")).get("tool", {})
    return _poetry_without_groups(document, tool.get("poetry", {}).get("dependencies", {}))


def _pipenv(document: Mapping[str, Any]) -> Iterator[str]:
    for name, package in document.get("default", {}).items():
        _check_source("Pipfile.lock", name, package.keys().isdisjoint({"git", "path", "file", "editable"}))
        version = package["version"].removeprefix("==")
        yield _line({"name": name, "version": version}, package.get("markers", ""))


def _poetry(document: Mapping[str, Any]) -> Iterator[str]:
    """Poetry tells a package's groups since 2.0, and its category until 1.4."""
    for package in document.get("package", ()):
        wanted = "main" in package.get("groups", ()) or package.get("category") == "main"
        if wanted and not package["optional"]:
            _check_poetry_source(package)
            markers = package.get("markers", "")
            yield _line(package, markers if isinstance(markers, str) else markers.get("main", ""))


def _poetry_without_groups(document: Mapping[str, Any], required: Mapping[str, Any]) -> Iterator[str]:
    """The packages of a Poetry 1.5 to 1.8 lock that pyproject.toml's main dependencies need."""
    packages = _by_name("poetry.lock", document, "poetry export -o requirements.txt")

    def edges(listed: Mapping[str, Any], asked: Iterable[str] = ()) -> Iterator[_Edge]:
        for name, given in ((normalised(name), given) for name, given in listed.items()):
            for one in given if isinstance(given, list) else (given,):
                table = one if isinstance(one, dict) else {}
                if name != "python" and (not table.get("optional") or name in asked):
                    yield name, tuple(table.get("extras", ())), _EXTRA.sub(_ALWAYS, table.get("markers", ""))

    def needs(name: str, extras: tuple[str, ...]) -> Iterator[_Edge]:
        listed = [one for extra in extras for one in packages[name].get("extras", {}).get(extra, ())]
        asked = {normalised(re.split(r"[^\w.-]", one)[0]) for one in listed}
        return edges(packages[name].get("dependencies", {}), asked)

    for name, markers in _closure(edges(required), needs).items():
        _check_poetry_source(packages[name])
        yield _line(packages[name], _any_of(markers))


def _uv(document: Mapping[str, Any]) -> Iterator[str]:
    packages = _by_name("uv.lock", document, "uv export -o requirements.txt")

    def edges(listed: Iterable[Mapping[str, Any]]) -> Iterator[_Edge]:
        return ((one["name"], tuple(one.get("extra", ())), one.get("marker", "")) for one in listed)

    def needs(name: str, extras: tuple[str, ...]) -> Iterator[_Edge]:
        optional = packages[name].get("optional-dependencies", {})
        yield from edges(packages[name].get("dependencies", ()))
        yield from edges(one for extra in extras for one in optional.get(extra, ()))

    roots = [one for one in packages.values() if one["source"].get("virtual", one["source"].get("editable")) == "."]
    required = edges(edge for root in roots for edge in root.get("dependencies", ()))
    for name, markers in _closure(required, needs).items():
        _check_source("uv.lock", name, "registry" in packages[name]["source"])
        yield _line(packages[name], _any_of(markers))


def _by_name(lock: str, document: Mapping[str, Any], command: str) -> dict[str, Mapping[str, Any]]:
    listed = document.get("package", ())
    packages: dict[str, Mapping[str, Any]] = {normalised(package["name"]): package for package in listed}
    if len(packages) < len(listed):
        raise BuildError(f"{lock}: locks two versions of one package", hint=f"run: {command}")
    return packages


def _closure(
    required: Iterable[_Edge], needs: Callable[[str, tuple[str, ...]], Iterable[_Edge]]
) -> Mapping[str, set[str]]:
    """Each package that `required` leads to, with its markers. An edge without a marker takes the one above it."""
    todo = list(required)
    found: dict[str, set[str]] = {}
    done: set[_Edge] = set()
    while todo:
        edge = todo.pop()
        if edge in done:
            continue
        done.add(edge)
        name, extras, marker = edge
        found.setdefault(name, set()).add(marker)
        todo += [(below, theirs, own or marker) for below, theirs, own in needs(name, extras)]
    return found


def _any_of(markers: set[str]) -> str:
    return "" if "" in markers else " or ".join(f"({one})" for one in sorted(markers))


def _line(package: Mapping[str, Any], marker: str) -> str:
    return f"{package['name']}=={package['version']}" + (f" ; {marker}" if marker else "")


def _check_poetry_source(package: Mapping[str, Any]) -> None:
    from_index = package.get("source", {}).get("type", "legacy") == "legacy"
    _check_source("poetry.lock", package["name"], from_index)


def _check_source(lock: str, name: str, from_index: bool) -> None:
    if not from_index:
        raise BuildError(
            f"{lock}: {name} does not come from a package index, so the artifact could not be reproduced",
            hint="publish it to an index, or list its wheel in requirements.txt",
        )
