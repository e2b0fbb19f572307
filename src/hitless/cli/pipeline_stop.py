"""`hitless pipeline stop RUN`: end a run before it comes to its stage."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.cli.common import Context, command
from hitless.cli.running import in_a_line, who
from hitless.cli.shipping import client_of


def register(app: typer.Typer) -> None:
    @command(app, "stop", example="hitless pipeline stop 7 --why 'it hangs'")
    def stop(
        ctx: Context,
        run: Annotated[int, typer.Argument(help="The run's number.")],
        why: Annotated[str | None, typer.Option("--why", help="Kept with the run.")] = None,
    ) -> None:
        """End a run before it ships. One that waits for its turn or is under way; its builds end with it.

        One that ships is taken back by `hitless abort`, one that waits for approval by `hitless reject`.
        """
        document = client_of(ctx).call("POST", f"/pipeline/runs/{run}/stop", {"by": who(), "why": why})
        ctx.show(document, lambda: in_a_line(document))
