"""`hitless promote FROM TO`: what is live in one stage ships to the next, the same bytes, as a run of the pipeline."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import typer

from hitless.cli.common import Context, command, read_service
from hitless.cli.homes import try_load
from hitless.cli.running import follow_run, in_a_line, raise_unless_well, who
from hitless.cli.shipping import client_of, conclude, folders_of
from hitless.errors import HitlessError, UsageError
from hitless.pipeline.package import candidate, configuration
from hitless.release.document import ArtifactRef
from hitless.release.result import Outcome
from hitless.service.closed import check_served
from hitless.service.model import Home


def register(app: typer.Typer) -> None:
    @command(app, "promote", example="hitless promote dev staging")
    def promote(
        ctx: Context,
        source: Annotated[str, typer.Argument(metavar="FROM", help="The stage whose live release ships.")],
        target: Annotated[str, typer.Argument(metavar="TO", help="The stage that it ships to.")],
        skip_rehearsal: Annotated[
            bool, typer.Option("--skip-rehearsal", help="Without the stage's rehearsal; the run records it.")
        ] = False,
    ) -> None:
        """Ship FROM's live artifacts, the same bytes, to TO. By TO's strategy, rehearsal and approval.

        Follows the run to its end, or until it waits for approval. Either stage may be on AWS.
        """
        service = try_load(ctx, target)
        homes = {stage.name: stage.home for stage in service.stages} if service else {}
        if _is_between_stages_on_aws_alone(ctx, homes, source, target):
            importlib.import_module("hitless.cli.aws_promote").promote_on_aws(ctx, source, target)
            return
        check_served(service)
        client = client_of(ctx)
        body = {
            "from": source,
            "from_home": homes.get(source, Home.ENGINE),
            "actor": who(),
            "skip_rehearsal": skip_rehearsal,
            "document": _configuration(ctx, client.call("GET", "/status"), source, target),
            "folder": str(ctx.service_dir) if Home.AWS in (homes.get(source), homes.get(target)) else None,
        }
        run = follow_run(ctx, client.stream("POST", f"/stages/{target}/promote", body))
        document = _document(client.call("GET", f"/pipeline/runs/{run['run']}"))
        if document["outcome"] in set(Outcome):
            conclude(ctx, document)
            return
        ctx.show(document, lambda: in_a_line(run))
        raise_unless_well(run)


def _is_between_stages_on_aws_alone(ctx: Context, homes: Mapping[str, Home], source: str, target: str) -> bool:
    """Whether no engine is needed for it, and none runs whose pipeline would have it as a run."""
    if homes.get(source) is not Home.AWS or homes.get(target) is not Home.AWS:
        return False
    return not folders_of(ctx).engine_is_alive()


def _configuration(ctx: Context, status: dict[str, Any], source: str, target: str) -> dict[str, Any] | None:
    """The target's configuration as the service's folder has it, for a commit that the repository does not hold.

    Its artifacts are those of the live release, where the engine serves it; AWS is asked by the run itself.
    """
    found = next((stage for stage in status["stages"] if stage["stage"] == source), None)
    try:
        service = read_service(replace(ctx, stage=target, options={"stage": target}))
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
    """As `deploy` gives it, with the run's number; `outcome` is the run's state where no rollout came of it."""
    step = next((step for step in run["steps"] if step["name"] == "deploy"), None)
    detail = (step or {}).get("detail") or {}
    if "outcome" in detail:
        kept = {key: value for key, value in detail.items() if key not in ("exit_code", "verify")}
        return {**kept, "run": run["run"]}
    nothing: dict[str, Any] = {"strategy": None, "duration_s": 0.0, "steps": [], "candidate": None, "live": None}
    return {
        "stage": run["stage"],
        "release": None,
        "outcome": run["state"],
        "reason": run["reason"],
        **nothing,
        "run": run["run"],
    }
