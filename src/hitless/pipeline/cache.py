"""A buildspec's `cache.paths`, kept from a build that succeeded for the next one of the branch.

Packed and unpacked as the build's user: a link that a build plants leads no further than the build itself can go.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from contextlib import suppress
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
    names = b"\0".join(b"./" + os.fsencode(path.relative_to(folder)) for path in files)
    # A name of its own: another build of the branch may be at it.
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as archive:
        words = ["tar", "-c", "--null", "--no-recursion", "-T", "-"]
        if _tar(words, folder, user, input=names, stdout=archive):
            Path(archive.name).replace(kept)
    remove(Path(archive.name))
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
    used = []
    for one in caches.iterdir():
        with suppress(FileNotFoundError):  # another build has just put it in its place
            used.append((one.stat().st_mtime, one))
    for index, (at, one) in enumerate(sorted(used, reverse=True)):
        if index >= KEPT or time.time() - at > KEPT_S:
            remove(one)


def _whole(pattern: str) -> str:
    """CodeBuild takes `node_modules/**/*` and a plain folder's name alike."""
    return pattern if any(mark in pattern for mark in "*?[") else f"{pattern.rstrip('/')}/**/*"
