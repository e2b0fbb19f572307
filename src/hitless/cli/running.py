"""Following a pipeline's run from the command line, and what the command ends with. Shared by the pipeline's verbs."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

from hitless.api.client import EngineClient
from hitless.cli.common import Context, Ended
from hitless.errors import UsageError
from hitless.pipeline.buildspec.masking import visible


def follow_run(ctx: Context, lines: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Show a run's log as it is written; its document once it has ended or waits for a person."""
    run: dict[str, Any] = {}
    for line in lines:
        if number := line.get("of"):
            stop = f"`hitless pipeline stop {number}` stops it; `hitless pipeline show {number}` shows it"
            ctx.goes_on[:] = f"interrupted: run {number} goes on in the engine", stop
        if "text" in line:
            sys.stderr.write(visible(line["text"]))
            sys.stderr.flush()
        run = line.get("run") or run
    return run


def waiting_run(client: EngineClient, run: int | None, verb: str) -> int:
    """The run that is to be answered. UsageError that lists those that wait, where none was named."""
    if run is not None:
        return run
    waiting = [one for one in client.call("GET", "/pipeline/runs", limit=500) if one["state"] == "waiting_for_approval"]
    if not waiting:
        raise UsageError("no run waits for approval", hint="`hitless pipeline runs` lists the last ones")
    listed = "; ".join(f"{one['run']} of {one['stage'] or one['branch']} ({one['message'] or '-'})" for one in waiting)
    raise UsageError(
        f"which run? Waiting: {listed}",
        hint=f"`hitless pipeline show {waiting[0]['run']}` says what it ships; `hitless {verb} {waiting[0]['run']}`",
    )


def conclude_run(ctx: Context, client: EngineClient, run: dict[str, Any]) -> None:
    """Show a run's document; raises Ended where it did not end well."""
    document = client.call("GET", f"/pipeline/runs/{run['run']}")
    ctx.show(document, lambda: in_a_line(document))
    raise_unless_well(document)


def raise_unless_well(run: dict[str, Any]) -> None:
    """Ended with the exit code of how the run ended."""
    if run["exit_code"]:
        raise Ended(
            run["exit_code"],
            f"run {run['run']} {run['state'].replace('_', ' ')}: {run['reason']}",
            f"`hitless pipeline show {run['run']} --log` tells all of it",
        )


def in_a_line(run: dict[str, Any]) -> str:
    """For a person."""
    release = f", release {run['release']}" if run["release"] is not None else ""
    return f"run {run['run']} of {run['stage'] or run['branch']}: {run['state'].replace('_', ' ')}{release}"


def who() -> str:
    """Who types: a user of this machine, or who came by SSH."""
    peer = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{peer or socket.gethostname()}"
