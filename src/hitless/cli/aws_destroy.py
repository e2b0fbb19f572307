"""`hitless aws destroy`: take a stage off AWS, once its name was typed."""

from __future__ import annotations

from typing import Annotated

import typer

from hitless.cli.aws_common import connected, load_for_aws, typed
from hitless.cli.common import Context, command
from hitless.cloud.setup.destroy import Destroy, Plan
from hitless.cloud.setup.stacks import is_production
from hitless.errors import ConflictError, UsageError
from hitless.service.model import Service


def register(app: typer.Typer) -> None:
    @command(app, "destroy", example="hitless aws destroy --stage staging --confirm staging")
    def destroy(
        ctx: Context,
        dry: Annotated[bool, typer.Option("--dry-run", help="Say what would go and what stays.")] = False,
        region: Annotated[str | None, typer.Option("--region", help="Instead of provider.region.")] = None,
        confirm: Annotated[
            str | None, typer.Option("--confirm", help="The stage's name, instead of typing it.")
        ] = None,
        with_data: Annotated[
            bool, typer.Option("--with-data", help="Artifacts, and tables and buckets of the service, go too.")
        ] = False,
        with_domain: Annotated[bool, typer.Option("--with-domain", help="The domain and its records go too.")] = False,
    ) -> None:
        """Delete the stage's stacks: service, pipeline, core. Data and the domain stay unless named."""
        service = load_for_aws(ctx, region)
        with connected(ctx, service) as on:
            runner = Destroy(service, on.aws, on.stacks, say=ctx.say)
            plan = runner.plan(with_data=with_data, with_domain=with_domain)
            if not dry and (plan.goes or plan.keeps_core):
                _ask(ctx, service, plan, confirm)
                runner.run(plan, with_data=with_data)
        ctx.show({"stage": service.stage, "dry_run": dry, **plan.to_json()}, lambda: _in_words(plan, dry=dry))


def _ask(ctx: Context, service: Service, plan: Plan, confirm: str | None) -> None:
    """Return if a person means this stage. A protected stage's name must be given even with --yes."""
    if confirm is not None and confirm != service.stage:
        raise UsageError(f"--confirm: {confirm!r} is not the stage {service.stage}", hint="nothing was touched")
    if confirm is not None or (ctx.yes and not is_production(service)):
        return
    ctx.say(_in_words(plan, dry=True))
    if not typed(ctx, f"type {service.stage} to delete them:", service.stage):
        raise ConflictError("not confirmed: nothing was touched", hint=f"type the stage's name, {service.stage}")


def _in_words(plan: Plan, *, dry: bool) -> str:
    done = "would be deleted" if dry else "deleted"
    lines = [f"{done}: {name}" for name in plan.goes] or ["there is nothing to delete"]
    return "\n".join([*lines, *(f"stays: {what}" for what in plan.stays)])
