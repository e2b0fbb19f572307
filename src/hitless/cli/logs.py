"""`hitless logs`: what the handlers wrote, at the stage's home."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.cli.common import Context, command
from hitless.cli.homes import LogQuery, home_of


def register(app: typer.Typer) -> None:
    @command(app, "logs", example="hitless logs zones -f")
    def logs(
        ctx: Context,
        function: Annotated[str | None, typer.Argument(help="One function; default: all.")] = None,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
        release: Annotated[int | None, typer.Option("--release", help="Default: the live one.")] = None,
        limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many lines of the past.")] = 1000,
    ) -> None:
        """Show what the handlers wrote. START, their own lines, END and REPORT, as CloudWatch shows them."""
        home_of(ctx).logs(ctx, LogQuery(function, follow, release, limit))
