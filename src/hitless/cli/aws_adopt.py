"""`hitless aws adopt`: take over a stack that Serverless Framework has deployed without hitless."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from hitless.aws.imports import Imports
from hitless.aws.osls import find_osls
from hitless.aws.running import RunningCode, ServedApi
from hitless.aws.stacks import Stacks
from hitless.cli.aws_common import load_for_aws, poll_seconds, template_folder, write_template
from hitless.cli.aws_wire import Stage, conclude, connected_stage
from hitless.cli.common import Context, Ended, command
from hitless.cloud.adoption.adoption import Adoption, Plan, steps_of
from hitless.cloud.adoption.templates import Phase
from hitless.cloud.release.packaging import package
from hitless.errors import MachineError


def register(app: typer.Typer) -> None:
    @command(app, "adopt", example="hitless aws adopt --stage prod --dry-run")
    def adopt(
        ctx: Context,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Look at the stack, write the templates and steps; change nothing.")
        ] = False,
    ) -> None:
        """Take over what Serverless Framework deployed. The stack as it runs, without a failed request.

        What runs becomes a release, which the next `hitless aws deploy` goes back to if an alarm rings. Needs the
        stage's core stack.
        """
        service = load_for_aws(ctx)
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
                ctx.say(f"cannot be taken over: {one.what}; {one.way}")
            if not plan.refused and plan.phase is not Phase.ADOPTED:
                _ask(ctx, plan, stage.cloud.stack.name)
            result = adoption.run(seen, plan)
        conclude(ctx, result)


def _adoption(ctx: Context, stage: Stage) -> Adoption:
    cloudformation, osls = stage.aws.client("cloudformation"), find_osls(stage.service.folder, os.environ)
    stacks = Stacks(cloudformation, say=ctx.say, poll_s=poll_seconds(os.environ))
    return Adoption(
        stage.cloud,
        stage.service,
        code=RunningCode(stage.aws.client("lambda")),
        served=ServedApi(stage.aws.client("apigateway")),
        imports=Imports(cloudformation, stacks),
        package=lambda artifacts: package(stage.service, artifacts, stage.core, osls),
    )


def _ask(ctx: Context, plan: Plan, name: str) -> None:
    """Say what will be done, and wait for a yes where somebody can give one."""
    ctx.say(f"{name} is taken over ({plan.phase} now):")
    for step in steps_of(plan):
        ctx.say(f"  {step['step']}: {step['does']}")
    if ctx.yes:
        return
    if not sys.stdin.isatty():
        raise MachineError("this must be confirmed, and there is no terminal to ask at", hint="give --yes")
    ctx.say("go on? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise typer.Exit(0)


def _show(ctx: Context, plan: Plan) -> None:
    document = _document(ctx, plan)
    ctx.show(document, lambda: _in_words(document))
    if plan.refused:
        raise Ended(1, f"it cannot be taken over as it is ({len(plan.refused)} reasons)", plan.refused[0].way)


def _document(ctx: Context, plan: Plan) -> dict[str, Any]:
    folder = template_folder(ctx)
    written = {
        step: str(write_template(folder / f"adopt-{step}.json", template)) for step, template in plan.templates.items()
    }
    return {
        "phase": str(plan.phase),
        "steps": [{**step, "template": written.get(step["step"])} for step in steps_of(plan)],
        "refused": [{"what": one.what, "way": one.way} for one in plan.refused],
        "notes": list(plan.notes),
    }


def _in_words(document: dict[str, Any]) -> str:
    if document["phase"] == Phase.ADOPTED:
        return "the stack is hitless's already"
    rows = [f"cannot be taken over: {one['what']}\n  way: {one['way']}" for one in document["refused"]]
    rows += [f"{one['step']:<8} {one['does']}  {one['template'] or ''}".rstrip() for one in document["steps"]]
    return "\n".join(rows)
