"""A buildspec's `cache.paths`, kept from a build that succeeded for the next one of the branch."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

from hitless.pipeline.buildspec.files import find_files, open_inside
from hitless.pipeline.buildspec.run import User
from hitless.pipeline.removal import remove

MAX_CACHE_BYTES = 2 << 30
KEPT = 16
KEPT_S = 14 * 24 * 3600.0
"""A cache goes when no build has asked for it for so long, or when so many others were asked for since."""


def keep(kept: Path, folder: Path, patterns: tuple[str, ...]) -> None:
    """Copy what the patterns find below `folder`, in place of what was kept; nothing where it would be too much."""
    files = list(find_files(folder, tuple(_whole(pattern) for pattern in patterns), folder, links=True))
    if sum(path.lstat().st_size for path in files) > MAX_CACHE_BYTES:
        return
    fresh = kept.with_name(f"{kept.name}.new")
    remove(fresh)
    fresh.mkdir(mode=0o700)
    for path in files:
        target = fresh / path.relative_to(folder)
        os.makedirs(target.parent, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
        else:
            _copy(folder, path, target)
    remove(kept)
    fresh.rename(kept)
    _forget_old(kept.parent)


def restore(kept: Path, folder: Path, user: User | None) -> None:
    """Copy what was kept into a fresh checkout; files of the commit win."""
    if not kept.is_dir():
        return
    os.utime(kept)
    subprocess.run(["cp", "-a", "-n", f"{kept}/.", str(folder)], check=False, stdin=subprocess.DEVNULL)
    if user is not None:
        words = ["chown", "-R", "-h", "-P", f"{user.uid}:{user.gid}", "--", str(folder)]
        subprocess.run(words, check=False, stdin=subprocess.DEVNULL)


def _copy(folder: Path, path: Path, target: Path) -> None:
    with open(open_inside(folder, path), "rb") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
        status = os.fstat(source.fileno())
        os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode) & 0o777)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _forget_old(caches: Path) -> None:
    """All but those that were used last."""
    found = sorted(caches.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)
    for index, one in enumerate(found):
        if index >= KEPT or time.time() - one.stat().st_mtime > KEPT_S:
            remove(one)


def _whole(pattern: str) -> str:
    """CodeBuild takes `node_modules/**/*` and a plain folder's name alike."""
    return pattern if any(mark in pattern for mark in "*?[") else f"{pattern.rstrip('/')}/**/*"
