"""`hitless pipeline retry RUN`: an ended run goes on at the step that failed."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.cli.common import Context, command
from hitless.cli.running import conclude_run, follow_run
from hitless.cli.shipping import client_of


def register(app: typer.Typer) -> None:
    @command(app, "retry", example="hitless pipeline retry 7")
    def retry(ctx: Context, run: Annotated[int, typer.Argument(help="The run's number.")]) -> None:
        """Take a run up again. At the step that failed or was cut off; follows it."""
        client = client_of(ctx)
        conclude_run(ctx, client, follow_run(ctx, client.stream("POST", f"/pipeline/runs/{run}/retry", {})))
