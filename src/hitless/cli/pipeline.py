"""`hitless pipeline …`, `approve` and `reject`: the engine's own git repository, its runs and their approvals."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from hitless.api.requests import RunRequest
from hitless.cli.common import Context, command
from hitless.cli.following_runs import conclude_run, follow_run, in_a_line, run_of, waiting_run
from hitless.errors import UsageError
from hitless.homes.engine import client_of, has_service_file
from hitless.homes.folder import ask_git, folders_of, load
from hitless.pipeline.definition import Definition
from hitless.pipeline.repository import Repository, hook_command
from hitless.pipeline.runs import RunDocument, RunState, StepDetail, StepName, StepState
from hitless.pipeline.workshop import Workshop
from hitless.release.who import who

HEAD = ("run", "stage", "commit", "state", "release", "started", "took", "")
MOST_SAID = 80
WhyOption = Annotated[str | None, typer.Option("--why", help="The reason; kept with the run.")]
ByOption = Annotated[str | None, typer.Option("--by", help="The person's name; default: the user who is logged in.")]
RunArgument = Annotated[int, typer.Argument(help="The run's number.")]
WaitingRun = Annotated[int | None, typer.Argument(help="The run; without it the waiting runs are listed.")]


@command("pipeline url", example='git push "$(hitless pipeline url)" dev')
def url(ctx: Context) -> None:
    """Print the URL of the engine's git repository, which takes pushes. Creates it if it is missing.

    Over SSH the path is the same, for users who may log in as the engine's owner.
    """
    service = load(ctx)
    folders = folders_of(ctx)
    folders.create()
    shared = ctx.service_at_engine
    workshop = Workshop.of(folders.data, os.environ, shared)
    workshop.create()
    path = ask_git(ctx.service_dir, "rev-parse", "--show-prefix").rstrip("/")
    definition = Definition(service.name, path, service.stages, service.builds, service.previews if shared else None)
    repository = Repository(workshop.repository)
    repository.create(hook_command(folders.data, shared), head=definition.stages[0].branch)
    definition.write(workshop.definition)
    branches = {stage.name: stage.branch for stage in definition.stages}
    ctx.show({"url": str(workshop.repository), "branches": branches}, lambda: str(workshop.repository))


@command("pipeline runs", example="hitless pipeline runs --limit 5")
def runs(
    ctx: Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="Number of runs, from the newest on.")] = 20,
) -> None:
    """List the runs of all stages and branches, newest first.

    On an engine that several services share, only those of the service; outside of its folder, those of all.
    """
    service = ctx.service_at_engine if "_" in ctx.stage or has_service_file(ctx) else ""
    found = client_of(ctx).call("GET", "/pipeline/runs", limit=limit, service=service)
    ctx.show(found, lambda: _table(found) if found else "no run yet: push a branch to `hitless pipeline url`")


@command("pipeline show", example="hitless pipeline show 7 --log")
def show(
    ctx: Context,
    run: RunArgument,
    log: Annotated[bool, typer.Option("--log", help="Add the output of its steps.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow its log until it ends.")] = False,
) -> None:
    """Show one run: its steps with their results, and its approval."""
    client = client_of(ctx)
    client.call("GET", f"/pipeline/runs/{run}")
    if follow:
        follow_run(ctx, client.stream("GET", f"/pipeline/runs/{run}/log", follow=1))
    document = client.call("GET", f"/pipeline/runs/{run}")
    if log and not follow:
        document["log"] = client.call("GET", f"/pipeline/runs/{run}/log")["log"]
    ctx.show(document, lambda: in_full(document))


@command("pipeline wait", example="git push engine dev && hitless pipeline wait")
def wait(ctx: Context, run: Annotated[int | None, typer.Argument(help="The run; default: the newest.")] = None) -> None:
    """Wait until a run has ended or waits for approval. Exits with the run's code, which `git push` cannot do.

    Shows the run's log, or only its result if the run has ended already.
    """
    client = client_of(ctx)
    if run is None:
        newest = client.call("GET", "/pipeline/runs", limit=1, service=ctx.service_at_engine)
        if not newest:
            raise UsageError("there are no runs yet", hint='git push "$(hitless pipeline url)" BRANCH')
        run = newest[0]["run"]
    found = client.call("GET", f"/pipeline/runs/{run}")
    if not run_of(found).state.has_ended:
        found = follow_run(ctx, client.stream("GET", f"/pipeline/runs/{run}/log", follow=1))
    conclude_run(ctx, client, found)


@command("pipeline retry", example="hitless pipeline retry 7")
def retry(ctx: Context, run: RunArgument) -> None:
    """Continue an ended run at the step that failed or was interrupted. Follows it."""
    client = client_of(ctx)
    conclude_run(ctx, client, follow_run(ctx, client.stream("POST", f"/pipeline/runs/{run}/retry", {})))


@command("pipeline stop", example="hitless pipeline stop 7 --why 'it hangs'")
def stop(ctx: Context, run: RunArgument, why: WhyOption = None) -> None:
    """End a queued or running run before it ships. Its builds end with it.

    Use `hitless abort` for a run that ships, `hitless reject` for one that waits for approval.
    """
    document = client_of(ctx).call("POST", f"/pipeline/runs/{run}/stop", RunRequest(who(), why))
    ctx.show(document, lambda: in_a_line(document))


@command("approve", example="hitless approve 7 --why 'seen in staging'")
def approve(ctx: Context, run: WaitingRun = None, why: WhyOption = None, by: ByOption = None) -> None:
    """Approve a waiting run, and follow it to its end."""
    conclude_run(ctx, client_of(ctx), _answer(ctx, run, "approve", RunRequest(by or who(), why)))


@command("reject", example="hitless reject 7 --why 'not on a Friday'")
def reject(ctx: Context, run: WaitingRun = None, why: WhyOption = None, by: ByOption = None) -> None:
    """Reject a waiting run. Its stage is not changed."""
    document = _answer(ctx, run, "reject", RunRequest(by or who(), why))
    ctx.show(document, lambda: in_a_line(document))


def _answer(ctx: Context, run: int | None, verb: str, answer: RunRequest) -> dict[str, Any]:
    """Answer a waiting run's question; the run's document once it has ended."""
    client = client_of(ctx)
    return follow_run(
        ctx, client.stream("POST", f"/pipeline/runs/{waiting_run(ctx, client, run, verb)}/{verb}", answer)
    )


def _table(runs: list[dict[str, Any]]) -> str:
    rows = [HEAD, *(_row(run_of(run)) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(run: RunDocument) -> tuple[str, ...]:
    """A branch that feeds no stage stands in brackets. The run's message, or why it ended so, comes last."""
    took, started = "", datetime.fromisoformat(run.started_at)
    if run.ended_at:
        took = f"{(datetime.fromisoformat(run.ended_at) - started).total_seconds():.0f} s"
    under_way = next((step.name for step in run.steps if step.state == StepState.RUNNING), None)
    said = run.reason or (f"in {under_way}" if under_way else run.message) or ""
    return (
        str(run.run),
        run.stage or (run.told_branch if run.service else f"({run.branch})"),
        (run.commit or "-")[:8],
        run.state.replace("_", " "),
        "-" if run.release is None else str(run.release),
        f"{started:%Y-%m-%d %H:%M:%S}",
        took,
        said if len(said) <= MOST_SAID else f"{said[: MOST_SAID - 1]}…",
    )


