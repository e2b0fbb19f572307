"""Commands of root on a service of this host act as the service's own user, with the engine's environment."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from hitless.engine.folders import UNIT
from hitless.errors import MachineError
from hitless.workers.isolation import USERS_VARIABLE

CONFIG = Path("/etc/hitless")


def become_owner(data: Path, config: Path = CONFIG) -> None:
    """If this process is root and systemd starts the engine of the folder, become the folder's owner for good."""
    if os.geteuid() != 0 or not (data / UNIT).exists():
        return
    uid = data.stat().st_uid
    try:
        owner = pwd.getpwuid(uid)
    except KeyError as error:
        raise MachineError(
            f"{data} belongs to user {uid}, who does not exist", hint="`hitless host install NAME`"
        ) from error
    os.initgroups(owner.pw_name, owner.pw_gid)
    os.setresgid(owner.pw_gid, owner.pw_gid, owner.pw_gid)
    os.setresuid(uid, uid, uid)
    os.umask(0o077)
    if (users := Path(f"/run/hitless-users-{data.name}.sock")).exists():
        os.environ[USERS_VARIABLE] = str(users)
    os.environ.update(read_environment(config / data.name / "engine.env"), HOME=str(data))
    os.environ.pop("XDG_RUNTIME_DIR", None)


def read_environment(file: Path) -> dict[str, str]:
    """The NAME=value lines of the file, as systemd reads them without its escapes; empty if it is missing."""
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.strip().partition("=") for line in lines if "=" in line and not line.lstrip().startswith(("#", ";")))
    return {name: value.strip("\"'") for name, _, value in pairs}
