"""`hitless aws promote FROM TO`: what is live in one stage on AWS ships to another one there, the same bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from hitless.cli.aws_common import load_for_aws
from hitless.cli.aws_deploy import strategy_of
from hitless.cli.aws_given import ship_given
from hitless.cli.aws_wire import conclude, connected_stage, store_of
from hitless.cli.common import Context, command
from hitless.cloud.records.kept import fetch_artifacts
from hitless.cloud.release.promotion import promotable
from hitless.documents import to_plain
from hitless.errors import UsageError
from hitless.service.strategy import EXAMPLES


def register(app: typer.Typer) -> None:
    @command(app, "promote", example="hitless aws promote staging prod")
    def promote(
        ctx: Context,
        source: Annotated[str, typer.Argument(metavar="FROM", help="The stage whose live release ships.")],
        target: Annotated[str, typer.Argument(metavar="TO", help="The stage that it ships to.")],
        strategy: Annotated[str | None, typer.Option("--strategy", help=f"For this release: {EXAMPLES}.")] = None,
        from_profile: Annotated[
            str | None, typer.Option("--from-profile", help="The AWS profile of FROM's account, where it is another.")
        ] = None,
    ) -> None:
        """Ship FROM's live artifacts, the same bytes, to TO. By TO's strategy; both are on AWS, in any account."""
        promote_on_aws(ctx, source, target, strategy=strategy, from_profile=from_profile)


def promote_on_aws(
    ctx: Context, source: str, target: str, *, strategy: str | None = None, from_profile: str | None = None
) -> None:
    """Fetch FROM's zips, their digests checked, and ship them to TO with the folder's configuration of TO."""
    if source == target:
        raise UsageError(f"{source} cannot be promoted to itself", hint="`hitless aws promote staging prod`")
    there = replace(ctx, stage=target)
    service = load_for_aws(there)
    chosen = strategy_of(service, strategy)
    with connected_stage(ctx, load_for_aws(replace(ctx, stage=source)), profile=from_profile) as stage:
        found = promotable(stage.cloud, source)
        ctx.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fetched = fetch_artifacts(stage.cloud.bucket, store_of(ctx), found.artifacts.values())
    count = len(set(found.artifacts.values()))
    ctx.say(f"release {found.release} of {source}: {count} artifacts, {fetched} fetched, every digest checked")
    result = ship_given(
        there, service, found.artifacts, chosen,
        commit=found.commit, message=found.message, promoted_from=to_plain(found.promoted_from),
    )  # fmt: skip
    conclude(there, result)
