"""Virtual environments and caches that are kept from one build to the next.

CodeBuild's containers are fresh; here a kept environment saves a team the minute of installing on each push. It is
kept for one branch, Python version, buildspec and set of requirements files; if any of them changes, another is made.
Two builds at once never share one.

A buildspec's `cache.paths` are packed and unpacked as the build's user, so a link that a build plants leads no further
than the build itself can go.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hitless.errors import MachineError
from hitless.pipeline.buildspec.files import find_files, remove
from hitless.pipeline.buildspec.run import User, credentials
from hitless.pipeline.buildspec.spec import Buildspec

ENVIRONMENTS_KEPT, CACHES_KEPT = 8, 16
KEPT_S = 14 * 24 * 3600.0
"""The oldest go when there are more, and each one that no build has used for so long."""
SLOTS = 8
MAX_CACHE_BYTES = 2 << 30
_CREATE = """
import glob, os, subprocess, sys, sysconfig, venv, zipfile
place = sys.argv[1]
venv.create(place, symlinks=True)
import ensurepip
folders = [sysconfig.get_config_var("WHEEL_PKG_DIR"), os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")]
wheels = [one for folder in folders if folder for one in glob.glob(os.path.join(folder, "pip-*.whl"))]
python = os.path.join(place, "bin", "python")
if wheels:
    site = glob.glob(os.path.join(place, "lib", "python*", "site-packages"))[0]
    zipfile.ZipFile(wheels[0]).extractall(site)
    for name in ("pip", "pip3"):
        path = os.path.join(place, "bin", name)
        open(path, "w").write(f"#!/bin/sh\\nexec {python} -m pip \\"$@\\"\\n")
        os.chmod(path, 0o755)
else:
    subprocess.run([python, "-m", "ensurepip"], check=True)
"""
"""A wheel is an archive of what it installs: unpacking pip's takes a tenth of the time in which it installs itself."""

_WHAT_INSTALLS = ("requirements*", "pyproject.toml", "setup.py", "setup.cfg", "*.lock", "constraints*")


def key_of(branch: str, spec: Buildspec, text: str, folder: Path) -> str:
    """What an environment is kept for."""
    digest = hashlib.sha256(repr((branch, dict(spec.runtimes), text)).encode())
    for pattern in _WHAT_INSTALLS:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not path.is_symlink():
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def environment(root: Path, key: str, version: str | None, user: User | None) -> Iterator[Path]:
    """A virtual environment for one build alone; blocking. Raises MachineError where there is no such Python."""
    python = find_python(version)
    for slot in range(SLOTS):
        place = root / f"{key}-{slot}"
        lock = _hold(_lock_of(place))
        if lock is None:
            continue
        try:
            if not (place.is_dir() and _mark_of(place).exists()):
                _make(python, place, user)
            elif user:
                _hand_over(place, user)
            os.utime(_mark_of(place))
            yield place
        finally:
            shut(place)
            os.close(lock)
        _forget_old(root)
        return
    raise MachineError(f"{SLOTS} builds of the same kind run already", hint="wait for one to end")


def _mark_of(place: Path) -> Path:
    """Says that it is whole, whose it is, and when it was used last. Beside it: what lies within a build may change."""
    return place.with_name(f"{place.name}.made")


def _lock_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")


def _hold(path: Path) -> int | None:
    """The lock's descriptor; None where another has it, or has just removed it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == path.stat().st_ino:
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def find_python(version: str | None) -> str:
    """An interpreter of that version (`3.11`, `3.x`, `latest`; None: any) that every user can run."""
    if version is None or version in ("latest", "3.x") or version == sysconfig.get_python_version():
        return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
    found = shutil.which(f"python{version}")
    if found is None:
        raise MachineError(
            f"the buildspec wants Python {version}, and there is no python{version} here",
            hint="install it, or name another version under runtime-versions",
        )
    return str(Path(found).resolve())


def _make(python: str, place: Path, user: User | None) -> None:
    _mark_of(place).unlink(missing_ok=True)
    remove(place)
    place.mkdir(mode=0o700)
    if user:
        os.chown(place, user.uid, user.gid, follow_symlinks=False)
    done = subprocess.run(
        [python, "-I", "-c", _CREATE, str(place)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(place)},
        **credentials(user),
    )
    if done.returncode:
        raise MachineError(
            f"{python} could not make a virtual environment: {(done.stderr or done.stdout).strip()[-300:]}",
            hint="install the venv module (Debian package python3-venv)",
        )
    _give(place, user)


def _hand_over(place: Path, user: User) -> None:
    """From the user of the run before, whose processes have ended. What was not that user's stays whose it is."""
    old = _mark_of(place).read_text()
    _mark_of(place).unlink()  # when this is cut off, another is made
    words = ["chown", "-R", "-h", "-P", f"--from={old}:{old}", f"{user.uid}:{user.gid}", "--", str(place)]
    subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    _give(place, user)


def _give(place: Path, user: User | None) -> None:
    if user:
        os.chown(place, user.uid, user.gid, follow_symlinks=False)
    _mark_of(place).touch(mode=0o600)
    _mark_of(place).write_text(str(user.uid) if user else "")


def shut(place: Path) -> None:
    """Take an environment from its user, whose number another run may get. The next run's user gets it."""
    with suppress(OSError):
        os.chown(place, os.getuid(), os.getgid(), follow_symlinks=False)


def _forget_old(root: Path) -> None:
    """All but the most recently used ones that no build holds, and what is left of such."""
    names = {entry.name.removesuffix(".lock").removesuffix(".made") for entry in root.iterdir()}
    used = {root / name: _last_used(root / name) for name in names}
    for index, place in enumerate(sorted(used, key=lambda one: used[one], reverse=True)):
        if index < ENVIRONMENTS_KEPT and time.time() - used[place] < KEPT_S:
            continue
        lock = _hold(_lock_of(place))
        if lock is None:  # a build works in it
            continue
        try:
            remove(place)
            _mark_of(place).unlink(missing_ok=True)
            _lock_of(place).unlink()
        finally:
            os.close(lock)


def _last_used(place: Path) -> float:
    try:
        return _mark_of(place).stat().st_mtime
    except OSError:
        return 0.0


def keep_cache(kept: Path, folder: Path, patterns: tuple[str, ...], user: User | None) -> None:
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
    _forget_old_caches(kept.parent)


def restore_cache(kept: Path, folder: Path, user: User | None) -> None:
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


def _forget_old_caches(caches: Path) -> None:
    """All but those that were used last."""
    used = []
    for one in caches.iterdir():
        with suppress(FileNotFoundError):  # another build has just put it in its place
            used.append((one.stat().st_mtime, one))
    for index, (at, one) in enumerate(sorted(used, reverse=True)):
        if index >= CACHES_KEPT or time.time() - at > KEPT_S:
            remove(one)


def _whole(pattern: str) -> str:
    """CodeBuild takes `node_modules/**/*` and a plain folder's name alike."""
    return pattern if any(mark in pattern for mark in "*?[") else f"{pattern.rstrip('/')}/**/*"
