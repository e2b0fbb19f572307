"""`hitless pipeline url|runs|show|retry`: the engine's own git repository and the runs that pushes to it start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hitless.cli.common import Context, command
from hitless.cli.running import conclude_run, follow_run
from hitless.cli.shipping import client_of, folders_of, load
from hitless.pipeline.definition import Definition
from hitless.pipeline.repository import Repository
from hitless.pipeline.workshop import Workshop


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(
        name="pipeline",
        help="From a git push to a live release. The repository, its runs, their logs.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for one in (_register_url, _register_runs, _register_show, _register_retry):
        one(verbs)
    app.add_typer(verbs)


def _register_url(app: typer.Typer) -> None:
    @command(app, "url", example='git push "$(hitless pipeline url)" dev')
    def url(ctx: Context) -> None:
        """Print the git URL of the engine's own repository; make it where there is none.

        Over SSH it is the same path on this machine, for whoever may log in as the engine's owner.
        """
        service = load(ctx)
        folders = folders_of(ctx)
        folders.create()
        workshop = Workshop.of(folders.data, os.environ)
        workshop.create()
        definition = Definition.of(service, path_in_repository(ctx.service_dir))
        repository = Repository(workshop.repository)
        hook = [sys.executable, "-m", "hitless.cli.hook", str(folders.data)]
        repository.create(hook, head=definition.stages[0].branch)
        definition.write(workshop.definition)
        branches = {entry.stage: entry.branch for entry in definition.stages}
        ctx.show({"url": str(workshop.repository), "branches": branches}, lambda: str(workshop.repository))


def path_in_repository(folder: Path) -> str:
    """Where a service's folder lies in its git repository: "" for the root, and outside of git."""
    done = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--show-prefix"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip().rstrip("/") if done.returncode == 0 else ""


def _register_runs(app: typer.Typer) -> None:
    @command(app, "runs", example="hitless pipeline runs --limit 5")
    def runs(
        ctx: Context,
        limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many, from the newest on.")] = 20,
    ) -> None:
        """List the runs of all stages and branches, newest first."""
        found = client_of(ctx).call("GET", "/pipeline/runs", limit=limit)
        ctx.show(found, lambda: "\n".join(map(_row, found)) or "no run yet: push a branch to `hitless pipeline url`")


def _register_show(app: typer.Typer) -> None:
    @command(app, "show", example="hitless pipeline show 7 --log")
    def show(
        ctx: Context,
        run: Annotated[int, typer.Argument(help="The run's number.")],
        log: Annotated[bool, typer.Option("--log", help="With everything that its steps wrote.")] = False,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="And what they write, until it ends.")] = False,
    ) -> None:
        """Show one run. Its steps, what they found, its approval."""
        client = client_of(ctx)
        client.call("GET", f"/pipeline/runs/{run}")
        if follow:
            follow_run(ctx, client.stream("GET", f"/pipeline/runs/{run}/log", follow=1))
        document = client.call("GET", f"/pipeline/runs/{run}")
        if log and not follow:
            document["log"] = client.call("GET", f"/pipeline/runs/{run}/log")["log"]
        ctx.show(document, lambda: _in_full(document))


def _register_retry(app: typer.Typer) -> None:
    @command(app, "retry", example="hitless pipeline retry 7")
    def retry(ctx: Context, run: Annotated[int, typer.Argument(help="The run's number.")]) -> None:
        """Take a run up again at the step that failed or was cut off, and follow it."""
        client = client_of(ctx)
        conclude_run(ctx, client, follow_run(ctx, client.stream("POST", f"/pipeline/runs/{run}/retry", {})))


def _row(run: dict[str, Any]) -> str:
    steps = " ".join(f"{step['name']}:{step['state']}" for step in run["steps"] if step["state"] != "skipped")
    where = run["stage"] or f"({run['branch']})"
    return (
        f"{run['run']:>5}  {where:<10} {(run['commit'] or '-')[:8]:<8}  {run['state']:<20} {run['started_at']}  {steps}"
    )


def _in_full(run: dict[str, Any]) -> str:
    lines = [f"run {run['run']}: {run['branch']} at {(run['commit'] or '-')[:12]}  {run['message'] or ''}"]
    if run["overridden"]:
        lines.append(f"  overridden: {run['overridden']}")
    for step in run["steps"]:
        took = f"{step['duration_s']:8.2f} s" if step["duration_s"] is not None else " " * 10
        detail = step["detail"] or {}
        why = detail.get("reason") or detail.get("why") or ""
        lines.append(f"  {step['name']:<9} {step['state']:<12} {took}  {why}".rstrip())
    if approval := run["approval"]:
        said = f"{approval['decision']} by {approval['by']}" if approval["decision"] else "nobody has answered yet"
        lines.append(f"  approval: {said}; asked {approval['asked_at']}, expires {approval['expires_at']}")
    lines.append(f"{run['state']}{': ' + run['reason'] if run['reason'] else ''}")
    return "\n".join(lines) + (f"\n\n{run['log']}" if "log" in run else "")
