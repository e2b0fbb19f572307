"""`hitless aws releases [N]`: what shipped to AWS, how it ended and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hitless.cli.aws_common import load_for_aws
from hitless.cli.aws_wire import connected_stage
from hitless.cli.common import Context, command
from hitless.cloud.status import release as read_release
from hitless.cloud.status import releases as read_releases
from hitless.errors import UsageError
from hitless.receipts.page import write_page
from hitless.receipts.text import in_full


def register(app: typer.Typer) -> None:
    @command(app, "releases", example="hitless aws releases 4 --stage prod --html receipt.html")
    def releases(
        ctx: Context,
        release: Annotated[int | None, typer.Argument(help="One release, with its receipts.")] = None,
        html: Annotated[
            Path | None, typer.Option("--html", metavar="FILE", help="Write its receipts as a page.")
        ] = None,
    ) -> None:
        """List the stage's releases, newest first. Or show one, with the receipt of each of its rollouts."""
        if release is None and html is not None:
            raise UsageError("--html: no release is named", hint="for example `hitless aws releases 4 --html 4.html`")
        service = load_for_aws(ctx)
        with connected_stage(ctx, service) as stage:
            one = read_release(stage.cloud, release) if release is not None else None
            listed = read_releases(stage.cloud) if one is None else []
        if one is None:
            ctx.show(listed, lambda: "\n".join(map(_row, listed)) or f"{ctx.stage} has no release yet")
            return
        if html is not None:
            write_page(one, html.expanduser().resolve())
            ctx.say(f"receipt: {html.expanduser().resolve()}")
        ctx.show(one, lambda: f"{in_full(one)}\n{_versions(one)}")


def _row(release: dict[str, Any]) -> str:
    mark = "*" if release.get("live") else " "
    why = " ".join(filter(None, [release["message"], f"[{release['reason']}]" if release["reason"] else ""]))
    commit = (release["commit"] or "-")[:8]
    outcome = release["outcome"] or "under way"
    return f"{mark} {release['release']:>4}  {outcome:<12} {release['created_at']}  {commit:<8}  {why}"


def _versions(release: dict[str, Any]) -> str:
    found = [f"{name} {version}" for name, version in sorted(release["versions"].items())]
    return f"versions  {', '.join(found) or 'none'}"
