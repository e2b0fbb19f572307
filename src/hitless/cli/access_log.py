"""`hitless logs --access`: a stage's requests as the gateway logged them, each with its function and route.

Reads files alone, so it works while the engine is down.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from hitless.cli.common import Context
from hitless.errors import UsageError
from hitless.gateway.accesslog import AccessLine, files_of, followed, newest
from hitless.gateway.render import ACCESS_LOG
from hitless.homes.folder import folders_of, recorded
from hitless.pipeline.rehearsal.recorded import LINES_AT_MOST, Routes, Weighed, weighed
from hitless.release.document import ReleaseDocument

FOLLOW_EVERY_S = 0.2


def access_log_of(ctx: Context) -> Path:
    """The path of the stage's access log, which need not exist."""
    return folders_of(ctx).logs / ctx.stage / ACCESS_LOG


def show(ctx: Context, *, limit: int, follow: bool, release: int | None) -> None:
    """Show the newest requests, oldest first; with `follow` one JSON document a line, without end."""
    log, routes = access_log_of(ctx), _Releases(ctx)
    if not files_of(log) and not follow:
        raise UsageError(
            f"{ctx.stage} has no access log: {log} does not exist",
            hint="it starts with the stage's first request; previews and `access_log: off` have none",
        )
    if not follow:
        documents = [routes.document(one) for one in newest(log, limit) if release in (None, one.release)]
        ctx.show(documents, lambda: "\n".join(map(_line, documents)))
        return
    for one in followed(log, limit, pause=lambda: time.sleep(FOLLOW_EVERY_S)):
        if release in (None, one.release):
            document = routes.document(one)
            ctx.show(document, lambda: _line(document))  # noqa: B023 - called at once


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


class _Releases:
    """The routes of the stage's releases, each read once."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: dict[int, Routes | None] = {}

    def document(self, line: AccessLine) -> dict[str, Any]:
        routes = self._of(line.release) if line.release is not None else None
        function, route = routes.of(line.method, line.path) if routes is not None else (None, None)
        return {**line.to_json(), "function": function, "route": route}

    def _of(self, release: int) -> Routes | None:
        if release not in self._known:
            row = recorded(self._ctx, release)
            self._known[release] = Routes(ReleaseDocument.from_json(row.document)) if row is not None else None
        return self._known[release]


def _line(document: dict[str, Any]) -> str:
    release = f"r{document['release']}" if document["release"] is not None else "-"
    marks = "".join(f" {name}" for name in ("shielded", "cut_off") if document[name])
    return (
        f"{document['at']}  {document['status']}  {document['duration_ms']:>5} ms  {release:<5}"
        f" {document['method']} {document['path']}{marks}"
    )
