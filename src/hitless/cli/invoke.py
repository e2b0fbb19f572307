"""`hitless invoke`: one invocation outside HTTP, of the code as it stands in the folder."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hitless.artifact.store import ArtifactStore
from hitless.cli.common import Context, Ended, command
from hitless.cli.shipping import build_document, folders_of, load
from hitless.errors import UsageError
from hitless.rollout.release import Release, pool_spec
from hitless.workers.invoke import invoke_once

MAX_EVENT_BYTES = 6 * 1024 * 1024


def register(app: typer.Typer) -> None:
    @command(app, "invoke", example="hitless invoke zones --event event.json")
    def invoke(
        ctx: Context,
        function: Annotated[str, typer.Argument(help="The function, as serverless.yml names it.")],
        event: Annotated[
            Path | None,
            typer.Option("--event", help="A file with the event as JSON (a route's: a REST event); default: {}."),
        ] = None,
    ) -> None:
        """Invoke a function once, outside HTTP. In a process of its own; shows its result and its log."""
        service = load(ctx)
        called = service.function(function)
        if called is None:
            raise UsageError(
                f"serverless.yml has no function {function}",
                hint="functions: " + ", ".join(f.name for f in service.functions),
            )
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
        result = asyncio.run(invoke_once(spec, _event(event), timeout_s=spec.timeout_s))
        ctx.say(result.log.rstrip("\n"))
        ctx.show(result.payload, lambda: json.dumps(result.payload, indent=2, ensure_ascii=False))
        if result.error:
            hint = "the log above has the traceback"
            if event is None and called.routes:
                hint += "; it was given {}: --event FILE gives it the REST event that its routes expect"
            raise Ended(1, f"{function} failed: {result.error}", hint)


def _event(path: Path | None) -> Any:
    if path is None:
        return {}
    try:
        if path.stat().st_size > MAX_EVENT_BYTES:
            raise UsageError(f"{path} is larger than Lambda's 6 MB", hint="send a smaller event")
        return json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}", hint="an event is one JSON document") from error
