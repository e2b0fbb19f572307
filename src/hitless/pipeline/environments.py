"""Virtual environments and caches that are kept from one build to the next.

CodeBuild's containers are new each time; here a kept environment saves a minute of installing on each push. It belongs
to one branch, Python version, buildspec and set of requirements files; if any of them changes, another is made.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hitless.errors import MachineError
from hitless.pipeline.buildspec.files import find_files, remove
from hitless.pipeline.buildspec.run import User, credentials
from hitless.pipeline.buildspec.spec import Buildspec

ENVIRONMENTS_KEPT, CACHES_KEPT = 8, 16
KEPT_S = 14 * 24 * 3600.0
"""The oldest are removed when there are more, and each one that no build has used for this long."""
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
"""Unpacking pip's wheel takes a tenth of the time of installing it."""

_WHAT_INSTALLS = ("requirements*", "pyproject.toml", "setup.py", "setup.cfg", "*.lock", "constraints*")


def key_of(branch: str, spec: Buildspec, text: str, folder: Path) -> str:
    """The key of an environment: a digest of branch, runtimes, buildspec and requirements files."""
    digest = hashlib.sha256(repr((branch, dict(spec.runtimes), text)).encode())
    for pattern in _WHAT_INSTALLS:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not path.is_symlink():
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def environment(root: Path, key: str, version: str | None, user: User | None) -> Iterator[Path]:
    """A virtual environment for one build alone. Blocking. Raises MachineError if there is no such Python."""
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
            withdraw(place)
            os.close(lock)
        _forget_old(root)
        return
    raise MachineError(f"{SLOTS} builds of the same kind are already running", hint="wait until one ends")


def _mark_of(place: Path) -> Path:
    """The file that says that the environment is complete, its owner, and when it was last used. It is outside of the
    environment, so that a build cannot change it.
    """
    return place.with_name(f"{place.name}.made")


def _lock_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")


def _hold(path: Path) -> int | None:
    """The lock's descriptor; None if another has it, or has just removed it."""
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
            f"the buildspec requires Python {version}, and there is no python{version} here",
            hint="install it, or name another version under runtime-versions",
        )
    return str(Path(found).resolve())


def tools(spec: Buildspec) -> list[Path]:
    """The folders with the commands of other runtimes that the buildspec requires. Raises MachineError."""
    if (version := spec.runtimes.get("golang")) is None:
        return []
    found = shutil.which("go", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/go/bin")
    told = "no Go"
    if found is not None:
        words, environ = [found, "version"], {"PATH": os.defpath, "HOME": "/nonexistent", "GOTOOLCHAIN": "local"}
        done = subprocess.run(words, cwd="/", env=environ, capture_output=True, text=True, check=False)
        told = next((word for word in done.stdout.split() if word.startswith("go1.")), f"no Go that works at {found}")
        if (version in ("latest", "1.x") and told.startswith("go")) or f"{told}.".startswith(f"go{version}."):
            return [Path(found).parent]
    raise MachineError(
        f"the buildspec requires Go {version}, and there is {told} here",
        hint="install it in /usr/local/go (go.dev/dl), or name another version under runtime-versions: golang",
    )


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
    """Change the owner from the previous run's user, whose processes have ended. Files of other users keep theirs."""
    old = _mark_of(place).read_text()
    _mark_of(place).unlink()  # if this is cut off, another is made
    words = ["chown", "-R", "-h", "-P", f"--from={old}:{old}", f"{user.uid}:{user.gid}", "--", str(place)]
    subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    _give(place, user)


def _give(place: Path, user: User | None) -> None:
    if user:
        os.chown(place, user.uid, user.gid, follow_symlinks=False)
    _mark_of(place).touch(mode=0o600)
    _mark_of(place).write_text(str(user.uid) if user else "")


def withdraw(place: Path) -> None:
    """Take an environment from its user, whose id another run may get, until the next run's user gets it."""
    with suppress(OSError):
        os.chown(place, os.getuid(), os.getgid(), follow_symlinks=False)


def _forget_old(root: Path) -> None:
    """Remove all but the most recently used environments, except those that a build holds."""
    names = {entry.name.removesuffix(".lock").removesuffix(".made") for entry in root.iterdir()}
    for place in _expired({root / name: _mark_of(root / name) for name in names}, ENVIRONMENTS_KEPT):
        lock = _hold(_lock_of(place))
        if lock is None:  # a build works in it
            continue
        try:
            remove(place)
            _mark_of(place).unlink(missing_ok=True)
            _lock_of(place).unlink()
        finally:
            os.close(lock)


def _expired(marks: Mapping[Path, Path], most: int) -> list[Path]:
    """The keys whose files say that they were used before `most` others, or too long ago."""
    used = dict.fromkeys(marks, 0.0)
    for one, mark in marks.items():
        with suppress(OSError):  # another build has just moved it
            used[one] = mark.stat().st_mtime
    newest = sorted(used, key=lambda one: used[one], reverse=True)
    return [one for index, one in enumerate(newest) if index >= most or time.time() - used[one] > KEPT_S]


def keep_cache(kept: Path, folder: Path, patterns: tuple[str, ...], user: User | None) -> None:
    """Replace the cache by the files that match, unless they are too large or the user cannot read them."""
    files = list(find_files(folder, tuple(_whole(pattern) for pattern in patterns), folder, links=True))
    if sum(path.lstat().st_size for path in files) > MAX_CACHE_BYTES:
        return
    names = b"\0".join(b"./" + os.fsencode(path.relative_to(folder)) for path in files)
    # A name of its own, because another build of the branch may be packing.
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as archive:
        words = ["tar", "-c", "--null", "--no-recursion", "-T", "-"]
        if _tar(words, folder, user, input=names, stdout=archive):
            Path(archive.name).replace(kept)
    remove(Path(archive.name))
    for one in _expired({one: one for one in kept.parent.iterdir()}, CACHES_KEPT):
        remove(one)


def restore_cache(kept: Path, folder: Path, user: User | None) -> None:
    """Unpack the cache into a fresh checkout; files of the commit win."""
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


def _whole(pattern: str) -> str:
    """CodeBuild accepts `node_modules/**/*` and a folder's plain name."""
    return pattern if any(mark in pattern for mark in "*?[") else f"{pattern.rstrip('/')}/**/*"
