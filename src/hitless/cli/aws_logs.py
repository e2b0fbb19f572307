"""`hitless aws logs [FUNCTION]`: the handlers' lines in CloudWatch."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import typer

from hitless.aws.lambdas import Logs
from hitless.cli.aws_common import load_for_aws
from hitless.cli.aws_wire import Stage, connected_stage
from hitless.cli.common import Context, command, positive
from hitless.cli.homes import LogQuery
from hitless.clock import timestamp
from hitless.cloud.stage.settling import function_names
from hitless.errors import UsageError
from hitless.service.model import Service

FOLLOW_EVERY_S = 2.0
OVERLAP_MS = 10_000
"""CloudWatch takes lines in late, so that following reads a little of the past again."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line in CloudWatch; `event` is its id there."""

    at_ms: int
    function: str
    text: str
    event: str

    def to_json(self) -> dict[str, str]:
        instant = timestamp(datetime.fromtimestamp(self.at_ms / 1000, UTC))
        return {"at": instant, "function": self.function, "line": self.text}

    def __str__(self) -> str:
        return "  ".join(self.to_json().values())


def register(app: typer.Typer) -> None:
    @command(app, "logs", example="hitless aws logs zones --stage prod --release 12 -f")
    def logs(
        ctx: Context,
        function: Annotated[str | None, typer.Argument(help="One function; default: all.")] = None,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written next.")] = False,
        release: Annotated[int | None, typer.Option("--release", help="Only what that release wrote.")] = None,
        minutes: Annotated[int, typer.Option("--minutes", help="How far back.")] = 15,
    ) -> None:
        """Show what the handlers wrote. Oldest first; START, END and REPORT lines included."""
        positive(minutes, "--minutes")
        show_logs(ctx, load_for_aws(ctx), LogQuery(function, follow, release, limit=None), minutes=minutes)


def show_logs(
    ctx: Context, service: Service, query: LogQuery, *, minutes: int = 15, form: Callable[[Line], Any] = Line.to_json
) -> None:
    """Show the lines of the last minutes, then what comes where that is asked for; `form` is a line with --json."""
    if query.function is not None and service.function(query.function) is None:
        known = ", ".join(sorted(each.name for each in service.functions))
        raise UsageError(f"there is no function {query.function}", hint=f"known are {known}")
    with connected_stage(ctx, service) as stage:
        groups = _groups(stage, query.function, query.release)
        reader = Logs(stage.aws.client("logs"))
        lines = _lines(reader, groups, int((time.time() - 60 * minutes) * 1000))
        lines = lines[-query.limit :] if query.limit else lines
        if query.follow:
            _follow(ctx, reader, groups, lines, form)
        ctx.show([form(line) for line in lines], lambda: "\n".join(map(str, lines)))


def _groups(stage: Stage, function: str | None, release: int | None) -> dict[str, str]:
    """Log group → the part of its streams' names that the release's version has; empty for any."""
    service = stage.service
    observed = stage.cloud.stack.observe()
    names = function_names(stage.cloud, observed, service=service.name, stage=service.stage)
    versions = dict(stage.cloud.records.require(release).versions) if release is not None else {}
    return {
        f"/aws/lambda/{lambda_name}": f"[{versions[name]}]" if name in versions else ""
        for lambda_name, name in sorted(names.items())
        if function in (None, name) and (release is None or name in versions)
    }


def _lines(reader: Logs, groups: dict[str, str], since_ms: int) -> list[Line]:
    """The lines of all groups, the oldest first."""
    streams = [
        (
            Line(at, group.rpartition("/")[2], line, event)
            for at, event, line in reader.lines(group, since_ms=since_ms, stream_part=part)
        )
        for group, part in groups.items()
    ]
    return list(heapq.merge(*streams, key=lambda line: line.at_ms))


def _follow(
    ctx: Context, reader: Logs, groups: dict[str, str], lines: list[Line], form: Callable[[Line], Any]
) -> NoReturn:
    """Show the past, then each line that comes, until somebody ends it; with --json one document a line."""
    seen: set[Line] = set()
    while True:
        for line in lines:
            if line not in seen:
                ctx.show(form(line), line.__str__)
        seen = set(lines)
        time.sleep(FOLLOW_EVERY_S)
        lines = _lines(reader, groups, int(time.time() * 1000) - OVERLAP_MS)
