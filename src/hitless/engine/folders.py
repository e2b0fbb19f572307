"""The folders of an engine: the data folder, and a short runtime folder for its sockets.

The path of a Unix socket is limited (97 bytes with HAProxy). So sockets are in a folder that is named by a hash of the
data folder's real path, under `$XDG_RUNTIME_DIR`, `/run` if it is writable, or else the temporary folder. The data
folder records which one, so that a shell with another `$XDG_RUNTIME_DIR` (cron, ssh, a unit) finds it. Both folders
must be the user's own and are 0700 if hitless made them; a data folder that existed before keeps its mode.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import stat
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hitless.errors import ConflictError, MachineError
from hitless.gateway.guardian import LOCK
from hitless.gateway.life import haproxy_is_alive as haproxy_is_alive
from hitless.worker.process import is_locked

RUN_LINK = "run"
UNIT = "unit"
"""The file of a data folder whose daemon systemd starts: the unit's name, and its runtime folder."""
PROBE_S = 0.3
"""A command that checks for a running engine holds its lock for an instant; that must not look like an engine."""


class Folders:
    """An engine's data folder and runtime folder, and the paths in them."""

    def __init__(self, data: Path, run: Path) -> None:
        self.data, self.run, self.api_socket = data, run, run / "api.sock"
        self.state_file, self.artifacts, self.logs = data / "state.sqlite", data / "artifacts", data / "logs"
        self.daemon_log, self.settings_file = data / "engine.log", data / "engine.json"
        self.lock_file = data / "engine.lock"
        self.unit_file, self.start_error = data / UNIT, data / "start-error.json"

    @property
    def is_managed(self) -> bool:
        """Whether a unit of systemd starts the daemon (`hitless host install`)."""
        return self.unit_file.exists()

    @classmethod
    def of(cls, data: Path, environ: Mapping[str, str]) -> Folders:
        """The folders of a data folder; creates nothing. Raises MachineError if the data folder cannot be read."""
        real = data.resolve()
        link = real / RUN_LINK
        try:
            if link.is_symlink() and _is_ours(recorded := Path(os.readlink(link))):
                return cls(real, recorded)
        except PermissionError as error:
            raise _inaccessible(real) from error
        if (unit := real / UNIT).exists():
            environ = {"XDG_RUNTIME_DIR": unit.read_text().split()[1]}
        name = f"hitless-{os.getuid()}-{hashlib.sha256(str(real).encode()).hexdigest()[:12]}"
        # macOS's $TMPDIR is too long for sockets; /tmp exists on every system that HAProxy supports
        writable = (base for base in ("/run", "/tmp") if os.access(base, os.W_OK))
        return cls(real, Path(environ.get("XDG_RUNTIME_DIR") or next(writable, tempfile.gettempdir())) / name)

    def create(self) -> None:
        """Make both folders and the private ones in the data folder.

        Raises MachineError if they cannot be made, belong to another user, or are writable by all users.
        """
        for folder in (self.data, self.run):
            try:
                _make_private(folder)
                if folder == self.run:
                    folder.chmod(0o700)
                else:
                    self.artifacts.mkdir(mode=0o700, exist_ok=True)
                    self.logs.mkdir(mode=0o700, exist_ok=True)
                    # the state file holds secrets, but a folder with the user's own files is left alone
                    if not any((self.data / name).exists() for name in (".gitignore", ".git", "serverless.yml")):
                        (self.data / ".gitignore").write_text("*\n")
                probe = folder / f".write-{os.getpid()}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                if isinstance(error, FileExistsError | NotADirectoryError):
                    raise MachineError(f"{folder} is a file", hint="choose a folder with --data-dir") from error
                raise MachineError(
                    f"{folder}: {error.strerror}", hint="make the folder writable, or choose another with --data-dir"
                ) from error

    @property
    def is_open_to_others(self) -> bool:
        """Whether other users may read the data folder; hitless did not make such a folder."""
        return self.data.exists() and bool(self.data.stat().st_mode & 0o066)

    @property
    def is_shared(self) -> bool:
        """Whether several services share the engine, by its settings."""
        with suppress(OSError, ValueError):
            return bool(json.loads(self.settings_file.read_bytes()).get("shared"))
        return False

    def record_run_folder(self) -> None:
        """Record the runtime folder in the data folder. Only the holder of the engine's lock may call this."""
        new = self.data / f".{RUN_LINK}-new"
        new.unlink(missing_ok=True)
        new.symlink_to(self.run)
        new.replace(self.data / RUN_LINK)

    def remove_run_folder(self) -> None:
        with suppress(OSError):
            self.run.rmdir()

    def engine_is_alive(self) -> bool:
        """Whether a daemon holds the data folder's lock. The kernel frees it when the process ends."""
        return is_locked(self.lock_file)

    def listens(self) -> bool:
        """Whether a guardian or HAProxy is alive, and with it the addresses that the engine was started with."""
        gateway = self.run / "gw"
        return is_locked(gateway / LOCK) or haproxy_is_alive(str(gateway))

    def remains(self) -> bool:
        """Whether any process of an engine is alive: its daemon, or one that outlives it."""
        # not with `rglob`, which fails if a folder disappears in the meantime
        locks = (Path(base, name) for base, _, names in os.walk(self.run) for name in names if name.endswith(".lock"))
        return self.engine_is_alive() or any(map(is_locked, locks)) or haproxy_is_alive(str(self.run / "gw"))


def site_name(service: str, stage: str) -> str:
    """The name of a service's stage at a shared engine. No stage's name in serverless.yml may have an underscore."""
    return f"{service}_{stage}"


def service_of(stage: str) -> str:
    """The service in the name of a stage, or of a preview, at a shared engine; "" if it has none."""
    return stage.partition("_")[0] if "_" in stage else ""


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(folder):
        raise MachineError(f"{folder} belongs to another user", hint="use another --data-dir or XDG_RUNTIME_DIR")
    if folder.stat().st_mode & stat.S_IWOTH:
        raise MachineError(f"{folder} is writable by everybody", hint=f"`chmod 700 {folder}`, or choose another folder")


def _inaccessible(folder: Path) -> MachineError:
    """The error for a folder that this user cannot read: names the owner of the innermost visible folder."""
    path = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    uid = path.stat().st_uid
    try:
        owner = pwd.getpwuid(uid).pw_name
    except KeyError:
        owner = f"user {uid}"
    return MachineError(
        f"{path} is not accessible: it belongs to {owner}",
        hint=f"run as {owner} (`sudo -u {owner} hitless …`), or choose another folder with --data-dir",
    )


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def hold(lock: Path) -> int:
    """Wait for the lock, and hold it until this process ends or the descriptor is closed. No child inherits it."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def lock_engine(path: Path) -> int:
    """Hold the lock of a data folder's only daemon, as `hold` does. ConflictError if another daemon holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + PROBE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if time.monotonic() < end:
                time.sleep(0.01)
                continue
            os.close(descriptor)
            raise ConflictError(
                f"another engine is running on {path.parent}", hint="`hitless status` shows it, `hitless down` stops it"
            ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
