"""`hitless aws deploy`: build, package, expand, shift, contract."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hitless.aws.osls import find_osls
from hitless.cli.aws_common import load_for_aws, template_folder, write_template
from hitless.cli.aws_wire import build_portable, conclude, connected_stage, store_of
from hitless.cli.common import Context, command
from hitless.cli.homes import DeployOrder
from hitless.cli.shipping import commit_of
from hitless.cloud.release.deploy import Deploy
from hitless.cloud.release.packaging import Package, package
from hitless.cloud.stage.core_outputs import read_core_outputs
from hitless.cloud.transform.changes import changes
from hitless.cloud.transform.guard import whole_minutes
from hitless.cloud.transform.holding import held, hold
from hitless.cloud.transform.model import LiveState
from hitless.cloud.transform.orders import check_transition, notes
from hitless.cloud.transform.steps import contract, expand
from hitless.errors import UsageError
from hitless.service.model import Nat, Service
from hitless.service.strategy import EXAMPLES, AllAtOnce, Strategy, parse


def register(app: typer.Typer) -> None:
    @command(app, "deploy", example="hitless aws deploy --stage prod --dry-run --json")
    def deploy(
        ctx: Context,
        strategy: Annotated[str | None, typer.Option("--strategy", help=f"For this release: {EXAMPLES}.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the final templates; ask no AWS.")] = False,
        compare: Annotated[bool, typer.Option("--compare", help="With --dry-run: compare with what is live.")] = False,
        core_outputs: Annotated[
            Path | None, typer.Option("--core-outputs", help="With --dry-run: core's outputs, a JSON object.")
        ] = None,
        force: Annotated[bool, typer.Option("--force", help="Ship even where nothing has changed.")] = False,
        message: Annotated[str | None, typer.Option("--message", "-m", help="What the release is about.")] = None,
    ) -> None:
        """Build the service and ship it to AWS. By the stage's strategy; waits for the end."""
        order = DeployOrder(strategy, dry_run=dry_run, force=force, message=message)
        deploy_on_aws(ctx, load_for_aws(ctx), order, compare=compare, core_outputs=core_outputs)


def deploy_on_aws(
    ctx: Context, service: Service, order: DeployOrder, *, compare: bool = False, core_outputs: Path | None = None
) -> None:
    """Build and ship; or show what a dry run would ship, with `compare` compared with what is live."""
    chosen = strategy_of(service, order.strategy)
    for note in _not_on_aws(service):
        ctx.say(f"note: {note}")
    osls = replace(find_osls(service.folder, os.environ), params=ctx.params)
    commit = os.environ.get("HITLESS_COMMIT") or commit_of(service.folder)  # the pipeline has no .git
    if order.dry_run and not compare:
        core = read_core_outputs(service.folder, core_outputs)
        made = package(service, build_portable(ctx, service), core, osls)
        _preview(ctx, made, LiveState(), chosen, commit)
        return
    with connected_stage(ctx, service) as stage:
        stage.cloud.stack.refuse_plain()
        made = package(service, build_portable(ctx, service), stage.core, osls)
        if order.dry_run:
            _preview(ctx, made, stage.cloud.stack.observe().live, chosen, commit)
            return
        store = store_of(ctx)
        result = Deploy(stage.cloud, store.zip_path).run(
            made, strategy=chosen, commit=commit, message=order.message, force=order.force
        )
    conclude(ctx, result)


def strategy_of(service: Service, named: str | None) -> Strategy:
    """The one that `--strategy` names, else the stage's own. Raises UsageError."""
    if named is None:
        return service.settings.strategy
    try:
        return parse(named)
    except ValueError as error:
        raise UsageError(f"--strategy: {error}", hint=f"for example {EXAMPLES}") from error


def _not_on_aws(service: Service) -> list[str]:
    """Sentences on settings of the stage that nothing on AWS acts on."""
    settings, at = service.settings, f"custom.hitless.stages.{service.stage}"
    cut_off = settings.nat is Nat.NONE and settings.shield and not isinstance(settings.strategy, AllAtOnce)
    notes = {
        f"{at}.nat is none: the shield needs an interface endpoint for Lambda in the private subnets": cut_off,
    }
    return [note for note, applies in notes.items() if applies]


def _preview(ctx: Context, made: Package, live: LiveState, strategy: Strategy, commit: str | None) -> None:
    shipped = whole_minutes(strategy)
    if shipped != strategy:
        ctx.say(f"{strategy} would be shipped as {shipped}: CodeDeploy knows whole minutes")
    number = int(live.output("HitlessRelease") or 0)
    wanted = made.wanted(number=number + 1, previous=number or None, commit=commit, strategy=shipped)
    check_transition(live, wanted)
    said, standing, holding = notes(live, wanted), live.template, hold(wanted, live)
    live = held(live, holding)
    final = contract(wanted, live, {})
    folder = template_folder(ctx)
    document = {
        "stage": made.service.stage,
        "dry_run": True,
        "template": str(write_template(folder / "template.json", final)),
        "hold_template": str(write_template(folder / "hold.json", holding)) if holding else None,
        "expand_template": str(write_template(folder / "expand.json", expand(wanted, live))),
        "artifacts": {name: artifact.digest for name, artifact in made.artifacts.items()},
        "changes": changes(standing, final),
        "notes": said,
    }
    ctx.show(document, lambda: _in_words(document))


def _in_words(document: dict[str, Any]) -> str:
    rows = [
        f"{'REPLACE' if change['replaces'] else change['action']:<8} {change['resource']}"
        for change in document["changes"]
    ]
    rows += [f"note: {note}" for note in document["notes"]]
    return "\n".join([*rows, f"expand:   {document['expand_template']}", f"contract: {document['template']}"])
