"""`hitless host`: this machine as a host of services. A unit of systemd for each service starts its engine at boot.

Each engine has a system user, a data folder, a folder of settings, and a range of user ids for the handlers of its
services. No process runs as root. Every step may be repeated after a power cut.
"""

from __future__ import annotations

import fcntl
import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hitless.api.client import EngineClient
from hitless.cli.common import Context, command
from hitless.documents import replace_file
from hitless.engine.folders import UNIT
from hitless.errors import HitlessError, MachineError, UsageError
from hitless.gateway.binary import find_haproxy
from hitless.workers.isolation import SUBORDINATE, lent

DATA, CONFIG, UNITS = Path("/var/lib/hitless"), Path("/etc/hitless"), Path("/etc/systemd/system")
TEMPLATE: Final = "hitless@.service"
USERS_SERVICE, USERS_SOCKET = "hitless-users@.service", "hitless-users@.socket"
TEMPLATES: Final = (USERS_SERVICE, USERS_SOCKET, TEMPLATE)
LENT: Final = 256
"""User ids for the services of an engine."""
LENT_WITHIN: Final = range(100_000, 524_288)
"""Where `useradd` begins with ranges for people, to where systemd-nspawn begins with those of containers."""
HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Folders that the unit does not show to the engine."""
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,18}[a-z0-9]")
_ENVIRONMENT: Final = """\
# The engine's environment: NAME=value lines. `hitless status` and the other commands use it too.
HITLESS_SECRETS_KEY_FILE={folder}/secrets.key
"""
Run = Callable[[Sequence[str]], str]

NameArgument = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The service; default: all.")]


def run_command(words: Sequence[str]) -> str:
    """Run a command of the system and return its output. MachineError with its last line if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise MachineError(f"{words[0]} cannot be run: {error.strerror}", hint="install systemd and passwd") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise MachineError(f"`{' '.join(words)}`: {said[-1]}", hint=f"repeat it by hand: {' '.join(words)}")
    return done.stdout


def stable_python(prefix: str) -> str | None:
    """The Debian package's interpreter by the link `current`, which outlives the version in `prefix`; else None."""
    current = Path(prefix).with_name("current")
    return str(current / "bin/python") if current.is_symlink() and current.resolve() == Path(prefix).resolve() else None


