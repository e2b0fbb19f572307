"""`hitless reject RUN`: a person's answer to a run that waits for approval."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.cli.common import Context, command
from hitless.cli.running import follow_run, in_a_line, waiting_run, who
from hitless.cli.shipping import client_of


def register(app: typer.Typer) -> None:
    @command(app, "reject", example="hitless reject 7 --why 'not on a Friday'")
    def reject(
        ctx: Context,
        run: Annotated[int | None, typer.Argument(help="The run; without it those that wait are listed.")] = None,
        why: Annotated[str | None, typer.Option("--why", help="Kept with the answer.")] = None,
        by: Annotated[str | None, typer.Option("--by", help="Who answers; default: who is logged in.")] = None,
    ) -> None:
        """End a waiting run; its stage is not touched."""
        client = client_of(ctx)
        body = {"by": by or who(), "why": why}
        lines = client.stream("POST", f"/pipeline/runs/{waiting_run(client, run, 'reject')}/reject", body)
        document = follow_run(ctx, lines)
        ctx.show(document, lambda: in_a_line(document))
