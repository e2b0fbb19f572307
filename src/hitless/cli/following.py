"""Follows rollouts and pipeline runs, shows them while they last, and ends the command with their exit code."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from hitless.api.client import EngineClient
from hitless.cli.common import Context, Ended
from hitless.errors import UsageError
from hitless.homes.home import RolloutNews, RolloutStarted, RolloutStep
from hitless.pipeline.buildspec.output import visible
from hitless.release.result import Outcome


class Progress:
    """Shows steps of a rollout. On a terminal the current step stands on one line that is rewritten."""

    def __init__(self, *, live: bool, say: Callable[[str], None]) -> None:
        self._live, self._say, self._written = live, say, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._written:
            sys.stderr.write("\n")

    def step(self, step: Mapping[str, Any]) -> None:
        """One step as the API gives it."""
        note = f" ({step['note']})" if step.get("note") else ""
        text = f"{step['state']:<12} {step['weight_percent']:>3} %{note}"
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{text}" + "\n" * bool(note))
            sys.stderr.flush()
            self._written = not note
        else:
            self._say(f"{step['at']}  {text}")


def follow(ctx: Context, news: Iterator[RolloutNews]) -> dict[str, Any] | None:
    """Show each step of a rollout; the document of its end, or None if it was only started (`--no-wait`)."""
    with Progress(live=sys.stderr.isatty(), say=ctx.say) as progress:
        for one in news:
            if isinstance(one, RolloutStep):
                ctx.goes_on[:] = (
                    f"interrupted: the rollout of release {one.release or '?'} goes on in the engine",
                    f"`hitless abort --stage {ctx.stage}` stops it; `hitless status` shows it",
                )
                progress.step(one.step)
            elif isinstance(one, RolloutStarted):
                release = one.document["release"]
                ctx.show(one.document, lambda: f"release {release} is on its way; see `hitless status`")  # noqa: B023
                return None
            else:
                return dict(one.document)
    return None


def conclude(ctx: Context, result: dict[str, Any] | None) -> None:
    """Show a rollout's end; raises Ended if it did not go live. Nothing to do for one that was only started."""
    if result is None:
        return
    outcome = Outcome(result["outcome"])
    ctx.show(result, lambda: _sentence(result, outcome))
    if outcome.exit_code:
        release = result["release"]
        hint = f"`hitless logs --release {release}` and `hitless releases {release}` tell more" + (
            "; the live release was not touched" if result.get("live") else ""
        )
        raise Ended(outcome.exit_code, f"release {release} was {outcome.replace('_', ' ')}: {result['reason']}", hint)


def _sentence(result: dict[str, Any], outcome: Outcome) -> str:
    release = f"release {result['release']}"
    match outcome:
        case Outcome.UNCHANGED:
            return f"{release} is live already: nothing has changed"
        case Outcome.LIVE:
            at = f" at {result['url']}" if result.get("url") else ""
            return f"{release} is live in {result['stage']} ({result['duration_s']:.2f} s{_failures(result)}){at}"
        case _:
            return f"{release}: {outcome.replace('_', ' ')}"


def _failures(result: dict[str, Any]) -> str:
    counted = [side for side in (result["candidate"], result["live"]) if side]
    return f"; {sum(side['failed'] for side in counted)} requests failed meanwhile" if counted else ""


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