@dataclass(frozen=True, slots=True)
class HostUnits:
    """The machine below `root`, and its commands."""

    root: Path = Path("/")
    run: Run = run_command
    python: str = field(default_factory=lambda: stable_python(sys.prefix) or sys.executable)

    def at(self, path: Path) -> Path:
        return self.root / path.relative_to("/")

    def names(self) -> list[str]:
        """The installed services, by name."""
        folders = (self.at(CONFIG), self.at(DATA))
        return sorted({one.name for folder in folders if folder.is_dir() for one in folder.iterdir() if one.is_dir()})

    def unit_text(self, template: str = TEMPLATE) -> str:
        text = resources.files("hitless.cli").joinpath(template).read_text()
        for name, value in (("python", self.python), ("data", DATA), ("config", CONFIG)):
            text = text.replace(f"{{{name}}}", str(value))
        return text

    def install(self, name: str | None) -> None:
        """Write the template of the units, and set up and start a service's. MachineError, UsageError."""
        if name is not None and not _NAME.fullmatch(name):
            raise UsageError(
                f"{name} is not a valid name", hint="use 2 to 20 of a-z, 0-9 and -, starting with a letter"
            )
        if self.python.startswith(tuple(f"{folder}/" for folder in HIDDEN)):
            raise MachineError(
                f"services cannot use {self.python}: other users do not see this folder",
                hint="install for all users: python3 -m venv /opt/hitless; /opt/hitless/bin/pip install hitless",
            )
        for folder in (UNITS, DATA, CONFIG):
            self.at(folder).mkdir(mode=0o755, parents=True, exist_ok=True)
        alone = os.open(self.at(UNITS), os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(alone, fcntl.LOCK_EX)  # two at once could lend the same ids
            self._install(name)
        finally:
            os.close(alone)

    def _install(self, name: str | None) -> None:
        if name is not None:
            self._add(name)
        names = [one for one in ([name] if name else self.names()) if name or _uid(f"hitless-{one}") is not None]
        for one in names:
            self._lend(f"hitless-{one}")
        for template in TEMPLATES:
            replace_file(self.at(UNITS / template), self.unit_text(template), mode=0o644, durable=True)
        self.run(["systemctl", "daemon-reload"])
        for one in names:  # a running engine gets it when its daemon is restarted
            self.run(["systemctl", "start", f"hitless-users@{one}.socket"])
        if name is not None:
            self.run(["systemctl", "enable", "--now", f"hitless@{name}.service"])

    def _add(self, name: str) -> None:
        user, data, config = f"hitless-{name}", self.at(DATA / name), self.at(CONFIG / name)
        if _uid(user) is None:
            home = str(DATA / name)
            words = ["--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell", "/usr/sbin/nologin"]
            self.run(["useradd", *words, user])
        for folder in (data, config):
            folder.mkdir(mode=0o700, exist_ok=True)
        if not (environment := config / "engine.env").exists():
            replace_file(environment, _ENVIRONMENT.format(folder=CONFIG / name), mode=0o600)
        replace_file(data / UNIT, f"hitless@{name}.service\n/run/hitless-{name}\n", mode=0o644)
        foreign = data.stat().st_uid not in (0, _uid(user))  # of a user who was removed; services' users keep theirs
        words = ["-R"] if foreign else ["-h", "--from=root"]
        made = [data, config] if foreign else [data, config, environment, data / UNIT]
        self.run(["chown", *words, f"{user}:{user}", *map(str, made)])

    def _lend(self, user: str) -> None:
        """Lend the engine's user a range of ids, which no user, group or other range has. MachineError."""
        files, uid = [self.at(file) for file in SUBORDINATE], _uid(user) or -1
        if lent(user, uid, files):
            return
        for file in files:
            file.parent.mkdir(exist_ok=True)
            file.touch(mode=0o644)  # usermod adds to no missing file
        text = "".join(file.read_text() for file in files)
        rows = re.findall(r"(?m)^[^:]+:(\d+):(\d+)$", text)
        taken = [range(int(first), int(first) + int(count)) for first, count in rows]

        def is_free(ids: range) -> bool:
            beside = all(ids.stop <= one.start or one.stop <= ids.start for one in taken)
            return beside and not any(map(_is_used, ids))

        half = [found for file in files if (found := lent(user, uid, [file]))]  # the power was cut between the files
        blocks = (range(end - LENT, end) for end in range(LENT_WITHIN.stop, LENT_WITHIN.start, -LENT))
        ids = half[0] if half else next(filter(is_free, blocks), None)
        if ids is None:
            raise MachineError(f"no {LENT} user ids below {LENT_WITHIN.stop} are free", hint=f"free some in {files[0]}")
        span = f"{ids.start}-{ids.stop - 1}"
        self.run(["usermod", "--add-subuids", span, "--add-subgids", span, user])

    def uninstall(self, name: str) -> None:
        """Stop a service and remove its user, data and settings."""
        unit, user = f"hitless@{name}.service", f"hitless-{name}"
        data, config = self.at(DATA / name), self.at(CONFIG / name)
        with suppress(HitlessError):  # no engine runs, or it does not end: systemd ends it
            self.run([self.python, "-m", "hitless", "down", "--engine", "--data-dir", str(data)])
        with suppress(HitlessError):
            self.run(["systemctl", "disable", "--now", unit])
        helpers = [f"hitless-users@{name}.socket", f"hitless-users@{name}.service"]
        with suppress(HitlessError):
            self.run(["systemctl", "stop", *helpers])
        ids = lent(user, _uid(user) or -1, [self.at(file) for file in SUBORDINATE])
        with suppress(HitlessError):
            self.run(["pkill", "--signal", "KILL", "--uid", ",".join([user, *map(str, ids)])])
        drop_ins = [self.at(UNITS / f"{one}.d") for one in (unit, *helpers)]
        for folder in (data, self.at(Path(f"/run/hitless-{name}")), *drop_ins):
            shutil.rmtree(folder, ignore_errors=True)
        if _uid(user) is not None:
            self.run(["userdel", user])  # takes its lines out of /etc/subuid and /etc/subgid
        shutil.rmtree(config, ignore_errors=True)  # last: it makes the service known

    def remove_template(self) -> None:
        """Remove what is left when the last service is gone."""
        for template in TEMPLATES:
            self.at(UNITS / template).unlink(missing_ok=True)
        for folder in (DATA, CONFIG):
            with suppress(OSError):
                self.at(folder).rmdir()
        self.run(["systemctl", "daemon-reload"])

    def status(self) -> list[dict[str, Any]]:
        """Each service with its unit's state and its stages."""
        return [self._status(name) for name in self.names()]

    def _status(self, name: str) -> dict[str, Any]:
        unit = f"hitless@{name}.service"
        asked = ("ActiveState", "UnitFileState", "NRestarts", "MemoryCurrent")
        shown = self.run(["systemctl", "show", unit, *(f"--property={one}" for one in asked)])
        known = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        memory, user = known.get("MemoryCurrent", ""), f"hitless-{name}"
        ids = lent(user, _uid(user) or -1, [self.at(file) for file in SUBORDINATE])
        found: dict[str, Any] = {
            "service": name,
            "unit": unit,
            "active": known.get("ActiveState"),
            "at_boot": known.get("UnitFileState") == "enabled",
            "restarts": int(known.get("NRestarts") or 0),
            "memory_bytes": int(memory) if memory.isdigit() else None,
            "handler_users": f"{ids.start}-{ids.stop - 1}" if ids else None,
            "stages": [],
        }
        try:
            stages = EngineClient(self.at(DATA / name / "run") / "api.sock").call("GET", "/status")["stages"]
        except HitlessError as error:
            return found | {"error": error.message}
        return found | {
            "stages": [
                {"stage": one["stage"], "url": one["url"], "release": one["live"] and one["live"]["release"]}
                for one in stages
            ]
        }


def _uid(user: str) -> int | None:
    with suppress(KeyError):
        return pwd.getpwnam(user).pw_uid
    return None


def _is_used(number: int) -> bool:
    """Whether a user or a group has the id, also one of a directory service."""
    for look_up in (pwd.getpwuid, grp.getgrgid):
        with suppress(KeyError):
            look_up(number)
            return True
    return False


def _of_this_machine() -> HostUnits:
    if os.geteuid() != 0:
        raise MachineError("hitless host changes the system, which needs root", hint="use sudo")
    if not Path("/run/systemd/system").is_dir():
        raise MachineError("this machine was not started by systemd", hint="use `hitless up --detach` instead")
    return HostUnits()


@command("host install", example="hitless host install clock")
def install(
    ctx: Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A service to set up; may be repeated.")] = None,
) -> None:
    """Set up this machine, and a service that starts at boot. Repeat it after an upgrade of hitless. Needs root."""
    host = _of_this_machine()
    find_haproxy(os.environ)
    host.install(name)
    ctx.show(
        {"unit": str(UNITS / TEMPLATE), "service": name, "data": str(DATA / name) if name else None},
        lambda: (
            f"{name} starts at boot; ship it with `hitless remote add {name} ssh://root@HOST` on your computer"
            if name
            else "installed; set up a service with `hitless host install NAME`"
        ),
    )


@command("host status", example="hitless host status")
def status(ctx: Context) -> None:
    """Show all services of this machine: their units, stages and releases. Needs root."""
    rows = _of_this_machine().status()
    ctx.show(rows, lambda: "\n".join(map(_line, rows)) or "no service: `hitless host install NAME` sets one up")


def _line(row: dict[str, Any]) -> str:
    stages = ", ".join(f"{one['stage']} {one['url']} release {one['release'] or '-'}" for one in row["stages"])
    memory = f"{row['memory_bytes'] >> 20} MB" if row["memory_bytes"] is not None else "-"
    boot = "starts at boot" if row["at_boot"] else "does not start at boot"
    users = f"users {row['handler_users']}" if row["handler_users"] else "handlers share the engine's user"
    return f"{row['service']}  {row['active']}, {boot}  {memory}  {users}  {stages or row.get('error', '')}"


@command("host uninstall", example="hitless host uninstall clock --yes")
def uninstall(ctx: Context, name: NameArgument = None) -> None:
    """Stop a service, or all, and remove users, data, settings and units. Needs root."""
    host = _of_this_machine()
    names = host.names() if name is None else [name]
    if unknown := [one for one in names if one not in host.names()]:
        raise UsageError(f"this machine has no service {unknown[0]}", hint="`hitless host status` lists them")
    question = f"remove {', '.join(names) or 'the units'} with all data, secrets and logs? Type yes:"
    if not ctx.yes and ctx.ask(question, hint="--yes removes it without a question") != "yes":
        raise UsageError("nothing was removed", hint="`hitless backup` keeps a copy of a service first")
    for one in names:
        host.uninstall(one)
    if not host.names():
        host.remove_template()
    ctx.show({"removed": names}, lambda: json.dumps(names) if ctx.json else f"removed: {', '.join(names) or 'units'}")
