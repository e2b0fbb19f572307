"""`hitless logs` and `hitless events`: the handlers' output, the access log, and the engine's events."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

import typer

from hitless.cli.access_log import show, show_as_requests
from hitless.cli.common import Context, HomeOption, command, positive
from hitless.errors import UsageError
from hitless.homes.engine import EngineHome
from hitless.homes.home import LogQuery, home_of
from hitless.pipeline.rehearsal.recorded import LINES_AT_MOST
from hitless.service.model import Home

FunctionArgument = Annotated[str | None, typer.Argument(help="One function; default: all.")]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Keep showing new lines as they are written.")]
ReleaseOption = Annotated[
    int | None, typer.Option("--release", help="One release; default: the live one, or all on AWS.")
]


@command("logs", example="hitless logs zones -f")
def logs(
    ctx: Context,
    function: FunctionArgument = None,
    follow: FollowOption = False,
    release: ReleaseOption = None,
    access: Annotated[bool, typer.Option("--access", help="Show the access log instead.")] = False,
    as_requests: Annotated[
        bool,
        typer.Option("--as-requests", help="Show the access log in the format of `hitless drill --requests`."),
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Number of past lines.")] = 1000,
    minutes: Annotated[int | None, typer.Option("--minutes", help="On AWS: minutes back; default 15.")] = None,
    home: HomeOption = None,
) -> None:
    """Show the handlers' output by request, as CloudWatch does.

    Each request has START, the handler's own lines, END and REPORT. With --access, show the requests that the
    gateway logged instead.
    """
    if minutes is not None:
        positive(minutes, "--minutes")
    query = LogQuery(function=function, follow=follow, release=release, limit=limit, minutes=minutes)
    if access or as_requests:
        _access(ctx, query, as_requests, home)
        return
    ctx.show_each(home_of(ctx, home).logs(query), str, follow=follow)


@command("events", example="hitless events -f")
def events(
    ctx: Context,
    follow: FollowOption = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Number of past events.")] = 100,
) -> None:
    """Show the engine's events, each with its reason. With --json and -f, print one document per line."""
    engine = EngineHome(ctx)
    past = engine.events(limit)
    coming = engine.coming_events(past[-1]["event"] if past else 0) if follow else ()
    ctx.show_each(
        chain(past, coming), lambda one: f"{one['at']}  {one['stage'] or '-':<8} {one['sentence']}", follow=follow
    )


def _access(ctx: Context, query: LogQuery, as_requests: bool, named: Home | None) -> None:
    if query.function is not None:
        raise UsageError("the access log cannot be filtered by function", hint="leave the function out")
    if as_requests and query.follow:
        raise UsageError("--as-requests cannot follow the log", hint="leave --follow out")
    service = ctx.try_load()
    if (named or (service.settings.home if service else Home.ENGINE)) is Home.AWS:
        raise UsageError(
            f"the home of {ctx.stage} is AWS: API Gateway writes its access log to CloudWatch",
            hint="`hitless logs` shows the handlers' lines; the access log is in the stage's log group",
        )
    if as_requests:
        show_as_requests(ctx)
    else:
        show(ctx, limit=query.limit or LINES_AT_MOST, follow=query.follow, release=query.release)
