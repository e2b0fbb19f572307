"""Where the pipeline keeps its things, and where and as whom builds run.

Kept in the data folder: the repository, the definition, the parameters, each run's log and candidate. Builds work in a
folder of their own; where the engine is root that is one outside (/var/tmp), since the build's user must be able to
reach it and nothing of the engine's.
"""

from __future__ import annotations

import hashlib
import os
import pwd
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hitless.errors import MachineError
from hitless.pipeline.buildspec.run import User
from hitless.pipeline.removal import remove

OUTSIDE = Path("/var/tmp")
PREFIX, OWNER = "hitless-builds-", "owner"
BUILD_USERS = ("hitless-build", "nobody")
FORK_UIDS = range(60706, 61184)
"""Numbers that no distribution and no service manager gives to anybody (systemd.io/UIDS-GIDS)."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """The paths of one pipeline."""

    data: Path
    work: Path
    user: User | None

    @classmethod
    def of(cls, data: Path, environ: Mapping[str, str]) -> Workshop:
        """Of an engine's data folder; nothing is created. `$HITLESS_BUILD_USER` names another build user."""
        home = data / "pipeline"
        if os.getuid() != 0:
            return cls(home, home / "work", None)
        return cls(home, _outside(data), _build_user(environ.get("HITLESS_BUILD_USER")))

    @property
    def repository(self) -> Path:
        return self.data / "repository.git"

    @property
    def definition(self) -> Path:
        return self.data / "definition.json"

    @property
    def parameters(self) -> Path:
        return self.data / "parameters.yml"

    @property
    def environments(self) -> Path:
        return self.work / "environments"

    @property
    def caches(self) -> Path:
        return self.work / "caches"

    def of_run(self, run: int) -> Path:
        """What is kept of a run: log, candidate, rehearsal, artifacts."""
        return self.data / "runs" / str(run)

    def log(self, run: int) -> Path:
        return self.of_run(run) / "log"

    def work_of(self, run: int) -> Path:
        """Where a run's builds work; gone when it ends."""
        return self.work / f"run-{run}"

    def fork_user(self, run: int) -> User | None:
        """Who a stranger's build runs as: nobody else, so that it can neither read nor leave anything that another
        build works with. None where the engine cannot run builds as somebody else.
        """
        number = FORK_UIDS[run % len(FORK_UIDS)]
        return User(number, number, alone=True) if self.user else None

    def create(self) -> None:
        """Make the folders. Raises MachineError where another user's folder stands in the way."""
        try:
            for folder in (self.data, self.data / "runs"):
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

    def make(self, folder: Path, *, for_builds: bool) -> Path:
        """A new private folder: the build user's where builds write to it, else ours."""
        return self.make_for(self.user if for_builds else None, folder)

    def make_for(self, user: User | None, folder: Path) -> Path:
        """A new private folder of that user's; ours for None."""
        folder.mkdir(mode=0o700, parents=False)
        if user:
            os.chown(folder, user.uid, user.gid)
        return folder

    def clean(self, run: int) -> None:
        """Remove a run's working folder. Blocking."""
        remove(self.work_of(run))

    def forget(self, run: int) -> None:
        """Remove what was kept of a run."""
        remove(self.of_run(run))

    def clean_all(self) -> None:
        """Remove what runs of a daemon that died left behind."""
        for folder in self.work.glob("run-*") if self.work.is_dir() else ():
            remove(folder)


def vacate(data: Path) -> None:
    """Remove what builds keep outside of an engine's data folder, for the one who has ended it: who then removes the
    data folder leaves nothing. The next run makes it anew. Blocking.
    """
    folder = _outside(data)
    if os.getuid() == 0 and folder.is_dir() and folder.lstat().st_uid == 0:
        remove(folder)


def _outside(data: Path) -> Path:
    return OUTSIDE / f"{PREFIX}{hashlib.sha256(str(data).encode()).hexdigest()[:12]}"


def _sweep(place: Path) -> None:
    """Remove the build folders of engines whose data folder is gone: nobody else would."""
    for folder in place.glob(f"{PREFIX}*"):
        owner = folder / OWNER
        with suppress(OSError):  # it has none yet, or another engine that starts has just swept it
            if owner.stat().st_uid == os.getuid() and not Path(owner.read_text()).exists():
                remove(folder)


def _build_user(name: str | None) -> User:
    for candidate in (name,) if name else BUILD_USERS:
        try:
            found = pwd.getpwnam(candidate)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return User(found.pw_uid, found.pw_gid)
    raise MachineError(
        f"there is no user {name or ' or '.join(BUILD_USERS)} to run builds as",
        hint="useradd --system hitless-build, or name one in HITLESS_BUILD_USER",
    )
