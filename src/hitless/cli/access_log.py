"""`hitless logs --access`: a stage's requests as the gateway logged them, each with its function and route.

Reads files alone, so it works while the engine is down.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hitless.cli.common import Context
from hitless.errors import UsageError
from hitless.gateway.accesslog import AccessLine, files_of, followed, newest
from hitless.gateway.logfiles import ACCESS_LOG
from hitless.homes.folder import folders_of, recorded
from hitless.pipeline.rehearsal.recorded import LINES_AT_MOST, Routes, Weighed, weighed
from hitless.release.document import ReleaseDocument

FOLLOW_EVERY_S = 0.2


def access_log_of(ctx: Context) -> Path:
    """The path of the stage's access log, which need not exist."""
    return folders_of(ctx).logs / ctx.engine_stage / ACCESS_LOG


def show(ctx: Context, *, limit: int, follow: bool, release: int | None) -> None:
    """Show the newest requests, oldest first; with `follow` one JSON document a line, without end."""
    log, described = access_log_of(ctx), _description(ctx)
    if not files_of(log) and not follow:
        raise UsageError(
            f"{ctx.stage} has no access log: {log} does not exist",
            hint="it starts with the stage's first request; previews and `access_log: off` have none",
        )
    lines = followed(log, limit, pause=lambda: time.sleep(FOLLOW_EVERY_S)) if follow else newest(log, limit)
    ctx.show_each((described(one) for one in lines if release in (None, one.release)), _line, follow=follow)


def show_as_requests(ctx: Context) -> None:
    """Show the requests that may be repeated, as `hitless drill --requests` takes them, weighted by their number."""
    live = recorded(ctx)
    if live is None:
        raise UsageError(f"{ctx.stage} has no live release", hint="`hitless up` ships the first")
    found = recorded_load(ctx, ReleaseDocument.from_json(live.document))
    rows = [{"method": one.request.method, "path": one.request.path, "weight": one.request.weight} for one in found]
    if not rows:
        raise UsageError(
            f"{ctx.stage} has logged no request that may be repeated",
            hint="only GET, HEAD and OPTIONS with a 2xx response may be",
        )
    ctx.show(rows, lambda: "\n".join(json.dumps(row) for row in rows))


def recorded_load(ctx: Context, live: ReleaseDocument) -> list[Weighed]:
    """The requests of the stage's log that a rehearsal sends; none if there is no log."""
    return weighed(newest(access_log_of(ctx), LINES_AT_MOST), live)


def _description(ctx: Context) -> Callable[[AccessLine], dict[str, Any]]:
    """Describes a line with its function and route; the routes of each release are read once."""

    @cache
    def routes_of(release: int) -> Routes | None:
        row = recorded(ctx, release)
        return Routes(ReleaseDocument.from_json(row.document)) if row is not None else None

    def described(line: AccessLine) -> dict[str, Any]:
        routes = routes_of(line.release) if line.release is not None else None
        function, route = routes.of(line.method, line.path) if routes is not None else (None, None)
        return {**line.to_json(), "function": function, "route": route}

    return described


def _line(document: dict[str, Any]) -> str:
    release = f"r{document['release']}" if document["release"] is not None else "-"
    marks = "".join(f" {name}" for name in ("shielded", "cut_off") if document[name])
    return (
        f"{document['at']}  {document['status']}  {document['duration_ms']:>5} ms  {release:<5}"
        f" {document['method']} {document['path']}{marks}"
    )
