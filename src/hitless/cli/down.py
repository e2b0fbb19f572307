"""`hitless down`: everything that belongs to the engine ends; the data stays."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.api.client import EngineClient
from hitless.cli.common import Context, command
from hitless.cli.shipping import folders_of
from hitless.cli.up import await_end, start_daemon
from hitless.errors import EngineError, EngineNotRunningError
from hitless.pipeline.workshop import vacate

STOP_DEADLINE_S = 60.0


def register(app: typer.Typer) -> None:
    @command(app, "down", example="hitless down --force")
    def down(
        ctx: Context,
        force: Annotated[bool, typer.Option("--force", help="Do not wait for requests in hand.")] = False,
    ) -> None:
        """Finish requests in hand and stop the engine. Every process of it ends; the data stays."""
        folders = folders_of(ctx)
        if not folders.remains():
            raise EngineNotRunningError(
                f"no engine runs on {folders.data}", hint="nothing to stop; `hitless up` starts one"
            )
        if not folders.engine_is_alive():
            start_daemon(folders)  # it adopts what its predecessor left, which is then stopped in good order
        EngineClient(folders.api_socket).call("POST", "/shutdown", {"force": force})
        if not await_end(folders, STOP_DEADLINE_S):
            raise EngineError("some processes of the engine have not ended", hint="`hitless down --force`")
        vacate(folders.data)
        ctx.show({"stopped": True}, lambda: "the engine has stopped; its data stays")
