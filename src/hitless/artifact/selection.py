"""Which files of a service's folder go into a package: the walk of the folder, and Serverless's `package.patterns`.

Everything is included by default. The last pattern that matches a file decides, and `!` excludes. The globs are those
of micromatch with `dot: true`, which osls uses: `**` as a whole part spans folders, `*` and `?` stay within one part,
`[a-z]`, `{a,b}`, `{1..3}` and the groups `@(a|b)`, `?(…)`, `*(…)`, `+(…)` work. Two differences from Serverless keep an
artifact the same when somebody works in the folder, for example runs its tests: folders that tools create are skipped
unless a pattern names them, and `.env` files stay out by default.

Links that stay inside the folder are followed and stored as the files they lead to, so that the bytes do not depend on
whether a file is linked or copied. A link to a missing file is left out with a notice, as Serverless leaves it out. A
selected file is an error if it is outside, is not a regular file, cannot be read, or has a name that is not portable.
Files that the patterns exclude cause no error.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from wcmatch import glob

from hitless.artifact.archive import ZipMember, shown, why_unsafe
from hitless.errors import BuildError

NEVER_FOLDERS = frozenset({".git", ".hg", ".svn", ".hitless"})
TOOL_FOLDERS = frozenset(
    {".venv", "node_modules", "__pycache__", ".serverless", ".serverless_plugins", ".pytest_cache", ".mypy_cache"}
    | {".ruff_cache", ".hypothesis", ".tox", ".nox"}
)
DEFAULT_EXCLUDES = (
    *("!.gitignore", "!**/.DS_Store", "!npm-debug.log", "!yarn-*.log"),
    *("!**/*.pyc", "!**/.env*", "!.coverage"),
)
_FLAGS = glob.GLOBSTAR | glob.EXTGLOB | glob.BRACE | glob.DOTGLOB | glob.FORCEUNIX
_GROUP, _BRACKETS, _RANGE = re.compile(r"[@?*+]\("), re.compile(r"\[[^\]]+\]"), re.compile(r"(\w)-(\w)")
_PLAIN_GROUP = re.compile(r"(?<![@?*+!\\])\(")
_ANY_WITH_SUFFIX = re.compile(r"\*\*(\.\w+)")


class PackagePatterns:
    """The patterns of one package, compiled. Raises BuildError for one that cannot be used."""

    def __init__(self, patterns: Iterable[str]) -> None:
        given = tuple(patterns)
        self.given = given
        self._rules = [(not p.startswith("!"), _compiled(p)) for p in (*DEFAULT_EXCLUDES, *given)]
        self._rules.reverse()
        named = {part for p in given if not p.startswith("!") for part in p.split("/")}
        self._skipped = NEVER_FOLDERS | (TOOL_FOLDERS - named)

    def selects(self, name: str) -> bool:
        """Whether the file of that name (relative to the service's folder) goes into the package."""
        return next((include for include, rule in self._rules if rule.match(name)), True)

    def looks_into(self, folder: str) -> bool:
        """Whether folders of that name are walked."""
        return folder not in self._skipped

    def names_folder(self, folder: str) -> str | None:
        """The exclusion that matches this folder but, as in Serverless, none of the files in it."""
        return next(
            (p for p in self.given if p.startswith("!") and p[1:].rstrip("/").removeprefix("./") == folder), None
        )


def _compiled(pattern: str) -> glob.WcMatcher[str]:
    written = pattern.removeprefix("!").removeprefix("./")
    if not written or written.startswith("/") or ".." in written.split("/"):
        raise BuildError(
            f"package.patterns: {pattern!r} points outside the service's folder",
            hint="a package contains files of the service's folder only; copy shared files into it",
        )
    if "!(" in written:
        raise BuildError(
            f"package.patterns: {pattern!r}: the group !(…) is not supported",
            hint="write one pattern that includes and one with ! that excludes",
        )
    # micromatch and wcmatch accept both, but as globs that match nothing
    if len(_GROUP.findall(written)) > written.count(")"):
        raise BuildError(f"package.patterns: {pattern!r}: a group is not closed")
    if any(first > last for brackets in _BRACKETS.findall(written) for first, last in _RANGE.findall(brackets)):
        raise BuildError(f"package.patterns: {pattern!r}: the range in [] is in descending order")
    return glob.compile(_as_micromatch(written), flags=_FLAGS)


def _as_micromatch(written: str) -> list[str]:
    """Globs for wcmatch that together match what micromatch (4.0.8) matches."""
    read = _PLAIN_GROUP.sub("@(", written).replace("[!", r"[\!")
    if suffixed := _ANY_WITH_SUFFIX.fullmatch(read):
        read = f"**/*{suffixed[1]}"
    globs = [read, glob.escape(written, unix=True)]  # a name that is equal to the pattern always matches
    if read.endswith("/**") and not read.endswith("*/**"):
        globs.append(read.removesuffix("/**"))  # `src/**` matches a file named src
    return globs


_LEAVE_OUT = "fix it, or exclude it: package.patterns: ['!{}']"


class _Folder(msgspec.Struct, frozen=True):
    """One folder of the walk. `name` ends with a slash; `above` are the real paths of its parents, to find loops."""

    name: str
    path: str
    real: str
    outside: bool = False
    above: frozenset[str] = frozenset()


class Walk(msgspec.Struct):
    """One walk of `root`. Folders in `left_out` (real paths) are not entered, whatever the patterns say."""

    root: Path
    patterns: PackagePatterns
    left_out: frozenset[str] = frozenset()
    notices: list[str] = msgspec.field(default_factory=list)

    def files(self) -> list[ZipMember]:
        """The selected files, sorted by name. Raises BuildError, which names the file that cannot be packaged."""
        real = os.path.realpath(self.root)
        found: list[ZipMember] = []
        pending = [_Folder("", str(self.root), real)]
        while pending:
            folder = pending.pop()
            for entry in self._entries(folder):
                name = folder.name + _as_utf8(entry.name)
                if _is_folder(entry):
                    pending.extend(self._entered(folder, entry, name, real))
                elif not self.patterns.selects(name):
                    continue
                elif entry.is_symlink() and _leads_nowhere(entry):
                    self.notices.append(f"{shown(name)}: the link's target does not exist; it is left out")
                else:
                    found.append(self._checked(folder, entry, name, real))
        return sorted(found, key=lambda file: file.name)

    def _entries(self, folder: _Folder) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder.path) as entries:
                return list(entries)
        except OSError as error:
            if folder.name and not self.patterns.selects(folder.name + "file"):
                return []
            name = shown(folder.name or folder.path)
            raise BuildError(
                f"{name}: the folder cannot be read: {error.strerror}", hint=_LEAVE_OUT.format(f"{name}**")
            ) from error

    def _entered(self, parent: _Folder, entry: os.DirEntry[str], name: str, root: str) -> Iterator[_Folder]:
        if not self.patterns.looks_into(entry.name):
            return
        real = os.path.realpath(entry.path) if entry.is_symlink() else f"{parent.real}/{entry.name}"
        if real in self.left_out or os.path.exists(f"{entry.path}/pyvenv.cfg"):
            return
        above = parent.above | {parent.real}
        if real in above:
            if self.patterns.selects(f"{name}/file"):
                raise BuildError(f"{shown(name)}: the link points to a folder above it", hint=_LEAVE_OUT.format(name))
            return
        if misread := self.patterns.names_folder(name):
            self.notices.append(
                f"package.patterns: {misread!r} matches a folder but, as in Serverless, none of its files;"
                f" write '!{name}/**' to leave it out"
            )
        outside = parent.outside or not _within(real, root)
        yield _Folder(f"{name}/", entry.path, real, outside, above)

    def _checked(self, folder: _Folder, entry: os.DirEntry[str], name: str, root: str) -> ZipMember:
        hint = _LEAVE_OUT.format(shown(name))
        if why := why_unsafe(name):
            raise BuildError(f"{shown(name)}: the name {why}", hint="rename the file")
        if folder.outside or (entry.is_symlink() and not _within(os.path.realpath(entry.path), root)):
            raise BuildError(f"{name}: the link points outside the service's folder", hint=hint)
        try:
            status = entry.stat()
        except OSError as error:
            raise BuildError(f"{name}: the file cannot be read: {error.strerror}", hint=hint) from error
        if not stat.S_ISREG(status.st_mode):
            raise BuildError(f"{name}: is a {_kind(status.st_mode)}, not a file", hint=hint)
        return ZipMember(name, Path(entry.path), bool(status.st_mode & stat.S_IXUSR))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops, or leads through a forbidden folder: treated as a file
        return False


def _leads_nowhere(link: os.DirEntry[str]) -> bool:
    try:
        link.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _as_utf8(name: str) -> str:
    """The name decoded from its bytes on the disk as UTF-8, whatever the locale is."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "surrogateescape")


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "named pipe"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "device"
