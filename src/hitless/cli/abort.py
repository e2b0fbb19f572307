"""`hitless abort`: the rollout under way stops, its weight goes back to 0 at once."""

from __future__ import annotations

import typer

from hitless.cli.common import Context, command
from hitless.cli.homes import home_of


def register(app: typer.Typer) -> None:
    @command(app, "abort", example="hitless abort --stage prod")
    def abort(ctx: Context) -> None:
        """Stop the rollout under way. The live release keeps all the traffic."""
        home_of(ctx).abort(ctx)
