"""`hitless releases [N]`: what shipped, how it ended and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hitless.cli.common import Context, command
from hitless.cli.homes import home_of
from hitless.errors import UsageError
from hitless.receipts.page import write_page
from hitless.receipts.text import in_full, table


def register(app: typer.Typer) -> None:
    @command(app, "releases", example="hitless releases 4 --html receipt.html")
    def releases(
        ctx: Context,
        release: Annotated[int | None, typer.Argument(help="One release, with its receipts.")] = None,
        html: Annotated[
            Path | None, typer.Option("--html", "--receipt", metavar="FILE", help="Write its receipts as a page.")
        ] = None,
    ) -> None:
        """List the stage's releases, newest first. Or show one, with the receipt of each of its rollouts."""
        if release is None and html is not None:
            raise UsageError("--html: no release is named", hint="for example `hitless releases 4 --html receipt.html`")
        home = home_of(ctx)
        if release is None:
            listed = home.releases(ctx)
            ctx.show(listed, lambda: table(listed) if listed else f"{ctx.stage} has no release yet")
            return
        one = home.release(ctx, release)
        if html is not None:
            write_page(one, html.expanduser().resolve())
            ctx.say(f"receipt: {html.expanduser().resolve()}")
        ctx.show(one, lambda: in_full(one))
