"""`hitless events`: what the engine did and why, one sentence a line."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hitless.cli.common import Context, command
from hitless.cli.shipping import client_of


def register(app: typer.Typer) -> None:
    @command(app, "events", example="hitless events -f")
    def events(
        ctx: Context,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
        limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many of the past.")] = 100,
    ) -> None:
        """Show what the engine did, and why. With --json and -f one document a line."""
        client = client_of(ctx)
        past = client.call("GET", "/events", limit=limit, stage=ctx.stage)
        if not follow:
            ctx.show(past, lambda: "\n".join(map(_line, past)))
            return
        after = past[-1]["event"] if past else 0
        for event in past:
            _show(ctx, event)
        for event in client.stream("GET", "/events", follow=1, after=after, stage=ctx.stage):
            _show(ctx, event)


def _show(ctx: Any, event: dict[str, Any]) -> None:
    ctx.show(event, lambda: _line(event))


def _line(event: dict[str, Any]) -> str:
    return f"{event['at']}  {event['stage'] or '-':<8} {event['sentence']}"
