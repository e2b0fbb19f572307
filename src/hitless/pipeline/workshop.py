"""The folders of a pipeline, and the users that its builds run as.

The data folder has the repository, the definition, the parameters, and each run's log and candidate. On an engine that
several services share, each service has the first three in a folder of its own. Builds work in another folder. If the
engine is root, that folder is in /var/lib, where builds' users can reach it but no file of the engine. Only root can
write to the folders above a build's, because tools look for settings in all folders above.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hitless.errors import MachineError, UsageError
from hitless.pipeline.buildspec.files import remove
from hitless.pipeline.buildspec.run import User
from hitless.pipeline.environments import withdraw

OUTSIDE = Path("/var/lib")
PREFIX, OWNER, SERVICES = "hitless-builds-", "owner", "services"
BUILD_USERS = ("hitless-build", "nobody")
BUILD_UIDS = range(60706, 61184)
"""User ids that no distribution and no service manager uses (systemd.io/UIDS-GIDS)."""

_NOT_READ = shutil.ignore_patterns(
    *(".hitless", ".git", ".venv", "venv", "node_modules", ".serverless", "__pycache__", ".pytest_cache", ".mypy_cache")
)
"""These contain no configuration."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """The paths of one pipeline. `user` runs the commands of `notify`; None when the engine is not root."""

    data: Path
    work: Path
    user: User | None
    service: str = ""
    """On an engine that several services share: the pipeline's service."""

    @classmethod
    def of(cls, data: Path, environ: Mapping[str, str], service: str = "") -> Workshop:
        """The workshop of a data folder; creates nothing. `$HITLESS_BUILD_USER` names another build user."""
        home = data / "pipeline"
        if os.getuid() != 0:
            return cls(home, home / "work", None, service)
        return cls(home, _outside(data), _build_user(environ.get("HITLESS_BUILD_USER")), service)

    @property
    def own(self) -> Path:
        """The folder of the service's files; all services share the numbers and folders of runs."""
        return self.data / SERVICES / self.service if self.service else self.data

    @property
    def repository(self) -> Path:
        return self.own / "repository.git"

    @property
    def definition(self) -> Path:
        return self.own / "definition.json"

    @property
    def parameters(self) -> Path:
        return self.own / "parameters.yml"

    @property
    def environments(self) -> Path:
        return self.work / "environments"

    @property
    def caches(self) -> Path:
        return self.work / "caches"

    def of_run(self, run: int) -> Path:
        """A run's folder that is kept: log, candidate, question, artifacts."""
        return self.data / "runs" / str(run)

    def service_of(self, run: int) -> Path:
        """The private copy of the service's folder that a promotion named."""
        return self.of_run(run) / "service"

    def keep_service(self, run: int, named: Path) -> None:
        """Copy the folder for the run, as it is now. Blocking. Raises UsageError."""
        kept, data = self.service_of(run), self.data.parent.resolve()

        def ignore(folder: str, names: list[str]) -> set[str]:
            return _NOT_READ(folder, names) | {name for name in names if (Path(folder) / name).resolve() == data}

        try:
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copytree(named, kept, symlinks=True, ignore=ignore)
            kept.chmod(0o700)
            if (modules := named / "node_modules").is_dir():
                (kept / "node_modules").symlink_to(modules)  # plugins of the service, and its own osls
        except (OSError, shutil.Error) as error:
            remove(kept)
            raise UsageError(f"{named} cannot be copied: {error}", hint="make all its files readable") from error

    def artifacts_of(self, run: int, step: str) -> Path:
        """The artifacts of a step's buildspec."""
        return self.of_run(run) / f"{step}-artifacts"

    def log(self, run: int) -> Path:
        return self.of_run(run) / "log"

    def work_of(self, run: int) -> Path:
        """The folder of a run's builds; removed when the run ends."""
        return self.work / f"run-{run}"

    @contextmanager
    def run_user(self, run: int) -> Iterator[User | None]:
        """The user of a run's builds. No other build on this machine has it at the same time, so it cannot read or
        change their files. None if the engine is not root. Raises MachineError.
        """
        with socket.socket(socket.AF_UNIX) as held:
            yield _take_user(held, run) if self.user else None

    def create(self) -> None:
        """Make the folders. Raises MachineError if another user's folder is in the way."""
        try:
            for folder in (self.data, self.data / "runs", self.own):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.work.mkdir(mode=0o711, parents=True, exist_ok=True)
            if self.work.is_symlink() or self.work.stat().st_uid != os.getuid():
                raise MachineError(f"{self.work} belongs to another user", hint="remove it, or ask its owner")
            self.work.chmod(0o711 if self.user else 0o700)
            for folder in (self.environments, self.caches):
                folder.mkdir(mode=0o711 if self.user else 0o700, exist_ok=True)
            if self.user:
                (self.work / OWNER).write_text(str(self.data))
                _sweep(self.work.parent)
        except OSError as error:
            raise MachineError(f"{error.filename}: {error.strerror}", hint="make the folder writable") from error

    def make(self, folder: Path, user: User | None = None) -> Path:
        """Make a private folder for that user, or for the engine's user (None)."""
        folder.mkdir(mode=0o700, parents=False)
        if user:
            os.chown(folder, user.uid, user.gid, follow_symlinks=False)
        return folder

    def clean(self, run: int) -> None:
        """Remove a run's working folder. Blocking."""
        remove(self.work_of(run))

    def remove(self, runs: Iterable[int]) -> None:
        """Remove the service's files and those of its runs. The parameters stay, because a person wrote them."""
        for folder in (*map(self.of_run, runs), *(self.own.iterdir() if self.own.is_dir() else ())):
            if folder != self.parameters:
                remove(folder)
        with suppress(OSError):
            self.own.rmdir()

    def clean_all(self) -> None:
        """Remove the working folders that a dead daemon's runs left."""
        for folder in self.work.glob("run-*") if self.work.is_dir() else ():
            remove(folder)
        for place in self.environments.glob("*-?"):
            withdraw(place)


