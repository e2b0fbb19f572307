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


def follow_run(ctx: Context, lines: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Show a run's log as it is written; its document once it has ended or waits for a person."""
    run: dict[str, Any] = {}
    for line in lines:
        if "text" in line:
            sys.stderr.write(line["text"])
            sys.stderr.flush()
        run = line.get("run") or run
    return run


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
