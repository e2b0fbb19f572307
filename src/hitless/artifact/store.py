"""The folder of artifacts: zips by digest, their unpacked trees, and the cache of installed dependencies.

    ROOT/zips/<hex>.zip, <hex>.json    an artifact, and which entry of the cache its first files come from
    ROOT/zips/<hex>.cdx.json           its bill of materials, see `sbom`
    ROOT/trees/<hex>/                  it unpacked, read-only
    ROOT/dependencies/<key>/           see `dependencies`
    ROOT/tmp/                          everything that is not yet complete
    ROOT/lock

Invariants. A name outside tmp/ is complete, because it got there by a rename. A build or an unpacking holds the lock
shared (the processes started for it inherit it); a removal holds it alone. So nothing is removed during a build, and
everything in tmp/ when the lock is held alone was left by a killed process, and is removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from hitless.artifact import archive, dependencies, trees
from hitless.artifact.dependencies import Dependencies
from hitless.artifact.sbom import bill_of_artifact
from hitless.documents import decode, replace_file, sync_folder, to_text
from hitless.errors import EngineError, MachineError, UsageError

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
T = TypeVar("T")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MIN_AGE_S = 900.0


class WorkFolder(msgspec.Struct, frozen=True):
    """A private folder for one build or unpacking, removed afterwards. Child processes inherit `lock_fd`."""

    folder: Path
    lock_fd: int


class _Note(msgspec.Struct, frozen=True):
    """Which entry of the cache the first files of an artifact come from, and how many they are."""

    dependencies: str | None = None
    linked: int = 0


class ArtifactStore:
    """The artifacts of one data folder, `root` = DATA/artifacts. Any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._zips, self._trees, self._dependencies = root / "zips", root / "trees", root / "dependencies"
        self._tmp = root / "tmp"

    def zip_path(self, digest: str) -> Path:
        """Where the zip of that digest is, or would be. Raises UsageError if it is not a digest."""
        return self._zips / f"{_hex(digest)}.zip"

    def verify(self, digest: str) -> bool:
        """Whether the zip is here and its bytes have that digest."""
        path = self.zip_path(digest)
        return path.is_file() and archive.digest_of(path) == digest

    @contextmanager
    def working(self) -> Iterator[WorkFolder]:
        """Hold the store for building or unpacking. Raises MachineError for faults of its disk or permissions."""
        with self._lock() as lock:
            if _locked_alone(lock):
                self._remove_leftovers()
            fcntl.flock(lock, fcntl.LOCK_SH)
            folder = Path(tempfile.mkdtemp(dir=self._tmp))
            try:
                yield WorkFolder(folder, lock)
            finally:
                trees.remove(folder)

    def add(self, zipped: Path, used: Dependencies | None, linked: int) -> str:
        """Move a finished zip from a work folder into the store and return its digest.

        `linked`: how many of its first files are those of the entry `used`. An artifact that is here already counts as
        used now. Call it within `working`.
        """
        digest = archive.digest_of(zipped)
        target = self.zip_path(digest)
        note = zipped.with_suffix(".json")
        note.write_text(to_text(_Note(used.folder.name if used else None, linked)), "utf-8")
        note.replace(target.with_suffix(".json"))
        replace_file(target.with_suffix(".cdx.json"), bill_of_artifact(zipped, digest), durable=True)
        if target.exists() and target.stat().st_size == zipped.stat().st_size:
            os.utime(target)
        else:
            zipped.chmod(0o444)
            zipped.replace(target)
            sync_folder(self._zips)
        return digest

    def unpack(self, digest: str) -> Path:
        """The artifact as a read-only folder, unpacked if necessary. Raises EngineError, MachineError."""
        zipped, tree = self.zip_path(digest), self._trees / _hex(digest)
        with self.working() as workspace, self._opened(zipped, digest) as packed:
            entries = archive.entries_of(packed)
            if not trees.is_complete(tree, entries):
                if archive.digest_of(zipped) != digest:
                    raise EngineError(f"the bytes of artifact {digest} are damaged", hint="deploy its commit again")
                note = _read_note(zipped.with_suffix(".json"))
                used = dependencies.load(self._dependencies / note.dependencies) if note.dependencies else None
                fresh = workspace.folder / "tree"
                trees.unpack_into(fresh, packed, used, note.linked)
                if not _settled(fresh, tree, workspace, lambda: trees.is_complete(tree, entries)):
                    raise EngineError(f"{tree} cannot be written completely", hint="check its disk")
            tree.chmod(0o555)
            return tree

    def cached(self, key: str) -> Dependencies | None:
        """The complete entry of that key, marked as used now; None if there is none."""
        entry = dependencies.load(self._dependencies / key)
        if entry is not None:
            os.utime(entry.folder / "manifest.json")
        return entry

    def cache(self, fresh: Path, key: str, workspace: WorkFolder) -> Dependencies:
        """Move a finished entry from a work folder into the cache; if another build was faster, use its entry."""
        place = self._dependencies / key
        found = _settled(fresh, place, workspace, lambda: dependencies.load(place))
        if found is None:
            raise EngineError(
                f"the cache of dependencies in {self.root} cannot be written completely", hint="check its disk"
            )
        return found

    def prune(self, keep: set[str], *, min_age_s: float = MIN_AGE_S) -> list[str]:
        """Remove the artifacts that are not kept, with their trees, and cached dependencies that no artifact needs.

        Artifacts built less than `min_age_s` ago stay, because their release may not be recorded yet. Nothing is
        removed during a build or an unpacking: the next call does it. Returns the digests removed.
        """
        kept = {_hex(digest) for digest in keep}
        with self._lock() as lock:
            if not _locked_alone(lock):
                return []
            self._remove_leftovers()
            return self._remove_unneeded(kept, time.time() - min_age_s)

    def _remove_unneeded(self, kept: set[str], before: float) -> list[str]:
        removed: list[str] = []
        for zipped in sorted(self._zips.glob("*.zip")):
            if zipped.stem not in kept and zipped.stat().st_mtime < before:
                zipped.unlink()
                removed.append(f"sha256:{zipped.stem}")
        remaining = {zipped.stem for zipped in self._zips.glob("*.zip")}
        needed = set[str]()
        for note in self._zips.glob("*.json"):
            if note.name.partition(".")[0] in remaining:
                needed.add(str(_read_note(note).dependencies))
            else:
                note.unlink()
        for tree in self._trees.iterdir():
            if tree.name not in remaining | kept:
                trees.remove(tree)
        for entry in self._dependencies.iterdir():
            if entry.name not in needed and _last_used(entry) < before:
                trees.remove(entry)
        return removed

    @contextmanager
    def _opened(self, zipped: Path, digest: str) -> Iterator[zipfile.ZipFile]:
        try:
            packed = zipfile.ZipFile(zipped)
        except FileNotFoundError as error:
            raise EngineError(f"artifact {digest} is not in {self.root}", hint="deploy its commit again") from error
        except zipfile.BadZipFile as error:
            raise EngineError(f"artifact {digest} is damaged: {error}", hint="deploy its commit again") from error
        with packed:
            yield packed

    @contextmanager
    def _lock(self) -> Iterator[int]:
        """The lock's descriptor, open but not held; the store's folders exist."""
        with _disk_errors(self.root):
            self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.root, self._zips, self._trees, self._dependencies, self._tmp):
                folder.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                yield lock
            finally:
                os.close(lock)

    def _remove_leftovers(self) -> None:
        for left in self._tmp.iterdir():
            trees.remove(left)


