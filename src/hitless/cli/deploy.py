"""`hitless deploy`: build, ship at the stage's home, wait for the end of the rollout."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.cli.common import Context, command
from hitless.cli.homes import DeployOrder, home_at, read
from hitless.errors import UsageError
from hitless.service.strategy import EXAMPLES, parse


def register(app: typer.Typer) -> None:
    @command(app, "deploy", example="hitless deploy --strategy Canary10Percent30Seconds --message 'new search'")
    def deploy(
        ctx: Context,
        strategy: Annotated[str | None, typer.Option("--strategy", help=f"For this rollout: {EXAMPLES}.")] = None,
        no_wait: Annotated[bool, typer.Option("--no-wait", help="Return when the rollout has begun.")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and compare; ship nothing.")] = False,
        force: Annotated[bool, typer.Option("--force", help="Ship even where nothing has changed.")] = False,
        message: Annotated[str | None, typer.Option("--message", "-m", help="What the release is about.")] = None,
    ) -> None:
        """Build the service and ship it. The stage's strategy says how; waits for the end of the rollout."""
        if strategy is not None:
            try:
                parse(strategy)
            except ValueError as error:
                raise UsageError(f"--strategy: {error}", hint=f"for example {EXAMPLES}") from error
        service = read(ctx)
        order = DeployOrder(strategy, no_wait=no_wait, dry_run=dry_run, force=force, message=message)
        home_at(service.settings.home).deploy(ctx, service, order)
