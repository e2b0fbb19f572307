"""`hitless releases [N]`: what shipped, and how it ended."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hitless.cli.common import Context, command
from hitless.cli.shipping import client_of


def register(app: typer.Typer) -> None:
    @command(app, "releases", example="hitless releases 4 --json")
    def releases(
        ctx: Context,
        release: Annotated[int | None, typer.Argument(help="One release in full.")] = None,
    ) -> None:
        """List the stage's releases, newest first. Or show one, with its rollouts and their steps."""
        client = client_of(ctx)
        if release is None:
            listed = client.call("GET", f"/stages/{ctx.stage}/releases")
            ctx.show(listed, lambda: "\n".join(map(_row, listed)) or f"{ctx.stage} has no release yet")
        else:
            one = client.call("GET", f"/stages/{ctx.stage}/releases/{release}")
            ctx.show(one, lambda: _in_full(one))


def _row(release: dict[str, Any]) -> str:
    mark = "*" if release["live"] else " "
    commit = (release["commit"] or "-")[:8]
    why = release["message"] or ""
    if release["reason"]:
        why = f"{why} [{release['reason']}]".strip()
    outcome = release["outcome"] or "under way"
    return f"{mark} {release['release']:>4}  {outcome:<12} {release['created_at']}  {commit:<8}  {why}"


def _in_full(release: dict[str, Any]) -> str:
    lines = [_row(release)]
    for rollout in release["rollouts"]:
        lines.append(f"\n{rollout['verb']} by {rollout['strategy']}: {rollout['outcome'] or rollout['state']}")
        for step in rollout["steps"]:
            note = f"  {step['note']}" if step["note"] else ""
            lines.append(f"  {step['at']}  {step['state']:<12} {step['weight_percent']:>3} %{note}")
        for side in ("candidate", "live"):
            if counted := rollout[side]:
                lines.append(f"  {side}: {counted['requests']} requests, {counted['failed']} failed")
    return "\n".join(lines)
