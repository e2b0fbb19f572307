"""`hitless pipeline runs`: the runs of all stages and branches, newest first."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hitless.cli.common import Context, command
from hitless.cli.shipping import client_of


def register(app: typer.Typer) -> None:
    @command(app, "runs", example="hitless pipeline runs --limit 5")
    def runs(
        ctx: Context,
        limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many, from the newest on.")] = 20,
    ) -> None:
        """List the runs of all stages and branches, newest first."""
        found = client_of(ctx).call("GET", "/pipeline/runs", limit=limit)
        ctx.show(found, lambda: "\n".join(map(_row, found)) or "no run yet: push a branch to `hitless pipeline url`")


def _row(run: dict[str, Any]) -> str:
    steps = " ".join(f"{step['name']}:{step['state']}" for step in run["steps"] if step["state"] != "skipped")
    where = run["stage"] or f"({run['branch']})"
    return (
        f"{run['run']:>5}  {where:<10} {(run['commit'] or '-')[:8]:<8}  {run['state']:<20} {run['started_at']}  {steps}"
    )
