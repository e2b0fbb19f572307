"""`hitless pipeline show RUN`: one run, its steps, what they found, its approval, its log."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hitless.cli.common import Context, command
from hitless.cli.running import follow_run
from hitless.cli.shipping import client_of


def register(app: typer.Typer) -> None:
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
        ctx.show(document, lambda: in_full(document))


def in_full(run: dict[str, Any]) -> str:
    """The run for a person, with its log where the document has one."""
    lines = [f"run {run['run']}: {run['branch']} at {(run['commit'] or '-')[:12]}  {run['message'] or ''}".rstrip()]
    if run["overridden"]:
        lines.append(f"  overridden: {run['overridden']}")
    for step in run["steps"]:
        took = f"{step['duration_s']:8.2f} s" if step["duration_s"] is not None else " " * 10
        detail = step["detail"] or {}
        why = detail.get("reason") or detail.get("why") or ""
        lines.append(f"  {step['name']:<9} {step['state']:<12} {took}  {why}".rstrip())
        if step["name"] == "rehearse":
            lines += [f"            {note}" for note in detail.get("notes", ())]
    if approval := run["approval"]:
        said = f"{approval['decision']} by {approval['by']}" if approval["decision"] else "nobody has answered yet"
        lines += _question(run.get("question") or {})
        lines.append(f"  approval: {said}; asked {approval['asked_at']}, expires {approval['expires_at']}")
    lines.append(f"{run['state'].replace('_', ' ')}{': ' + run['reason'] if run['reason'] else ''}")
    if run["state"] == "waiting_for_approval":
        lines.append(f"hitless approve {run['run']}, or hitless reject {run['run']}")
    if run["state"] == "failed" and "log" not in run:
        lines.append(f"`hitless pipeline show {run['run']} --log` has what its steps wrote")
    return "\n".join(lines) + (f"\n\n{run['log']}" if "log" in run else "")


def _question(asked: dict[str, Any]) -> list[str]:
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
