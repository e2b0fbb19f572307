"""`hitless abort`: the rollout under way stops, its weight goes back to 0 at once."""

from __future__ import annotations

from typing import Any

import typer

from hitless.cli.common import Context, command
from hitless.cli.homes import check_home
from hitless.cli.shipping import client_of, follow
from hitless.rollout.states import Outcome


def register(app: typer.Typer) -> None:
    @command(app, "abort", example="hitless abort --stage prod")
    def abort(
        ctx: Context,
    ) -> None:
        """Stop the rollout under way. The live release keeps all the traffic."""
        check_home(ctx, "abort")
        result = follow(ctx, client_of(ctx).stream("POST", f"/stages/{ctx.stage}/abort", {}))
        if result is not None:
            ctx.show(result, lambda: _sentence(result))


def _sentence(result: dict[str, Any]) -> str:
    if result["outcome"] == Outcome.LIVE:
        return f"release {result['release']} is live; nothing guards it any more"
    return f"release {result['release']} was {result['outcome']}: {result['reason']}"
