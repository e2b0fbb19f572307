"""A buildspec's `cache.paths`, kept from a build that succeeded for the next one of the branch.

Packed and unpacked as the build's user: a link that a build plants leads no further than the build itself can go.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from hitless.pipeline.buildspec.files import find_files, remove
from hitless.pipeline.buildspec.run import User, credentials

MAX_CACHE_BYTES = 2 << 30
KEPT = 16
KEPT_S = 14 * 24 * 3600.0
"""A cache goes when no build has asked for it for so long, or when so many others were asked for since."""


def keep(kept: Path, folder: Path, patterns: tuple[str, ...], user: User | None) -> None:
    """Pack what the patterns find, in place of what was kept; nothing if it is too much or unreadable for the user."""
    files = list(find_files(folder, tuple(_whole(pattern) for pattern in patterns), folder, links=True))
    if sum(path.lstat().st_size for path in files) > MAX_CACHE_BYTES:
        return
    fresh = kept.with_name(f"{kept.name}.new")
    remove(fresh)
    fresh.touch(mode=0o600)
    names = b"\0".join(b"./" + os.fsencode(path.relative_to(folder)) for path in files)
    with fresh.open("wb") as archive:
        words = ["tar", "-c", "--null", "--no-recursion", "-T", "-"]
        if _tar(words, folder, user, input=names, stdout=archive):
            fresh.replace(kept)
    remove(fresh)
    _forget_old(kept.parent)


def restore(kept: Path, folder: Path, user: User | None) -> None:
    """Unpack what was kept into a fresh checkout; files of the commit win."""
    if not kept.is_file():
        return
    os.utime(kept)
    with kept.open("rb") as archive:
        _tar(["tar", "-x", "-p", "--no-same-owner", "--skip-old-files"], folder, user, stdin=archive)


def _tar(words: list[str], folder: Path, user: User | None, **streams: Any) -> bool:
    environ = {"PATH": os.environ.get("PATH", os.defpath)}
    done = subprocess.run(
        words, cwd=folder, env=environ, stderr=subprocess.DEVNULL, check=False, **credentials(user), **streams
    )
    return done.returncode == 0


def _forget_old(caches: Path) -> None:
    """All but those that were used last."""
    found = sorted(caches.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)
    for index, one in enumerate(found):
        if index >= KEPT or time.time() - one.stat().st_mtime > KEPT_S:
            remove(one)


def _whole(pattern: str) -> str:
    """CodeBuild takes `node_modules/**/*` and a plain folder's name alike."""
    return pattern if any(mark in pattern for mark in "*?[") else f"{pattern.rstrip('/')}/**/*"
