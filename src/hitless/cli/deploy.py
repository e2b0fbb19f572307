"""`hitless deploy`, `rollback` and `abort`: rollouts at the stage's home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hitless.cli.common import Context, HomeOption, command
from hitless.cli.following import conclude, follow
from hitless.homes.home import DeployOrder, home_of, read_for
from hitless.release.result import Outcome
from hitless.service.strategy import EXAMPLES, parse_option


@command("deploy", example="hitless deploy --strategy Canary10Percent30Seconds --message 'new search'")
def deploy(
    ctx: Context,
    strategy: Annotated[str | None, typer.Option("--strategy", help=f"For this rollout: {EXAMPLES}.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return when the rollout has begun.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build and compare, ship nothing; on AWS also write the templates.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="With --dry-run on AWS: compare with the live stack.")
    ] = False,
    core_outputs: Annotated[
        Path | None, typer.Option("--core-outputs", help="With --dry-run on AWS: a JSON file of core's outputs.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Ship even if nothing has changed.")] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What the release is about.")] = None,
    home: HomeOption = None,
) -> None:
    """Build the service and ship it by the stage's strategy. Waits for the end of the rollout."""
    if strategy is not None:
        parse_option(strategy)
    order = DeployOrder(
        strategy=strategy,
        no_wait=no_wait,
        force=force,
        message=message,
        compare=compare,
        core_outputs=core_outputs,
    )
    service, chosen = read_for(ctx, home)
    if dry_run:
        document = chosen.dry_run(service, order)
        ctx.show(document, lambda: _would_ship(document))
        return
    conclude(ctx, follow(ctx, chosen.deploy(service, order)))


@command("rollback", example="hitless rollback 3")
def rollback(
    ctx: Context,
    release: Annotated[int | None, typer.Argument(help="The release; default: the one live before this one.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Why; kept in the receipt.")] = None,
    home: HomeOption = None,
) -> None:
    """Ship an earlier release, code and configuration, at once."""
    chosen = home_of(ctx, home)
    before = None if release else next((one["release"] for one in chosen.releases() if one["live"]), None)
    document = follow(ctx, chosen.rollback(release, message))
    conclude(ctx, document)
    if document is not None and document["outcome"] == Outcome.LIVE:
        ctx.say(f"its configuration is back: memory, environment and stage settings of release {document['release']}")
        if before is not None and document["release"] > before:
            ctx.say(f"this undid the rollback to release {before}; to go further back: hitless rollback NUMBER")


@command("abort", example="hitless abort --stage prod")
def abort(ctx: Context, home: HomeOption = None) -> None:
    """Stop the rollout under way. The live release keeps all the traffic."""
    if (result := follow(ctx, home_of(ctx, home).abort())) is not None:
        ctx.show(result, lambda: _aborted(result))


def _would_ship(document: dict[str, Any]) -> str:
    """A dry run for a person: functions on the engine, resources and templates on AWS."""
    if "functions" in document:
        rows = [f"{one['action']:<7} {one['name']}" for one in document["functions"]]
        return "\n".join([*rows, *(f"config  {line}" for line in document["configuration"])])
    rows = [
        f"{'REPLACE' if change['replaces'] else change['action']:<8} {change['resource']}"
        for change in document["changes"]
    ]
    rows += [f"note: {note}" for note in document["notes"]]
    rows += [f"expand:   {document['expand_template']}", f"contract: {document['template']}"]
    rows += [f"policy that `bootstrap --policies` must name: {document['policy']}"] if document["policy"] else []
    return "\n".join(rows)


def _aborted(result: dict[str, Any]) -> str:
    if "live_release" in result:
        live = result["live_release"]
        serves = f"release {live} serves" if live else "no release serves yet"
        return f"release {result['release'] or '-'} was aborted; {serves}"
    if result["outcome"] == Outcome.LIVE:
        return f"release {result['release']} is live and no longer guarded"
    return f"release {result['release']} was {result['outcome']}: {result['reason']}"
