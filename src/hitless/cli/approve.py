"""`hitless approve RUN`: a person's answer to a run that waits for approval."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.cli.common import Context, command
from hitless.cli.running import conclude_run, follow_run, waiting_run, who
from hitless.cli.shipping import client_of


def register(app: typer.Typer) -> None:
    @command(app, "approve", example="hitless approve 7 --why 'seen in staging'")
    def approve(
        ctx: Context,
        run: Annotated[int | None, typer.Argument(help="The run; without it those that wait are listed.")] = None,
        why: Annotated[str | None, typer.Option("--why", help="Kept with the answer.")] = None,
        by: Annotated[str | None, typer.Option("--by", help="Who answers; default: who is logged in.")] = None,
    ) -> None:
        """Let a waiting run ship, and follow it to its end."""
        client = client_of(ctx)
        body = {"by": by or who(), "why": why}
        lines = client.stream("POST", f"/pipeline/runs/{waiting_run(client, run, 'approve')}/approve", body)
        conclude_run(ctx, client, follow_run(ctx, lines))
