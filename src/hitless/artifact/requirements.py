"""The requirements of a service: requirements.txt and the files that it names, read as pip and uv read them.

uv installs them. This module finds what must be known before: what is not allowed in an artifact (editable installs,
local paths, repositories), what is not pinned, and which texts are part of the cache's key. Messages
name files, lines and packages, but never a URL, because it may contain a password.
"""

from __future__ import annotations

import os
import pkgutil
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import msgspec
from msgspec.structs import replace

from hitless.artifact.locks import normalised, read_lock
from hitless.errors import BuildError
from hitless.service.files import repository_root

REQUIREMENTS_FILE = "requirements.txt"

_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION = re.compile(r"(?P<name>--?[A-Za-z][A-Za-z-]*)(?:\s*=\s*|\s+)?(?P<value>.*)", re.DOTALL)
_SHORT = {"-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-f": "--find-links"}
_REPOSITORY = re.compile(r"(git|hg|svn|bzr)\+")
_PASSWORD = re.compile(r"://[^/\s@:]*:(?!\$\{)[^/\s@]+@")
_READ_OTHERWISE = re.compile(r"[\"'\\$:#]")  # uv would read another file than the one that is checked here
_EXACT = re.compile(r"([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)==\d+(?:\.\d+)*", re.ASCII)
_HASH = re.compile(r"--hash\b|#sha256=")


class Requirement(msgspec.Struct, frozen=True):
    """One requirement: its normalised name, its place, and whether it allows only one version."""

    name: str
    at: str
    pinned: bool


class Requirements(msgspec.Struct, frozen=True):
    """All that is required. `texts` are the files read (name, text), `links` the values of --find-links."""

    required: tuple[Requirement, ...] = ()
    constrained: frozenset[str] = frozenset()
    texts: tuple[tuple[str, str], ...] = ()
    links: tuple[str, ...] = ()
    checked_by_hash: bool = False
    """Whether each package must have one of its hashes (uv's and pip's --require-hashes): a file uses --hash."""
    generated: str = ""
    """The list itself if no file holds it, because it was made of a lock file."""

    def unpinned(self, installed: Iterable[str]) -> list[str]:
        """Names whose version may change: required without `==`, or installed without being listed."""
        pinned = {one.name for one in self.required if one.pinned} | self.constrained
        loose = {one.name for one in self.required if not one.pinned} - self.constrained
        return sorted(loose | ({normalised(name) for name in installed} - pinned))

    @property
    def hashed(self) -> bool:
        """Whether a file gives hashes, which bind a requirement to its exact version."""
        return any(_HASH.search(text) for _, text in self.texts)

    def with_passwords(self) -> list[str]:
        """Names of the files in which a URL contains a password itself, and not as ${VARIABLE}."""
        return [name for name, text in self.texts if _PASSWORD.search(text)]


def read_requirements(folder: Path) -> Requirements:
    """The requirements of the service in `folder`: requirements.txt, or a lock file without one. Raises BuildError."""
    real = Path(os.path.realpath(folder))
    if not os.path.lexists(folder / REQUIREMENTS_FILE):
        if (locked := read_lock(real)) is None:
            return Requirements()
        _check_settings(real)
        name, text = locked
        return replace(parse_requirements(name, lambda _: text), generated=text)
    _check_settings(real)

    def read(name: str) -> str:
        path = Path(os.path.realpath(real / name))
        if not path.is_relative_to(real):
            raise BuildError(f"{name}: is outside the service's folder", hint="keep the list in the folder")
        try:
            return path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise BuildError(
                f"{name}: the requirements cannot be read: {reason}", hint="fix the file, or its name"
            ) from error

    return parse_requirements(REQUIREMENTS_FILE, read)


def _check_settings(folder: Path) -> None:
    """Refuse links out of the repository: uv searches parent folders for settings, and quotes lines that are wrong."""
    root = repository_root(folder)
    for path in (above / name for above in (folder, *folder.parents) for name in ("uv.toml", "pyproject.toml")):
        if path.is_relative_to(root) and not Path(os.path.realpath(path)).is_relative_to(root):
            raise BuildError(f"{path.name} is a link to a file outside {root}", hint="put the file itself there")


def parse_requirements(name: str, read: Callable[[str], str]) -> Requirements:
    """Read the file `name`, and those it names, by `read` (name relative to the service's folder → text)."""
    reading = _Reading(read)
    reading.file(name, constraint=False)
    checked = any("--hash" in line for text in reading.texts.values() for _, line in _logical_lines(text))
    if checked and (bare := [one for one in reading.required if one.name not in reading.hashed]):
        hint = f"give each its hash: uv pip compile --generate-hashes requirements.in -o {REQUIREMENTS_FILE}"
        raise BuildError(f"{bare[0].at}: {bare[0].name} has no hash, but other requirements have one", hint=hint)
    return Requirements(
        tuple(reading.required), frozenset(reading.constrained), tuple(reading.texts.items()), tuple(reading.links),
        checked,
    )  # fmt: skip


