"""The daemon's part of isolation: what the machine's owner allows, the user ids of handlers, and what is missing here.

The worker's part, which isolates itself, is `hitless.worker.isolation`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hitless.documents import replace_file
from hitless.errors import MachineError
from hitless.worker.isolation import OFF as OFF
from hitless.worker.users import SUBORDINATE as SUBORDINATE
from hitless.worker.users import lent as lent
from hitless.workers.libraries import base_python, inherited_environment, isolated_command

MODE_VARIABLE: Final = "HITLESS_ISOLATION"
PATHS_VARIABLE: Final = "HITLESS_HANDLER_PATHS"
USERS_VARIABLE: Final = "HITLESS_USERS"
"""Set by the unit: the socket of `hitless.worker.users`, which lends each service of the engine a user id."""
REQUIRED: Final = "required"
HANDLER_UIDS = range(60578, 60706)
"""User ids that no distribution and no service manager uses (systemd.io/UIDS-GIDS); builds have those above."""


def isolation_settings(service: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings of `hitless.worker.isolation.isolate` for a service's handlers. Raises MachineError."""
    mode, paths = environ.get(MODE_VARIABLE, ""), environ.get(PATHS_VARIABLE, "").split(":")
    if mode not in ("", OFF, REQUIRED):
        raise MachineError(f"{MODE_VARIABLE}={mode} is not valid", hint=f"use {REQUIRED} or {OFF}, or unset it")
    if bad := [path for path in paths if path and (not path.startswith("/") or path.rstrip("/") == "")]:
        raise MachineError(f"{PATHS_VARIABLE}: {bad[0]} is not valid", hint="list absolute paths, separated by colons")
    settings = {"mode": mode, "paths": [*filter(None, paths), *map(os.path.realpath, filter(None, paths))]}
    if mode != OFF and os.getuid() != 0 and (users := environ.get(USERS_VARIABLE)):
        return settings | {"users": users, "place": place_of(service, Path(environ["HOME"]))}
    return settings | {"uid": handler_uid(service, SUBORDINATE[0]) if os.getuid() == 0 and mode != OFF else 0}


def handlers_see(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether isolated handlers may read a file that belongs neither to the system nor to their function."""
    settings = isolation_settings("", environ)
    return settings["mode"] == OFF or any(path.resolve().is_relative_to(shown) for shown in settings["paths"])


def handler_uid(service: str, subordinate: Path) -> int:
    """The service's user id: the same on each start, and nobody else's. Raises MachineError if all are in use.

    `subordinate` lists the ids that containers of users may have: lines of `name:first:count`.
    """
    rows = re.findall(r"(?m)^[^:]+:(\d+):(\d+)$", subordinate.read_text() if subordinate.exists() else "")
    lent = [range(int(first), int(first) + int(count)) for first, count in rows]
    taken = {user.pw_uid for user in pwd.getpwall()}
    free = [uid for uid in HANDLER_UIDS if uid not in taken and not any(uid in each for each in lent)]
    if not free:
        raise MachineError(
            f"the user ids {HANDLER_UIDS[0]} to {HANDLER_UIDS[-1]} are in use, so no handler can have one of its own",
            hint=f"free one in /etc/passwd or {subordinate}",
        )
    return free[int.from_bytes(hashlib.sha256(service.encode()).digest()[:4], "big") % len(free)]


def place_of(service: str, home: Path) -> int:
    """The service's place among those that the engine has ever run, which a file in `home` records. Blocking.

    The first one is for processes without a service. Raises MachineError.
    """
    file = home / "users.json"
    try:
        folder = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            services: list[str] = json.loads(file.read_text()) if file.exists() else [""]
            if service not in services:
                services.append(service)
                replace_file(file, json.dumps(services), mode=0o600, durable=True)
            return services.index(service)
        finally:
            os.close(folder)
    except (OSError, ValueError) as error:
        hint = "it gives each service its user id; restore it, or remove it together with the folder logs"
        raise MachineError(f"{file}: {error}", hint=hint) from error


def missing_measures(environ: Mapping[str, str]) -> list[str]:
    """The measures that this machine does not allow, each with its reason: a process tries all of them. Blocking.

    Raises MachineError if one is missing and the owner requires all.
    """
    settings = isolation_settings("", environ)
    command = isolated_command(base_python(), "isolation", json.dumps(settings))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=inherited_environment(), cwd="/")
    missing: list[str] = json.loads(done.stdout) if done.stdout else [f"anything ({done.stderr.strip()[-200:]})"]
    if environ.get(USERS_VARIABLE) == "" and settings["mode"] != OFF:
        missing.append(f"a user of its own ({USERS_VARIABLE} is empty)")
    if missing and settings["mode"] == REQUIRED:
        raise MachineError(
            f"{MODE_VARIABLE}={REQUIRED}, but this machine does not isolate handlers by {'; '.join(missing)}",
            hint="docs/security.md says what each measure needs",
        )
    return missing
