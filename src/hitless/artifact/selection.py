"""The walk of a service's folder: which of its files go into a package.

Links that stay inside the folder are followed and stored as the files they lead to, so that the bytes do not depend on
how a file came there. A selected file that lies outside, leads nowhere, is no regular file, cannot be read or has a
name that does not travel is refused by name; what the patterns leave out is never complained of.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hitless.artifact.archive import Member
from hitless.artifact.names import flaw, shown
from hitless.artifact.patterns import PackagePatterns
from hitless.errors import BuildError

_LEAVE_OUT = "mend it, or leave it out: package.patterns: ['!{}']"


@dataclass(frozen=True, slots=True)
class _Folder:
    """One folder of the walk. `name` ends with a slash; `above` are the real paths that lead to it, against loops."""

    name: str
    path: str
    real: str
    outside: bool = False
    above: frozenset[str] = frozenset()


@dataclass(slots=True)
class Walk:
    """One walk of `root`. Folders in `left_out` (real paths) are not entered, whatever the patterns say."""

    root: Path
    patterns: PackagePatterns
    left_out: frozenset[str] = frozenset()
    notices: list[str] = field(default_factory=list)

    def files(self) -> list[Member]:
        """The selected files, sorted by name. Raises BuildError that names the file at fault."""
        real = os.path.realpath(self.root)
        found: list[Member] = []
        pending = [_Folder("", str(self.root), real)]
        while pending:
            folder = pending.pop()
            for entry in self._entries(folder):
                name = folder.name + _as_utf8(entry.name)
                if _is_folder(entry):
                    pending.extend(self._entered(folder, entry, name, real))
                elif self.patterns.selects(name):
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
                raise BuildError(
                    f"{shown(name)}: the link leads back to a folder above it", hint=_LEAVE_OUT.format(name)
                )
            return
        if misread := self.patterns.names_folder(name):
            self.notices.append(
                f"package.patterns: {misread!r} names a folder and, as in Serverless, none of its files;"
                f" write '!{name}/**' to leave it out"
            )
        outside = parent.outside or not _within(real, root)
        yield _Folder(f"{name}/", entry.path, real, outside, above)

    def _checked(self, folder: _Folder, entry: os.DirEntry[str], name: str, root: str) -> Member:
        hint = _LEAVE_OUT.format(shown(name))
        if why := flaw(name):
            raise BuildError(f"{shown(name)}: the name {why}", hint="rename the file")
        if folder.outside or (entry.is_symlink() and not _within(os.path.realpath(entry.path), root)):
            raise BuildError(f"{name}: the link leads out of the service's folder", hint=hint)
        try:
            status = entry.stat()
        except OSError as error:
            raise BuildError(f"{name}: the file or link leads nowhere: {error.strerror}", hint=hint) from error
        if not stat.S_ISREG(status.st_mode):
            raise BuildError(f"{name}: is a {_kind(status.st_mode)}, not a file", hint=hint)
        return Member(name, Path(entry.path), bool(status.st_mode & stat.S_IXUSR))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops, or through a folder that may not be entered: judged as a file
        return False


def _as_utf8(name: str) -> str:
    """The name by its bytes on the disk, whatever the locale takes them for."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "surrogateescape")


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "named pipe"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "device"
