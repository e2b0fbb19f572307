"""`hitless aws releases [N]`: what shipped to AWS, and how it ended."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hitless.cli.aws_common import load_for_aws
from hitless.cli.aws_wire import connected_stage
from hitless.cli.common import Context, command
from hitless.cloud.status import releases as read_releases


def register(app: typer.Typer) -> None:
    @command(app, "releases", example="hitless aws releases 4 --stage prod --json")
    def releases(
        ctx: Context, release: Annotated[int | None, typer.Argument(help="One release in full.")] = None
    ) -> None:
        """List the stage's releases, newest first; or show one with its versions and steps."""
        service = load_for_aws(ctx)
        with connected_stage(ctx, service) as stage:
            if release is not None:
                record = stage.cloud.records.require(release).to_json()
                ctx.show(record, lambda: _in_full(record))
                return
            listed = read_releases(stage.cloud)
        ctx.show(listed, lambda: "\n".join(map(_row, listed)) or f"{ctx.stage} has no release yet")


def _row(release: dict[str, Any]) -> str:
    mark = "*" if release.get("live") else " "
    why = " ".join(filter(None, [release["message"], f"[{release['reason']}]" if release["reason"] else ""]))
    commit = (release["commit"] or "-")[:8]
    outcome = release["outcome"] or "under way"
    return f"{mark} {release['release']:>4}  {outcome:<12} {release['created_at']}  {commit:<8}  {why}"


def _in_full(release: dict[str, Any]) -> str:
    lines = [_row(release), f"\nby {release['strategy']}"]
    for name, version in sorted(release["versions"].items()):
        lines.append(f"  {name}: version {version}, {release['artifacts'].get(name, '')}")
    lines += [f"  {step['at']}  {step['state']:<12} {step['weight_percent']:>3} %" for step in release["steps"]]
    return "\n".join(lines)
