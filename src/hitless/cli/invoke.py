"""`hitless invoke`: one invocation outside HTTP, of the code in the folder."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from hitless.artifact.store import ArtifactStore
from hitless.cli.common import Context, UnsuccessfulResult, command
from hitless.errors import UsageError
from hitless.homes.folder import build_document, folders_of, load
from hitless.rollout.release import Release, pool_spec
from hitless.workers.invoke import invoke_once, rest_event
from hitless.workers.isolation import PATHS_VARIABLE

_NOT_WRITABLE = re.compile(
    "read-only file system|readonly database|unable to open database|permission denied", re.IGNORECASE
)
"""Errors of the kernel, Node.js (EROFS, EACCES) and SQLite for a place that a handler cannot write to."""
MAX_EVENT_BYTES = 6 * 1024 * 1024


@command("invoke", example="hitless invoke zones --request 'GET /zones?limit=1'")
def invoke(
    ctx: Context,
    function: Annotated[str, typer.Argument(help="The function's name in serverless.yml.")],
    event: Annotated[
        Path | None,
        typer.Option("--event", help="A file with the event as JSON; default: {}."),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(
            "--request",
            metavar="'METHOD PATH'",
            help="A request to one of its routes, as that route's event.",
        ),
    ] = None,
    body: Annotated[str | None, typer.Option("--body", help="The request's body.")] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="'NAME: VALUE'", help="A header; may be repeated.")
    ] = None,
) -> None:
    """Invoke a function once, outside HTTP, in a process of its own. Shows its result and its log."""
    if (event is not None and request is not None) or ((body is not None or header) and request is None):
        raise UsageError(
            "--event and --request exclude each other, and --body and --header need --request", hint="drop one"
        )
    headers = [header_of(line) for line in header or ()]
    service = load(ctx, served=False)
    called = service.function(function)
    if called is None:
        raise UsageError(
            f"serverless.yml has no function {function}",
            hint="functions: " + ", ".join(f.name for f in service.functions),
        )
    asked = _asked(request) if request is not None else None
    document = build_document(ctx, service)
    folders = folders_of(ctx)
    release = Release(ctx.stage, 0, document)
    spec = pool_spec(
        release,
        release.function(function),
        key=f"invoke-{function}",
        task_root=str(ArtifactStore(folders.artifacts).unpack(document.artifacts[function].digest)),
        log_dir=str(folders.logs / ctx.stage / "invoke" / function),
    )
    sent = body.encode() if body is not None else None
    given = _event(event) if asked is None else rest_event(spec, *asked, sent, headers)
    if given is None and asked is not None:
        raise UsageError(
            f"{called.name} has no route for {' '.join(asked)}",
            hint="its routes: " + (", ".join(map(str, called.routes)) or "none"),
        )
    result = asyncio.run(invoke_once(spec, given))
    ctx.say(result.log.rstrip("\n"))
    ctx.show(result.payload, lambda: json.dumps(result.payload, indent=2, ensure_ascii=False))
    if result.error:
        raise UnsuccessfulResult(
            1, f"{function} failed: {result.error}", hint_for(result.error, routed=given == {} and bool(called.routes))
        )


def hint_for(error: str, *, routed: bool) -> str:
    """How to go on after that error. `routed`: an empty event was sent to a function that has routes."""
    hint = "the log above has the traceback"
    if routed:
        hint += "; the event was {}: its routes expect --request 'METHOD PATH' or --event FILE"
    if _NOT_WRITABLE.search(error):
        hint += f"; handlers may write to /tmp only, and to what {PATHS_VARIABLE} names (docs/security.md)"
    return hint


def _asked(line: str) -> tuple[str, str]:
    """Method and target of a request line such as `GET /zones?limit=1`."""
    method, _, target = line.strip().partition(" ")
    if not method.isalpha() or not target.startswith("/") or " " in target:
        raise UsageError(f"--request {line!r} is not METHOD PATH", hint="for example --request 'GET /zones?limit=1'")
    return method.upper(), target


def header_of(line: str) -> tuple[bytes, bytes]:
    """Name and value of a line such as `Accept: text/html`. UsageError if it is not one."""
    name, colon, value = line.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\0]", value):
        raise UsageError(f"--header {line!r} is not NAME: VALUE", hint="for example --header 'Accept-Language: de'")
    return name.encode(), value.strip().encode()


def _event(path: Path | None) -> Any:
    if path is None:
        return {}
    try:
        if path.stat().st_size > MAX_EVENT_BYTES:
            raise UsageError(f"{path} is larger than Lambda's 6 MB", hint="send a smaller event")
        return json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}", hint="an event is one JSON document") from error