class _Reading(msgspec.Struct):
    read: Callable[[str], str]
    required: list[Requirement] = msgspec.field(default_factory=list)
    constrained: set[str] = msgspec.field(default_factory=set)
    hashed: set[str] = msgspec.field(default_factory=set)
    texts: dict[str, str] = msgspec.field(default_factory=dict)
    links: list[str] = msgspec.field(default_factory=list)
    seen: set[tuple[str, bool]] = msgspec.field(default_factory=set)

    def file(self, name: str, *, constraint: bool) -> None:
        if (name, constraint) in self.seen:
            return
        self.seen.add((name, constraint))
        self.texts[name] = self.texts.get(name) or self.read(name)
        for number, line in _logical_lines(self.texts[name]):
            at = f"{name}:{number}"
            if line.startswith("-"):
                self.option(name, at, line, constraint=constraint)
                continue
            requirement = _requirement(at, line)
            if _HASH.search(line):
                self.hashed.add(requirement.name)
            if not constraint:
                self.required.append(requirement)
            elif requirement.pinned:
                self.constrained.add(requirement.name)

    def option(self, name: str, at: str, line: str, *, constraint: bool) -> None:
        match = _OPTION.match(line)
        option = match["name"] if match else line
        value = match["value"].strip() if match else ""
        if not option.startswith("--") and len(option) > 2:  # -rother.txt
            option, value = option[:2], option[2:] + value
        match _SHORT.get(option, option):
            case "--editable":
                raise _refused(at, "an editable install", "list the package as NAME==VERSION")
            case "--requirement" | "--constraint" as kind:
                if "://" in value:
                    raise _refused(at, "a list of requirements at a URL", "keep the list in the service's folder")
                if _READ_OTHERWISE.search(value):
                    raise _refused(at, "a file's name with quotes, variables, : or #", "rename the file")
                other = str(PurePosixPath(name).parent / value)
                self.file(other, constraint=constraint or kind == "--constraint")
            case "--find-links":
                self.links.append(value if "://" in value else str(PurePosixPath(name).parent / value))
            case _:
                pass  # uv checks it


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Lines without comments, joined at a closing backslash, each with the number of its first line."""
    lines: list[tuple[int, str]] = []
    joined, first = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _COMMENT.sub("", raw).rstrip()
        first = first if joined else number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        joined = (joined + line).strip()
        if joined:
            lines.append((first, joined))
        joined = ""
    return [*lines, (first, joined.strip())] if joined.strip() else lines


def _requirement(at: str, line: str) -> Requirement:
    if _REPOSITORY.match(line):
        raise _refused(at, "a requirement from a repository", "build a wheel and list it as NAME==VERSION")
    path = line.split(";")[0].split()[0]
    if path.startswith((".", "/", "~", "file:")) or ("://" not in line and path.endswith((".whl", ".tar.gz", ".zip"))):
        raise _refused(at, "a local path", "list it as NAME==VERSION, with --find-links FOLDER for its wheel")
    if re.match(r"https?://", line):
        raise _refused(at, "a URL without a name", "write NAME @ URL --hash=sha256:…")
    text = line.partition(" --")[0].strip()
    if exact := _EXACT.fullmatch(text):
        return Requirement(normalised(exact[1]), at, True)
    grammar = pkgutil.resolve_name("packaging.requirements")  # takes 20 ms, and most lines are exact
    try:
        read = grammar.Requirement(text)
    except grammar.InvalidRequirement as error:
        raise BuildError(f"{at}: is not a requirement", hint="write NAME==VERSION") from error
    name = normalised(read.name)
    if read.url is None:
        pinned = any(
            one.operator == "===" or (one.operator == "==" and not one.version.endswith(".*")) for one in read.specifier
        )
        return Requirement(name, at, pinned)
    if _REPOSITORY.match(read.url):
        raise _refused(at, f"{name} from a repository", f"build a wheel and list it as {name}==VERSION")
    if not re.match(r"https?://", read.url):
        raise _refused(
            at, f"{name} from a local path", f"list it as {name}==VERSION, with --find-links FOLDER for its wheel"
        )
    return Requirement(name, at, bool(_HASH.search(line)))


def _refused(at: str, what: str, hint: str) -> BuildError:
    return BuildError(f"{at}: {what} is not allowed, because the artifact could not be reproduced", hint=hint)