def in_full(document: dict[str, Any]) -> str:
    """The run for a person, with its log if the document has one."""
    run, log = run_of(document), document.get("log")
    lines = [f"run {run.run}: {run.told_branch} at {(run.commit or '-')[:12]}  {run.message or ''}".rstrip()]
    if run.overridden:
        lines.append(f"  overridden: {run.overridden}")
    for step in run.steps:
        took = f"{step.duration_s:8.2f} s" if step.duration_s is not None else " " * 10
        detail = StepDetail.of(step.detail)
        why = detail.reason or detail.why or ""
        lines.append(f"  {step.name:<9} {step.state:<12} {took}  {why}".rstrip())
        if step.name == StepName.REHEARSE:
            lines += [f"            {note}" for note in detail.notes]
    if approval := run.approval:
        said = f"{approval.decision} by {approval.by}" if approval.decision else "nobody has answered yet"
        lines += _question(run.question or {})
        lines.append(f"  approval: {said}; asked {approval.asked_at}, expires {approval.expires_at}")
    lines.append(f"{run.state.replace('_', ' ')}{': ' + run.reason if run.reason else ''}")
    if run.state is RunState.WAITING:
        lines.append(f"hitless approve {run.run}, or hitless reject {run.run}")
    if run.state is RunState.FAILED and log is None:
        lines.append(f"`hitless pipeline show {run.run} --log` has the output of its steps")
    return "\n".join(lines) + (f"\n\n{log}" if log is not None else "")


def _question(asked: Mapping[str, Any]) -> list[str]:
    """What is to be approved."""
    commits = [f"  commit {one['commit'][:8]} {one['subject']} ({one['author']})" for one in asked.get("commits", ())]
    if fork := asked.get("fork"):
        commits.insert(0, f"  pull request {fork['number']} of {fork['origin']}: read it before its tests run here")
        commits += [f"  file {name}" for name in asked.get("files") or ()]
    changed = [f"  configuration: {line}" for line in asked.get("configuration", ())]
    rehearsed = (asked.get("rehearsal") or {}).get("sentence")
    if asked.get("protection"):
        changed.insert(0, f"  protection: {asked['protection']}")
    return [*commits, *changed, *([f"  rehearsal: {rehearsed}"] if rehearsed else [])]
