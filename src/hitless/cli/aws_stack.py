"""`hitless aws adopt`, `repair` and `drift`: a stage's stack is taken over, brought back, or compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Annotated, Any

import typer

from hitless.aws.stacks import Imports
from hitless.cli.common import Context, UnsuccessfulResult, command
from hitless.cli.following import conclude
from hitless.cloud.adoption.adoption import Adoption, AdoptionPlan, steps_of
from hitless.cloud.adoption.templates import AdoptionPhase
from hitless.cloud.repair.repair import Repair, Repaired, describe
from hitless.cloud.setup.stacks import names_of
from hitless.documents import to_plain
from hitless.homes.aws_deploy import packaged
from hitless.homes.aws_stage import AwsStage, connected, connected_stage, template_folder, write_template
from hitless.homes.folder import store_of


@command("aws adopt", example="hitless aws adopt --stage prod --dry-run")
def adopt(
    ctx: Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the stack, write the templates, list the steps; change nothing.")
    ] = False,
) -> None:
    """Adopt a stack that Serverless Framework deployed. No request fails.

    Its code becomes a release; the next deploy rolls back to it if an alarm fires. The stage's core stack must
    exist.
    """
    service = ctx.load_for_aws()
    with connected_stage(ctx, service, service_role=False) as stage:
        adoption = _adoption(ctx, stage)
        seen = adoption.observe()
        plan = adoption.decide(seen)
        for note in plan.notes:
            ctx.say(f"note: {note}")
        if dry_run:
            _show(ctx, plan)
            return
        for one in plan.refused:
            ctx.say(f"cannot be adopted: {one.what}; {one.way}")
        if not plan.refused and plan.phase is not AdoptionPhase.ADOPTED:
            _ask(ctx, plan, stage.cloud.stack.name)
        result = adoption.run(seen, plan)
    conclude(ctx, to_plain(result))


@command("aws repair", example="hitless aws repair --stage prod --dry-run")
def repair(
    ctx: Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the steps; change nothing.")] = False,
    skip_resource: Annotated[
        list[str] | None,
        typer.Option("--skip-resource", help="A logical id that a stuck stack rollback skips; may be repeated."),
    ] = None,
) -> None:
    """Fix the problems that `hitless status --home aws` lists. A deploy in progress ends as superseded."""
    service = ctx.load_for_aws()
    with connected_stage(ctx, service) as stage:
        store = store_of(ctx)
        runner = Repair(stage.cloud, lambda sha256: store.zip_path(f"sha256:{sha256}"), skip=skip_resource or ())
        done = runner.plan(service.stage) if dry_run else runner.run(service.stage)
    ctx.show(done.to_json(), lambda: _repaired_in_words(done))
    if done.left and not dry_run:
        first = done.left[0]
        raise UnsuccessfulResult(1, f"{len(done.left)} problems are left: {first.where}: {first.what}", first.fix)


@command("aws drift", example="hitless aws drift --stage prod")
def drift(ctx: Context) -> None:
    """List what differs from the templates of the stage's stacks. Changes nothing; ends with 1 if anything differs."""
    service = ctx.load_for_aws()
    with connected(ctx, service) as (_, stacks):
        found = {name: stacks.drift(name) for name in astuple(names_of(service)) if stacks.find(name)}
    words = [f"{name}: {_drift_in_words(one)}" for name, drifts in found.items() for one in drifts]
    ctx.show({"stage": service.stage, "stacks": found}, lambda: "\n".join(words) or "no drift")
    if words:
        hint = "undo each change by hand, or write it into serverless.yml and deploy"
        raise UnsuccessfulResult(1, f"{len(words)} resources differ from their templates", hint)


def _drift_in_words(one: Mapping[str, Any]) -> str:
    changed = [f"{each['path']} is {each['actual']} instead of {each['expected']}" for each in one["differences"]]
    return " ".join([f"{one['resource']} ({one['type']}) is {one['status']}", "; ".join(changed)]).rstrip()


def _adoption(ctx: Context, stage: AwsStage) -> Adoption:
    return Adoption(
        stage.cloud,
        stage.service,
        imports=Imports(stage.aws.client("cloudformation"), stage.stacks),
        package=lambda given: packaged(ctx, stage.service, stage.core, stage.aws.subprocess_environ(), given),
    )


def _ask(ctx: Context, plan: AdoptionPlan, name: str) -> None:
    """Show the steps, and ask at the terminal whether to continue."""
    ctx.say(f"{name} will be adopted ({plan.phase} now):")
    for step in steps_of(plan):
        ctx.say(f"  {step['step']}: {step['does']}")
    if not ctx.yes and ctx.ask("continue? [y/N]", hint="pass --yes").lower() not in ("y", "yes"):
        raise typer.Exit(0)


def _show(ctx: Context, plan: AdoptionPlan) -> None:
    folder = template_folder(ctx)
    written = {
        step: str(write_template(folder / f"adopt-{step}.json", template)) for step, template in plan.templates.items()
    }
    document = {
        "phase": str(plan.phase),
        "steps": [{**step, "template": written.get(step["step"])} for step in steps_of(plan)],
        "refused": to_plain(plan.refused),
        "notes": list(plan.notes),
    }
    ctx.show(document, lambda: _adoption_in_words(document))
    if plan.refused:
        raise UnsuccessfulResult(1, f"the stack cannot be adopted: {plan.refused[0].what}", plan.refused[0].way)


def _adoption_in_words(document: dict[str, Any]) -> str:
    if document["phase"] == AdoptionPhase.ADOPTED:
        return "the stack is adopted already"
    rows = [f"cannot be adopted: {one['what']}\n  instead: {one['way']}" for one in document["refused"]]
    rows += [f"{one['step']:<8} {one['does']}  {one['template'] or ''}".rstrip() for one in document["steps"]]
    return "\n".join(rows)


def _repaired_in_words(done: Repaired) -> str:
    if not done.fixed and not done.left:
        return f"{done.stage}: no problem was found"
    if done.dry_run:
        found = [f"problem: {describe(one.to_json())}" for one in done.left]
        return "\n".join([*found, *(f"would {step}" for step in done.steps)])
    lines = [f"fixed: {one.where}: {one.what}" for one in done.fixed]
    return "\n".join([*lines, *(f"left: {describe(one.to_json())}" for one in done.left)])
