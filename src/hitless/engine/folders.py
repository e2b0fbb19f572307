"""Where an engine keeps its things: the data folder, and a short runtime folder for its sockets.

Paths of Unix sockets are limited (about 97 bytes as HAProxy binds them), so sockets live in a folder named by a hash of
the data folder's real path, under `$XDG_RUNTIME_DIR`, `/run` if that is writable, or else the temporary folder, where
cleaners look for what is old (the guardian holds the lock that they honour). Both folders are ours, and 0700 where
we made them: a data folder that was there before keeps its mode, and what we put into it is private. A runtime folder
that another user made first is refused. Which one it is stands in the data folder while it exists, so
that a shell without the `$XDG_RUNTIME_DIR` of the one that started the engine (cron, ssh, a unit) finds it too.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hitless.errors import ConflictError, MachineError
from hitless.gateway.guardian import LOCK
from hitless.gateway.life import haproxy_is_alive as haproxy_is_alive
from hitless.worker.process import is_locked

RUN_LINK = "run"
GLANCE_S = 0.3
"""Whoever asks whether an engine runs holds its lock for an instant, which is not to be taken for an engine."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The paths of one engine."""

    data: Path
    run: Path

    @classmethod
    def of(cls, data: Path, environ: Mapping[str, str]) -> Folders:
        """The folders that belong to a data folder; nothing is created. MachineError where that one is closed."""
        real = data.resolve()
        link = real / RUN_LINK
        try:
            if link.is_symlink() and _is_ours(recorded := Path(os.readlink(link))):
                return cls(real, recorded)
        except PermissionError as error:
            raise _inaccessible(real) from error
        name = f"hitless-{os.getuid()}-{hashlib.sha256(str(real).encode()).hexdigest()[:12]}"
        # macOS's $TMPDIR is too long for sockets; /tmp is there on every system that HAProxy runs on
        writable = (base for base in ("/run", "/tmp") if os.access(base, os.W_OK))
        return cls(real, Path(environ.get("XDG_RUNTIME_DIR") or next(writable, tempfile.gettempdir())) / name)

    @property
    def state_file(self) -> Path:
        return self.data / "state.sqlite"

    @property
    def artifacts(self) -> Path:
        return self.data / "artifacts"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def daemon_log(self) -> Path:
        return self.data / "engine.log"

    @property
    def settings_file(self) -> Path:
        return self.data / "engine.json"

    @property
    def lock_file(self) -> Path:
        return self.data / "engine.lock"

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    def create(self) -> None:
        """Make both folders, and private ones in the data folder. Raises MachineError where they cannot be made, belong
        to another, or anybody may write to them.
        """
        for folder in (self.data, self.run):
            try:
                _make_private(folder)
                if folder == self.run:
                    folder.chmod(0o700)
                else:
                    self.artifacts.mkdir(mode=0o700, exist_ok=True)
                    self.logs.mkdir(mode=0o700, exist_ok=True)
                    # the state file holds secrets; a folder with the user's own files in it stays as it is
                    if not any((self.data / name).exists() for name in (".gitignore", ".git", "serverless.yml")):
                        (self.data / ".gitignore").write_text("*\n")
                probe = folder / f".write-{os.getpid()}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                if isinstance(error, FileExistsError | NotADirectoryError):
                    raise MachineError(f"{folder}: a file is in the way", hint="name a folder by --data-dir") from error
                raise MachineError(
                    f"{folder}: {error.strerror}", hint="make the folder writable, or name another one by --data-dir"
                ) from error

    @property
    def is_open_to_others(self) -> bool:
        """Whether others than the owner may look into the data folder, which hitless did not make then."""
        return self.data.exists() and bool(self.data.stat().st_mode & 0o066)

    def record_run_folder(self) -> None:
        """Leave word in the data folder of where the runtime folder is. For the one who holds the engine's lock."""
        new = self.data / f".{RUN_LINK}-new"
        new.unlink(missing_ok=True)
        new.symlink_to(self.run)
        new.replace(self.data / RUN_LINK)

    def remove_run_folder(self) -> None:
        """Remove the runtime folder once nothing is left in it."""
        with suppress(OSError):
            self.run.rmdir()

    def engine_is_alive(self) -> bool:
        """Whether a daemon holds the data folder's lock (the kernel frees it with the process, however it ends)."""
        return is_locked(self.lock_file)

    def listens(self) -> bool:
        """Whether a guardian or a HAProxy lives, and so the addresses that an engine was started with."""
        gateway = self.run / "gw"
        return is_locked(gateway / LOCK) or haproxy_is_alive(str(gateway))

    def remains(self) -> bool:
        """Whether anything of an engine still runs here, its daemon or only the parts that outlive it."""
        return (
            self.engine_is_alive()
            or any(is_locked(path) for path in self._locks())
            or haproxy_is_alive(str(self.run / "gw"))
        )

    def _locks(self) -> Iterator[Path]:
        """Every lock file of the runtime folder, while its folders may go: `rglob` fails on one that just went."""
        for base, _, names in os.walk(self.run):
            yield from (Path(base, name) for name in names if name.endswith(".lock"))


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(folder):
        raise MachineError(
            f"{folder} belongs to another user", hint="name another folder by --data-dir or XDG_RUNTIME_DIR"
        )
    if folder.stat().st_mode & stat.S_IWOTH:
        raise MachineError(f"anybody may write to {folder}", hint=f"`chmod 700 {folder}`, or name another folder")


def _inaccessible(folder: Path) -> MachineError:
    """Whose the innermost folder on the way is that can be seen at all."""
    path = next(path for path in (folder, *folder.parents) if _is_visible(path))
    uid = path.stat().st_uid
    try:
        owner = pwd.getpwuid(uid).pw_name
    except KeyError:
        owner = f"user {uid}"
    return MachineError(
        f"{path} is closed to this user: it belongs to {owner}",
        hint=f"call as {owner} (`sudo -u {owner} hitless …`), or name another folder by --data-dir",
    )


def _is_visible(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return False
    return True


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Wait until no other process is inside a block with this file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class EngineLock:
    """The exclusive right to be the daemon of a data folder; held until the process ends."""

    def __init__(self, path: Path) -> None:
        """Raises ConflictError where another daemon holds it."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + GLANCE_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() < end:
                    time.sleep(0.01)
                    continue
                os.close(self._descriptor)
                raise ConflictError(
                    f"another engine runs on {path.parent}", hint="`hitless status` shows it, `hitless down` stops it"
                ) from error
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        os.close(self._descriptor)
