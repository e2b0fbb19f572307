"""`hitless rollback`: an earlier release serves again, all at once, without a build."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.cli.common import Context, command
from hitless.cli.homes import home_of


def register(app: typer.Typer) -> None:
    @command(app, "rollback", example="hitless rollback 3")
    def rollback(
        ctx: Context,
        release: Annotated[
            int | None, typer.Argument(help="The release; default: the one live before this one.")
        ] = None,
        message: Annotated[str | None, typer.Option("--message", "-m", help="Why; kept in the receipt.")] = None,
    ) -> None:
        """Ship an earlier release again, all at once."""
        home_of(ctx).rollback(ctx, release, message)
