"""A buildspec's `cache.paths`, kept from a build that succeeded for the next one of the branch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from hitless.pipeline.buildspec.reports import find_files
from hitless.pipeline.buildspec.run import User
from hitless.pipeline.removal import remove

MAX_CACHE_BYTES = 2 << 30


def keep(kept: Path, folder: Path, patterns: tuple[str, ...]) -> None:
    """Copy what the patterns find below `folder`, in place of what was kept; nothing where it would be too much."""
    files = list(find_files(folder, tuple(_whole(pattern) for pattern in patterns), folder))
    if sum(path.stat().st_size for path in files) > MAX_CACHE_BYTES:
        return
    fresh = kept.with_name(f"{kept.name}.new")
    remove(fresh)
    fresh.mkdir(mode=0o700)
    for path in files:
        target = fresh / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
    remove(kept)
    fresh.rename(kept)


def restore(kept: Path, folder: Path, user: User | None) -> None:
    """Copy what was kept into a fresh checkout; files of the commit win."""
    if not kept.is_dir():
        return
    subprocess.run(["cp", "-a", "-n", f"{kept}/.", str(folder)], check=False, stdin=subprocess.DEVNULL)
    if user is None:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _whole(pattern: str) -> str:
    """CodeBuild takes `node_modules/**/*` and a plain folder's name alike."""
    return pattern if any(mark in pattern for mark in "*?[") else f"{pattern.rstrip('/')}/**/*"
