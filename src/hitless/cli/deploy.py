"""`hitless deploy`, `rollback` and `abort`: rollouts at the stage's home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hitless.cli.common import Context, HomeOption, command
from hitless.cli.following import conclude, follow
from hitless.errors import UsageError
from hitless.homes.home import DeployOrder, home_of, read_for
from hitless.release.result import Outcome
from hitless.service.model import Home
from hitless.service.strategy import EXAMPLES, parse

StrategyOption = Annotated[str | None, typer.Option("--strategy", help=f"For this rollout: {EXAMPLES}.")]
MessageOption = Annotated[str | None, typer.Option("--message", "-m", help="What the release is about.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Ship even if nothing has changed.")]
CompareOption = Annotated[bool, typer.Option("--compare", help="With --dry-run on AWS: compare with the live stack.")]
CoreOutputsOption = Annotated[
    Path | None, typer.Option("--core-outputs", help="With --dry-run on AWS: core's outputs, a JSON object.")
]
ReleaseArgument = Annotated[int | None, typer.Argument(help="The release; default: the one live before this one.")]
WhyOption = Annotated[str | None, typer.Option("--message", "-m", help="Why; kept in the receipt.")]


def register(app: typer.Typer) -> None:
    @command(app, "deploy", example="hitless deploy --strategy Canary10Percent30Seconds --message 'new search'")
    def deploy(
        ctx: Context,
        strategy: StrategyOption = None,
        no_wait: Annotated[bool, typer.Option("--no-wait", help="Return when the rollout has begun.")] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Build and compare, on AWS write the templates; ship nothing.")
        ] = False,
        compare: CompareOption = False,
        core_outputs: CoreOutputsOption = None,
        force: ForceOption = False,
        message: MessageOption = None,
        home: HomeOption = None,
    ) -> None:
        """Build the service and ship it. By the stage's strategy; waits for the end of the rollout."""
        order = DeployOrder(
            strategy=strategy,
            no_wait=no_wait,
            dry_run=dry_run,
            force=force,
            message=message,
            compare=compare,
            core_outputs=core_outputs,
        )
        run_deploy(ctx, order, home)

    @command(app, "rollback", example="hitless rollback 3")
    def rollback(
        ctx: Context, release: ReleaseArgument = None, message: WhyOption = None, home: HomeOption = None
    ) -> None:
        """Ship an earlier release again, all at once."""
        run_rollback(ctx, release, message, home)

    @command(app, "abort", example="hitless abort --stage prod")
    def abort(ctx: Context, home: HomeOption = None) -> None:
        """Stop the rollout under way. The live release keeps all the traffic."""
        result = follow(ctx, home_of(ctx, home).abort())
        if result is not None:
            ctx.show(result, lambda: _aborted(result))


def run_deploy(ctx: Context, order: DeployOrder, named: Home | None) -> None:
    """Ship the folder, or show what a dry run would ship."""
    if order.strategy is not None:
        try:
            parse(order.strategy)
        except ValueError as error:
            raise UsageError(f"--strategy: {error}", hint=f"for example {EXAMPLES}") from error
    service, home = read_for(ctx, named)
    if order.dry_run:
        document = home.dry_run(service, order)
        ctx.show(document, lambda: _would_ship(document))
        return
    conclude(ctx, follow(ctx, home.deploy(service, order)))


def run_rollback(ctx: Context, release: int | None, message: str | None, named: Home | None) -> None:
    """Ship an earlier release again."""
    conclude(ctx, follow(ctx, home_of(ctx, named).rollback(release, message)))


def _would_ship(document: dict[str, Any]) -> str:
    """A dry run for a person: functions on the engine, resources and templates on AWS."""
    if "functions" in document:
        return "\n".join(f"{one['action']:<7} {one['name']}" for one in document["functions"])
    rows = [
        f"{'REPLACE' if change['replaces'] else change['action']:<8} {change['resource']}"
        for change in document["changes"]
    ]
    rows += [f"note: {note}" for note in document["notes"]]
    return "\n".join([*rows, f"expand:   {document['expand_template']}", f"contract: {document['template']}"])


def _aborted(result: dict[str, Any]) -> str:
    if "live_release" in result:
        live = result["live_release"]
        serves = f"release {live} serves" if live else "no release serves yet"
        return f"release {result['release'] or '-'} was aborted; {serves}"
    if result["outcome"] == Outcome.LIVE:
        return f"release {result['release']} is live and no longer guarded"
    return f"release {result['release']} was {result['outcome']}: {result['reason']}"
