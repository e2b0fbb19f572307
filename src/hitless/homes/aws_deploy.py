"""A deploy on AWS: build, package and ship; a dry run writes the templates of the first and the last update."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hitless.artifact.model import Artifact
from hitless.aws.osls import find_osls
from hitless.cloud.release.deploy import Deploy
from hitless.cloud.release.packaging import ServicePackage, package
from hitless.cloud.stage.core_outputs import CoreOutputs, read_core_outputs
from hitless.cloud.stage.permissions import granted_by_core, missing, policy_for
from hitless.cloud.stage.stage import live_template
from hitless.cloud.transform.guard import whole_minutes
from hitless.cloud.transform.model import LiveState, Template, changes
from hitless.cloud.transition import plan
from hitless.documents import to_plain
from hitless.errors import UsageError
from hitless.homes.aws_stage import connected_stage, template_folder, write_template
from hitless.homes.folder import build_portable, commit_of, store_of
from hitless.homes.home import DeployOrder, Workplace
from hitless.service.model import Nat, Service
from hitless.service.strategy import AllAtOnce, Strategy, parse_option


def deploy_on_aws(place: Workplace, service: Service, order: DeployOrder) -> dict[str, Any]:
    """Build the folder and ship it. Returns the result's document."""
    if order.no_wait:
        raise UsageError(
            "--no-wait: only this command brings a release on AWS to its end",
            hint="leave it out; if the command is cut off, repeat it: it continues the release",
        )
    strategy = strategy_of(service, order.strategy)
    _say_notes(place, service)
    with connected_stage(place, service) as stage:
        stage.cloud.stack.refuse_plain()
        made = packaged(place, service, stage.core, stage.aws.subprocess_environ())
        result = Deploy(stage.cloud, store_of(place).zip_path).run(
            made, strategy=strategy, commit=commit_of(service.folder), message=order.message, force=order.force
        )
    return dict(to_plain(result))


def dry_run_on_aws(place: Workplace, service: Service, order: DeployOrder) -> dict[str, Any]:
    """Build the folder and write the templates. No call to AWS unless `compare` is set, for the live stack."""
    strategy = strategy_of(service, order.strategy)
    _say_notes(place, service)
    if not order.compare:
        made = packaged(place, service, read_core_outputs(service.folder, order.core_outputs), os.environ)
        return _preview(place, made, LiveState(), None, strategy)
    with connected_stage(place, service) as stage:
        stage.cloud.stack.refuse_plain()
        made = packaged(place, service, stage.core, stage.aws.subprocess_environ())
        seen = stage.cloud.stack.observe()
        return _preview(place, made, seen.live, live_template(stage.cloud, seen), strategy)


def strategy_of(service: Service, named: str | None) -> Strategy:
    """The strategy that `--strategy` names, else the stage's own. UsageError."""
    return service.settings.strategy if named is None else parse_option(named)


def packaged(
    place: Workplace,
    service: Service,
    core: CoreOutputs,
    environ: Mapping[str, str],
    artifacts: Mapping[str, Artifact] | None = None,
) -> ServicePackage:
    """The service packaged by osls, which resolves variables with the credentials of `environ`. Artifacts that are not
    given are built from the service's folder.
    """
    osls = replace(find_osls(service.folder, environ), params=place.params)
    return package(service, build_portable(place, service) if artifacts is None else artifacts, core, osls)


def _say_notes(place: Workplace, service: Service) -> None:
    """Name the settings of the stage that have no effect on AWS."""
    settings = service.settings
    cut_off = settings.network.own and settings.nat is Nat.NONE
    if cut_off and settings.shield and not isinstance(settings.strategy, AllAtOnce):
        place.say(
            f"note: custom.hitless.stages.{service.stage}.nat is none: "
            "the shield needs an interface endpoint for Lambda in the private subnets"
        )


def _preview(
    place: Workplace, made: ServicePackage, live: LiveState, recorded: Template | None, strategy: Strategy
) -> dict[str, Any]:
    shipped = whole_minutes(strategy)
    if shipped != strategy:
        place.say(f"{strategy} would be shipped as {shipped}: CodeDeploy knows whole minutes")
    number = int(live.output("HitlessRelease") or 0)
    commit = commit_of(made.service.folder)
    wanted = made.wanted(number=number + 1, previous=number or None, commit=commit, strategy=shipped)
    transition = plan(live, wanted, recorded=recorded)
    transition.check()
    final = transition.contract({})
    folder = template_folder(place)
    needed = missing(wanted, {}, granted_by_core(), f"{made.service.name}-{made.service.stage}-")
    return {
        "stage": made.service.stage,
        "dry_run": True,
        "template": str(write_template(folder / "template.json", final)),
        "hold_template": str(write_template(folder / "hold.json", transition.hold)) if transition.hold else None,
        "expand_template": str(write_template(folder / "expand.json", transition.expand or {})),
        "policy": str(write_template(folder / "policy.json", policy_for(needed))) if needed else None,
        "artifacts": {name: artifact.digest for name, artifact in made.artifacts.items()},
        "changes": to_plain(changes(live.template, final)),
        "notes": list(transition.notes),
    }
