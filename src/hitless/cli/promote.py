"""`hitless promote FROM TO`: ship the artifacts that are live in one stage to another, as a run of the pipeline.

Between two stages on AWS no engine is needed: then the command itself ships them.
"""

from __future__ import annotations

import pkgutil
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from hitless.cli.common import Context, HomeOption, command
from hitless.cli.following import conclude
from hitless.cli.following_runs import follow_run, in_a_line, raise_unless_well
from hitless.documents import to_plain
from hitless.errors import HitlessError, UsageError
from hitless.homes.engine import client_of
from hitless.homes.folder import candidate, configuration, folders_of
from hitless.homes.home import CLASSES
from hitless.pipeline.orders import Promotion
from hitless.release.document import ArtifactRef
from hitless.release.result import Outcome
from hitless.release.who import who
from hitless.service.closed import check_served
from hitless.service.model import Home
from hitless.service.strategy import EXAMPLES


@command("promote", example="hitless promote dev staging")
def promote(
    ctx: Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="The stage whose live release ships.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The stage that it ships to.")],
    skip_rehearsal: Annotated[
        bool, typer.Option("--skip-rehearsal", help="Skip the stage's rehearsal; the run records it.")
    ] = False,
    strategy: Annotated[
        str | None, typer.Option("--strategy", help=f"From AWS to AWS: for this release, {EXAMPLES}.")
    ] = None,
    from_profile: Annotated[
        str | None,
        typer.Option("--from-profile", help="From AWS to AWS: the profile of FROM's account, if it differs."),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Ship FROM's live artifacts, the same bytes, to TO. Uses TO's strategy, rehearsal and approval.

    Follows the run to its end, or until it waits for approval. Either stage may be on AWS. With --home aws both
    are, and the command itself ships, without the engine's pipeline.
    """
    service = replace(ctx, stage=target).try_load()
    homes = {stage.name: stage.home for stage in service.stages} if service else {}
    ends = [homes.get(stage, Home.ENGINE) for stage in (source, target)]
    alone = ends == [Home.AWS, Home.AWS] and not folders_of(ctx).engine_is_alive()
    if home is Home.AWS or (home is None and alone):
        there = replace(ctx, stage=target)
        aws = pkgutil.resolve_name(CLASSES[Home.AWS])(there)
        conclude(there, to_plain(aws.promote(source, strategy=strategy, from_profile=from_profile)))
        return
    for given, option in ((strategy, "--strategy"), (from_profile, "--from-profile")):
        if given is not None:
            raise UsageError(f"{option} is for a promotion from AWS to AWS", hint="pass --home aws, or leave it out")
    if home is Home.ENGINE and ends[1] is Home.AWS:
        raise UsageError(
            f"the home of stage {target} is AWS: a run of the pipeline ships to it there",
            hint="leave --home out; or set `home: engine` for the stage",
        )
    check_served(service)
    _by_a_run(ctx, source, target, ends if home is None else [home, home], skip_rehearsal)


def _by_a_run(ctx: Context, source: str, target: str, homes: list[Home], skip_rehearsal: bool) -> None:
    """Promote by a run of the engine's pipeline, and follow it."""
    client = client_of(ctx)
    there = replace(ctx, stage=target).engine_stage
    body = Promotion(
        source=source,
        source_home=homes[0],
        actor=who(),
        skip_rehearsal=skip_rehearsal,
        document=_configuration(ctx, client.call("GET", "/status"), source, target),
        folder=str(ctx.service_dir) if Home.AWS in homes else None,
    )
    run = follow_run(ctx, client.stream("POST", f"/stages/{there}/promote", body))
    document = _document(client.call("GET", f"/pipeline/runs/{run['run']}"))
    if document["outcome"] in set(Outcome):
        conclude(ctx, document)
        return
    ctx.show(document, lambda: in_a_line(run))
    raise_unless_well(run)


def _configuration(ctx: Context, status: dict[str, Any], source: str, target: str) -> dict[str, Any] | None:
    """The target's configuration in the service's folder, for a commit that the repository does not hold.

    Its artifacts are those of the live release if the engine serves it; for AWS the run itself asks.
    """
    here = replace(ctx, stage=source).engine_stage
    found = next((stage for stage in status["stages"] if stage["stage"] == here), None)
    try:
        service = replace(ctx, stage=target).load(stage=target)
        live = found["live"] if found else None
        if live is None:
            return configuration(service).to_json()
        artifacts = {name: ArtifactRef(digest, False) for name, digest in live["artifacts"].items()}
        return candidate(service, artifacts, commit=None, message=None).to_json()
    except UsageError:
        raise
    except HitlessError as error:
        ctx.say(f"note: {error.message}")
        return None


def _document(run: dict[str, Any]) -> dict[str, Any]:
    """The document of a deploy with the run's number; `outcome` is the run's state if no rollout came of it."""
    step = next((step for step in run["steps"] if step["name"] == "deploy"), None)
    detail = (step or {}).get("detail") or {}
    if "outcome" in detail:
        kept = {key: value for key, value in detail.items() if key not in ("exit_code", "verify")}
        return {**kept, "run": run["run"]}
    ended = {"stage": run["stage"], "release": None, "outcome": run["state"], "reason": run["reason"], "strategy": None}
    return {**ended, "duration_s": 0.0, "steps": [], "candidate": None, "live": None, "run": run["run"]}
