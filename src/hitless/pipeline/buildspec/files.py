"""Finds, reads and removes files of a build or a push, which are a stranger's and not to be trusted.

No link to a folder is followed, so none leads out or in circles. A file is opened folder by folder from the build's
root, and without waiting. So the build cannot trick the reader, which may be root, by renaming things in the meantime.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

MAX_NAMES = 1_000_000
"""Names that one search looks at; it finds nothing beyond them."""

States = frozenset[tuple[int, int]]
"""Pattern and the number of its parts that are matched already."""


def find_files(base: Path, patterns: tuple[str, ...], within: Path, *, links: bool = False) -> Iterator[Path]:
    """Regular files below `base` that match the patterns (`*`, `?`, `[…]`, `**` for any folders), in order; links to
    files within `within`, too. With `links` also links to folders, as links.
    """
    root, start = within.resolve(), base.resolve()
    if not start.is_relative_to(root):
        return
    parts = [[part for part in pattern.split("/") if part not in ("", ".")] for pattern in patterns]
    pending = [(base, _closure(parts, {(index, 0) for index in range(len(parts))}))]
    left = MAX_NAMES
    while pending and left > 0:
        folder, states = pending.pop()
        below = []
        for entry in _entries(folder, left):
            left -= 1
            reached = _step(parts, states, entry.name)
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                below.append((path, reached))
            elif any(at == len(parts[index]) for index, at in reached) and _is_wanted(entry, path, root, links=links):
                yield path
        pending += [one for one in reversed(below) if one[1]]


def open_inside(root: Path, path: Path) -> int:
    """A descriptor of the regular file, with no link on the way from `root`. OSError if it is not one."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    *folders, name = path.relative_to(root).parts
    try:
        for part in folders:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = below
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(f"{path} is not a regular file")
    return file


def read_inside(root: Path, path: Path, max_bytes: int) -> bytes:
    """The beginning of such a file; empty if there is none."""
    try:
        file = os.fdopen(open_inside(root, path), "rb")
    except OSError:
        return b""
    with file:
        return file.read(max_bytes)


def remove(folder: Path) -> None:
    """Remove a folder, if it exists. Links are not followed, and what cannot be removed is left. Blocking.

    By rm, because Python's rmtree recurses: a commit with thousands of nested folders ended it, and the daemon's next
    start with it.
    """
    if not _rm(folder):
        words = ["chmod", "-R", "u+rwX", "--", str(folder)]  # folders that the build made inaccessible
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        _rm(folder)


def _rm(folder: Path) -> bool:
    if not os.path.lexists(folder):
        return True
    words = ["rm", "-rf", "--", str(folder)]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _entries(folder: Path, most: int) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry, _ in zip(found, range(most), strict=False)), key=lambda one: one.name)
    except OSError:  # not permitted
        return []


def _is_wanted(entry: os.DirEntry[str], path: Path, root: Path, *, links: bool) -> bool:
    try:
        if entry.is_symlink():
            if not path.resolve().is_relative_to(root):
                return False
            return path.is_file() or (links and path.is_dir())
        return entry.is_file(follow_symlinks=False)
    except (OSError, RuntimeError):  # a circular link
        return False


def _closure(parts: list[list[str]], states: Iterable[tuple[int, int]]) -> States:
    """The states with `**` matching no folder."""
    found = set(states)
    for index, at in states:
        while parts[index][at : at + 1] == ["**"]:
            at += 1
            found.add((index, at))
    return frozenset(found)


def _step(parts: list[list[str]], states: States, name: str) -> States:
    following = set()
    for index, at in states:
        if at == len(parts[index]):
            continue
        if parts[index][at] == "**":
            following.add((index, at))
        elif fnmatchcase(name, parts[index][at]):
            following.add((index, at + 1))
    return _closure(parts, following)
