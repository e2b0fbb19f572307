"""Files that a build or a push has left, found, read and removed as what they are: things that a stranger made.

No link to a folder is entered, so that none leads out or in circles; a file is opened step by step from the build's own
folder, and never waited for. So it matters not what becomes of the names meanwhile, nor that the reader may be root.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

MOST_NAMES = 1_000_000
"""Looked at in one search; what comes after them is not found."""

States = frozenset[tuple[int, int]]
"""Which pattern, and how many of its parts are matched already."""


def find_files(base: Path, patterns: tuple[str, ...], within: Path, *, links: bool = False) -> Iterator[Path]:
    """Regular files below `base` that the patterns find (`*`, `?`, `[…]`, `**` for any folders), in order; links to
    files within `within`, too. With `links` also links to folders, as links.
    """
    root, start = within.resolve(), base.resolve()
    if not start.is_relative_to(root):
        return
    parts = [[part for part in pattern.split("/") if part not in ("", ".")] for pattern in patterns]
    pending = [(base, _reached(parts, {(index, 0) for index in range(len(parts))}))]
    left = MOST_NAMES
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
    """A descriptor of the regular file, which no link leads to from `root` on. OSError where it is none."""
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
        raise OSError(f"{path} is no regular file")
    return file


def read_inside(root: Path, path: Path, most_bytes: int) -> bytes:
    """The beginning of such a file; nothing where there is none."""
    try:
        file = os.fdopen(open_inside(root, path), "rb")
    except OSError:
        return b""
    with file:
        return file.read(most_bytes)


def remove(folder: Path) -> None:
    """Remove a folder; nothing there is fine, links are not followed. What cannot be removed is left. Blocking.

    By rm, which goes down as deep as the names reach: Python's rmtree calls itself for each level, and a commit of some
    thousand nested folders ended it, and the daemon's next start with it.
    """
    if not _rm(folder):
        words = ["chmod", "-R", "u+rwX", "--", str(folder)]  # folders that a build forbade itself to enter
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
    except OSError:  # it may not be entered
        return []


def _is_wanted(entry: os.DirEntry[str], path: Path, root: Path, *, links: bool) -> bool:
    try:
        if entry.is_symlink():
            if not path.resolve().is_relative_to(root):
                return False
            return path.is_file() or (links and path.is_dir())
        return entry.is_file(follow_symlinks=False)
    except (OSError, RuntimeError):  # a link in circles
        return False


def _reached(parts: list[list[str]], states: Iterable[tuple[int, int]]) -> States:
    """With what `**` matches when it matches nothing."""
    found = set(states)
    waiting = list(found)
    while waiting:
        index, at = waiting.pop()
        if at < len(parts[index]) and parts[index][at] == "**" and (index, at + 1) not in found:
            found.add((index, at + 1))
            waiting.append((index, at + 1))
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
    return _reached(parts, following)