def remove_build_folder(data: Path) -> None:
    """Remove the builds' folder outside of the data folder after the engine has stopped. Blocking."""
    folder = _outside(data)
    if os.getuid() == 0 and folder.is_dir() and folder.lstat().st_uid == 0:
        remove(folder)


def _outside(data: Path) -> Path:
    return OUTSIDE / f"{PREFIX}{hashlib.sha256(str(data).encode()).hexdigest()[:12]}"


def _sweep(place: Path) -> None:
    """Remove the build folders of engines whose data folder is gone."""
    for folder in place.glob(f"{PREFIX}*"):
        owner = folder / OWNER
        with suppress(OSError):  # it has no owner yet, or another starting engine has just removed it
            if owner.stat().st_uid == os.getuid() and not Path(owner.read_text()).exists():
                remove(folder)


def _take_user(held: socket.socket, first: int) -> User:
    """A free id of BUILD_UIDS, starting at `first`; `held` reserves it until it is closed."""
    for offset in range(len(BUILD_UIDS)):
        number = BUILD_UIDS[(first + offset) % len(BUILD_UIDS)]
        with suppress(OSError):
            held.bind(f"\0hitless-build-user-{number}")
            return User(number, number)
    raise MachineError("all user ids for builds are in use", hint="wait until other builds have ended")


def _build_user(name: str | None) -> User:
    for candidate in (name,) if name else BUILD_USERS:
        try:
            found = pwd.getpwnam(candidate)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return User(found.pw_uid, found.pw_gid)
    raise MachineError(
        f"there is no unprivileged user {name or ' or '.join(BUILD_USERS)} to run builds as",
        hint="create one with `useradd --system hitless-build`, or name an existing one in HITLESS_BUILD_USER",
    )
