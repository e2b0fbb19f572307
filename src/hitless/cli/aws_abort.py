"""`hitless aws abort`: stop the release under way on AWS."""

from __future__ import annotations

import typer

from hitless.cli.aws_common import load_for_aws
from hitless.cli.aws_wire import connected_stage
from hitless.cli.common import Context, command
from hitless.cloud.release.abort import abort as stop


def register(app: typer.Typer) -> None:
    @command(app, "abort", example="hitless aws abort --stage prod")
    def abort(ctx: Context) -> None:
        """Stop the shift under way. All traffic goes back to the live release."""
        service = load_for_aws(ctx)
        with connected_stage(ctx, service) as stage:
            document = stop(stage.cloud, stage=service.stage)
        live = document["live"]
        ctx.show(document, lambda: f"aborted; release {live} serves" if live else "aborted; no release serves yet")
