"""`hitless aws repair`: what `hitless aws status` names as amiss, mended without a failed request."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.aws.running import RunningCode
from hitless.cli.aws_common import load_for_aws
from hitless.cli.aws_wire import connected_stage, store_of
from hitless.cli.common import Context, Ended, command
from hitless.cloud.repair.repair import Repair, Repaired, describe


def register(app: typer.Typer) -> None:
    @command(app, "repair", example="hitless aws repair --stage prod --dry-run")
    def repair(
        ctx: Context,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say the steps; change nothing.")] = False,
        skip_resource: Annotated[
            list[str] | None,
            typer.Option("--skip-resource", help="A logical id that a stuck roll-back leaves as it is; repeatable."),
        ] = None,
    ) -> None:
        """Bring the stage back to its live release. A deploy that is under way is taken over: it ends as superseded."""
        service = load_for_aws(ctx)
        with connected_stage(ctx, service) as stage:
            store = store_of(ctx)
            code = RunningCode(stage.aws.client("lambda"))
            runner = Repair(
                stage.cloud, lambda sha256: store.zip_path(f"sha256:{sha256}"), code, skip=skip_resource or ()
            )
            done = runner.plan(service.stage) if dry_run else runner.run(service.stage)
        ctx.show(done.to_json(), lambda: _in_words(done))
        if done.left and not dry_run:
            first = done.left[0]
            raise Ended(1, f"{len(done.left)} left amiss: {first.where}: {first.what}", first.mends)


def _in_words(done: Repaired) -> str:
    if not done.mended and not done.left:
        return f"{done.stage}: nothing is amiss"
    if done.dry_run:
        found = [f"amiss: {describe(one.to_json())}" for one in done.left]
        return "\n".join([*found, *(f"would {step}" for step in done.steps)])
    lines = [f"mended: {one.where}: {one.what}" for one in done.mended]
    return "\n".join([*lines, *(f"left: {describe(one.to_json())}" for one in done.left)])
