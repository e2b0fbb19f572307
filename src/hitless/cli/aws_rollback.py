"""`hitless aws rollback [RELEASE]`: an earlier release again, at once, without a build."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.cli.aws_common import load_for_aws
from hitless.cli.aws_wire import conclude, connected_stage
from hitless.cli.common import Context, command
from hitless.cloud.release.rollback import rollback as roll_back


def register(app: typer.Typer) -> None:
    @command(app, "rollback", example="hitless aws rollback 11 --stage prod")
    def rollback(
        ctx: Context,
        release: Annotated[int | None, typer.Argument(help="Default: the one live before this one.")] = None,
        message: Annotated[str | None, typer.Option("--message", "-m", help="Why; kept in the receipt.")] = None,
    ) -> None:
        """Go back to an earlier release at once. All traffic to its versions first, then the stack."""
        with connected_stage(ctx, load_for_aws(ctx)) as stage:
            result = roll_back(stage.cloud, release, why=message)
        conclude(ctx, result)
