"""Follows pipeline runs, shows their logs, and ends the command with their exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from hitless.api.client import EngineClient
from hitless.cli.common import Context, UnsuccessfulResult
from hitless.documents import convert
from hitless.errors import UsageError
from hitless.pipeline.buildspec.output import visible
from hitless.pipeline.runs import RunDocument, RunState


def follow_run(ctx: Context, lines: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Show a run's log as it is written; its document once it has ended or waits for a person."""
    run: dict[str, Any] = {}
    for line in lines:
        if number := line.get("of"):
            stop = f"`hitless pipeline stop {number}` stops it; `hitless pipeline show {number}` shows it"
            ctx.on_interrupt[:] = f"interrupted: run {number} continues in the engine", stop
        if "text" in line:
            sys.stderr.write(visible(line["text"]))
            sys.stderr.flush()
        run = line.get("run") or run
    return run


def waiting_run(ctx: Context, client: EngineClient, run: int | None, verb: str) -> int:
    """The run to approve or reject. If none is named, UsageError lists the waiting ones."""
    if run is not None:
        return run
    runs = map(run_of, client.call("GET", "/pipeline/runs", limit=500, service=ctx.service_at_engine))
    waiting = [one for one in runs if one.state is RunState.WAITING]
    if not waiting:
        raise UsageError("no run is waiting for approval", hint="`hitless pipeline runs` lists the last ones")
    listed = "; ".join(f"{one.run} of {one.where} ({one.message or '-'})" for one in waiting)
    raise UsageError(
        f"name a run; these wait for approval: {listed}",
        hint=f"`hitless pipeline show {waiting[0].run}` shows what it ships; `hitless {verb} {waiting[0].run}`",
    )


def conclude_run(ctx: Context, client: EngineClient, run: dict[str, Any]) -> None:
    """Show a run's document. Raises UnsuccessfulResult unless the run succeeded."""
    document = client.call("GET", f"/pipeline/runs/{run['run']}")
    ctx.show(document, lambda: in_a_line(document))
    raise_unless_well(document)


def raise_unless_well(document: dict[str, Any]) -> None:
    """Raise UnsuccessfulResult with the run's exit code, unless that is 0."""
    run = run_of(document)
    if run.exit_code:
        raise UnsuccessfulResult(
            run.exit_code,
            f"run {run.run} {run.state.replace('_', ' ')}: {run.reason}",
            f"`hitless pipeline show {run.run} --log` shows the whole log",
        )


def in_a_line(document: dict[str, Any]) -> str:
    """A run for a person."""
    run = run_of(document)
    release = f", release {run.release}" if run.release is not None else ""
    return f"run {run.run} of {run.where}: {run.state.replace('_', ' ')}{release}"


def run_of(document: dict[str, Any]) -> RunDocument:
    """The run in a document of the engine's API."""
    return convert(document, RunDocument, "the run")
