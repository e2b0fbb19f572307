"""`hitless pipeline runs`: the runs of all stages and branches, newest first."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from hitless.cli.common import Context, command
from hitless.cli.shipping import client_of

HEAD = ("run", "stage", "commit", "state", "release", "started", "took", "")
MOST_SAID = 80


def register(app: typer.Typer) -> None:
    @command(app, "runs", example="hitless pipeline runs --limit 5")
    def runs(
        ctx: Context,
        limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many, from the newest on.")] = 20,
    ) -> None:
        """List the runs of all stages and branches, newest first."""
        found = client_of(ctx).call("GET", "/pipeline/runs", limit=limit)
        ctx.show(found, lambda: _table(found) if found else "no run yet: push a branch to `hitless pipeline url`")


def _table(runs: list[dict[str, Any]]) -> str:
    rows = [HEAD, *map(_row, runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    """A branch that feeds no stage stands in brackets. What it is about, or what became of it, comes last."""
    took, started = "", datetime.fromisoformat(run["started_at"])
    if run["ended_at"]:
        took = f"{(datetime.fromisoformat(run['ended_at']) - started).total_seconds():.0f} s"
    under_way = next((step["name"] for step in run["steps"] if step["state"] == "running"), None)
    said = str(run["reason"] or (f"in {under_way}" if under_way else run["message"]) or "")
    return (
        str(run["run"]),
        run["stage"] or f"({run['branch']})",
        (run["commit"] or "-")[:8],
        run["state"].replace("_", " "),
        "-" if run["release"] is None else str(run["release"]),
        f"{started:%Y-%m-%d %H:%M:%S}",
        took,
        said if len(said) <= MOST_SAID else f"{said[: MOST_SAID - 1]}…",
    )
