"""`hitless logs`: what the handlers wrote, at the stage's home."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.cli.access_log import show, show_as_requests
from hitless.cli.common import Context, command
from hitless.cli.homes import LogQuery, home_of, try_load
from hitless.errors import UsageError
from hitless.pipeline.rehearsal.recorded import LINES_AT_MOST
from hitless.service.model import Home


def register(app: typer.Typer) -> None:
    @command(app, "logs", example="hitless logs zones -f")
    def logs(
        ctx: Context,
        function: Annotated[str | None, typer.Argument(help="One function; default: all.")] = None,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
        release: Annotated[int | None, typer.Option("--release", help="Default: the live one.")] = None,
        access: Annotated[bool, typer.Option("--access", help="The access log instead: one line a request.")] = False,
        as_requests: Annotated[
            bool, typer.Option("--as-requests", help="The access log as what `hitless drill --requests` takes.")
        ] = False,
        limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many lines of the past.")] = 1000,
    ) -> None:
        """Show what the handlers wrote. START, their own lines, END and REPORT, as CloudWatch shows them.

        With --access, the requests as the gateway logged them.
        """
        if access or as_requests:
            _access(ctx, LogQuery(function, follow, release, limit), as_requests)
            return
        home_of(ctx).logs(ctx, LogQuery(function, follow, release, limit))


def _access(ctx: Context, query: LogQuery, as_requests: bool) -> None:
    if query.function is not None:
        raise UsageError("the access log is not kept by function", hint="leave the function out")
    if as_requests and query.follow:
        raise UsageError("--as-requests takes what there is", hint="leave --follow out")
    service = try_load(ctx, ctx.stage)
    if service is not None and service.settings.home is Home.AWS:
        raise UsageError(
            f"{ctx.stage} is at home on AWS: API Gateway writes its access log to CloudWatch",
            hint="`hitless aws logs` shows handlers' lines; the access log is in the stage's log group",
        )
    if as_requests:
        show_as_requests(ctx)
    else:
        show(ctx, limit=query.limit or LINES_AT_MOST, follow=query.follow, release=query.release)
