"""`hitless upgrade`: replaces all processes of a running engine by those of this version, without failing a request.

The daemon is replaced first: it ends, HAProxy and the workers serve on, and a daemon of this version adopts them. The
new daemon replaces the rest (`hitless.engine.upgrade`). If the command is killed, the next one continues.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

import hitless
from hitless.api.client import EngineClient
from hitless.cli.common import Context, command
from hitless.cli.settings import EngineSettings
from hitless.cli.up import ensure_daemon, hold_start
from hitless.engine.folders import Folders
from hitless.errors import ConflictError, EngineError, EngineNotRunningError
from hitless.gateway.binary import find_haproxy
from hitless.homes.folder import folders_of
from hitless.store.store import Store
from hitless.workers.generation import foreign_pools

ENDS_WITHIN_S = 60.0
"""The daemon first stops the builds of its pipeline."""


@command("upgrade", example="hitless upgrade")
def upgrade(
    ctx: Context,
    force: Annotated[
        bool, typer.Option("--force", help="Replace also processes of this version, as after an upgrade of HAProxy.")
    ] = False,
) -> None:
    """Replace an engine's processes with those of this version.

    No request fails. If the upgrade fails, the old processes keep serving; run it again to resume.
    """
    folders = folders_of(ctx)
    if not folders.remains():
        raise EngineNotRunningError(f"no engine is running on {folders.data}", hint="`hitless up` starts one")
    client, parts = EngineClient(folders.api_socket), list[dict[str, Any]]()
    with hold_start(folders):
        check(folders)
        before = client.call("GET", "/status") if folders.engine_is_alive() else None
        if before is None:
            ensure_daemon(folders)
        elif force or before["engine"]["version"] != hitless.__version__:
            _replace_daemon(folders, before)
        now = client.call("GET", "/status")["engine"]
        _check_version(folders, now["version"])
        old = before and before["engine"]["pid"]
        daemon = {"replaced": {"part": "daemon", "before": old, "after": now["pid"]}}
        for line in chain([daemon] if old != now["pid"] else [], client.stream("POST", "/upgrade")):
            parts.append(part := line["replaced"])
            ctx.say(f"{part['part']}: {part['before'] or 'none'} -> {part['after']}")
    ctx.show({"version": now["version"], "replaced": parts}, lambda: f"the engine runs hitless {now['version']}")


def check(folders: Folders) -> None:
    """Raise an error, before anything changes, if this version cannot continue with the engine's state or processes."""
    if folders.state_file.exists():
        with closing(Store(folders.state_file, read_only=True)) as store:
            store.check_schema()
    EngineSettings.read(folders)
    find_haproxy(os.environ)
    if foreign := foreign_pools(folders.run):
        raise ConflictError(
            f"hitless {hitless.__version__} cannot adopt the running version's workers ({', '.join(foreign)})",
            hint="`hitless down`, then `hitless up` with this version; requests fail in between",
        )


def _replace_daemon(folders: Folders, status: Mapping[str, Any]) -> None:
    """End the daemon and start one of this version in the same environment."""
    for stage in status["stages"]:
        if stage["candidate"] is not None:
            raise ConflictError(
                f"a rollout of {stage['stage']} is in progress; an upgrade would roll it back",
                hint="repeat the command when it has ended; `hitless abort` stops it",
            )
    pid = status["engine"]["pid"]
    environ = _environment(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    end_s = time.monotonic() + ENDS_WITHIN_S
    while folders.engine_is_alive():
        if time.monotonic() > end_s:
            raise EngineError(f"the daemon (pid {pid}) has not ended", hint="end it with `kill`; repeat the command")
        time.sleep(0.02)
    ensure_daemon(folders, environ)


def _check_version(folders: Folders, version: str) -> None:
    if version != hitless.__version__:
        unit = folders.unit_file.read_text().split()[0] if folders.is_managed else "the engine's daemon"
        raise EngineError(
            f"{unit} runs hitless {version}, but this is {hitless.__version__}; nothing else was replaced",
            hint="as root: `hitless host install` of this version writes its unit; then repeat the command",
        )


def _environment(pid: int) -> dict[str, str] | None:
    """The environment that a process was started with; None if it cannot be read."""
    with suppress(OSError, ValueError):
        pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair) or None
    return None
