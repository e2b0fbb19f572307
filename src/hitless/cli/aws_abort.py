"""`hitless aws abort`: stop the release under way on AWS."""

from __future__ import annotations

import typer

from hitless.cli.aws_wire import connected, load
from hitless.cli.common import Context, command
from hitless.cloud.abort import abort as stop


def register(app: typer.Typer) -> None:
    @command(app, "abort", example="hitless aws abort --stage prod")
    def abort(ctx: Context) -> None:
        """Stop the shift under way; all traffic goes back to the live release."""
        service = load(ctx)
        with connected(ctx, service) as stage:
            document = stop(stage.cloud, stage=service.stage)
        live = document["live"]
        ctx.show(document, lambda: f"aborted; release {live} serves" if live else "aborted; no release serves yet")