def _hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise UsageError(f"{digest!r} is not an artifact's digest", hint="a digest is sha256: and 64 hex digits")
    return match[1]


def _locked_alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_note(note: Path) -> _Note:
    try:
        return decode(note.read_bytes(), _Note, note.name)
    except (OSError, EngineError):
        return _Note()


def _last_used(entry: Path) -> float:
    try:
        return (entry / "manifest.json").stat().st_mtime
    except OSError:
        return 0.0


def _settled(fresh: Path, place: Path, workspace: WorkFolder, complete: Callable[[], T]) -> T:
    """Move a folder to its place, unless a complete one is there; what `complete` says of it in the end.

    An incomplete one goes to the work folder, which is removed.
    """
    for _ in range(3):
        try:
            fresh.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if found := complete():
            return found
        with suppress(FileNotFoundError):
            place.chmod(0o755)
            place.rename(Path(tempfile.mkdtemp(dir=workspace.folder)) / "broken")
    return complete()


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Turn the store's OSErrors into errors for the operator. Errors of a service's files are caught earlier."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            free = shutil.disk_usage(root).free if root.exists() else 0
            raise MachineError(
                f"the disk of {root} is full: {error.strerror}",
                hint="free space there, or choose another data folder with --data-dir",
                details={"free_bytes": free},
            ) from error
        name = error.filename or root
        raise MachineError(
            f"{name} cannot be written: {error.strerror}",
            hint="make the data folder writable, or choose another with --data-dir",
        ) from error
