"""An earlier release again: its versions stand in Lambda still, so traffic goes there at once; then the stack follows.

Nothing is built and nothing is published: bytes that a function's newest version does not have would become a new
version, so the stack takes the earlier release's template without the versions that it no longer holds.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hitless.clock import timestamp
from hitless.cloud.records.records import Record
from hitless.cloud.records.result import Steps
from hitless.cloud.release.provisioning import bound, provision, withdraw
from hitless.cloud.release.telling import Told, tell
from hitless.cloud.stage.service_stack import Observed
from hitless.cloud.stage.settling import Cloud, live_number, settle, url_of
from hitless.cloud.transform.desired import functions_of, version_ids
from hitless.cloud.transform.model import (
    PREVIOUS_OUTPUT,
    RELEASE_OUTPUT,
    LiveState,
    Template,
    of_type,
    references,
    rewritten,
)
from hitless.cloud.transform.orders import check_transition, notes
from hitless.cloud.transform.provisioned import kept_ready
from hitless.cloud.transform.steps import clear, contract, expand
from hitless.errors import ConflictError
from hitless.release.result import Outcome, Result

STRATEGY = "AllAtOnce"


def rollback(cloud: Cloud, number: int | None, *, why: str | None = None) -> Result:
    """Make release `number` live again; without a number, the one that was live before this one. The receipt says why.

    ConflictError where there is none, or its versions are gone; ServiceFileError where no order of updates leads there
    without a failed request. CloudError where the stack did not follow: traffic is where it was asked to be then, and
    the next rollback, `repair` or deploy brings the stack along.
    """
    steps, began = Steps(cloud.clock, cloud.say), cloud.clock.now()
    before = settle(cloud, holder=secrets.token_hex(8))
    live = live_number(before)
    target = _target(cloud, before, number)
    template = cloud.records.template(target.release)
    if target.release == live and _stands(before, target):
        if template is not None:  # it may have been cut off behind its last update
            came_from = before.live.output(PREVIOUS_OUTPUT)
            _keep_ready(cloud, template, target, before, int(came_from) if came_from is not None else None)
        return Result(target.stage, target.release, Outcome.UNCHANGED, STRATEGY, url=None)
    if template is None:
        raise ConflictError(f"release {target.release} has no template in the bucket", hint="deploy its commit anew")
    _check_roles(before.live, template, target.release)
    check_transition(before.live, template)
    for note in notes(before.live, template):
        cloud.say(f"note: {note}")
    versions = {target.functions[name]: version for name, version in target.versions.items()}
    if (cut_off := cloud.records.unfinished()) is not None:
        reason = f"a rollback to release {target.release} was begun before it ended"
        cloud.records.save(replace(cut_off, outcome=str(Outcome.SUPERSEDED), reason=reason))
    steps.add("preparing", 0, f"release {target.release}")
    _leave(cloud, live, target)
    for function, version in versions.items():
        cloud.lambdas.wake(function, version)
    targets = {ids: versions[name] for ids, name in functions_of(template).items() if name in versions}
    home = {before.functions[ids]: state.version for ids, state in before.aliases.items()}
    provision(cloud, template, targets, home, awaited=False)
    steps.add("shifting", 0)
    cloud.shift.point(versions)
    steps.add("draining", 100)
    _sync(cloud, numbered(template, target.release, live), versions)
    _keep_ready(cloud, template, target, before, live)
    steps.add("ended", 100)
    now = timestamp(cloud.clock.now())
    cloud.records.save(replace(target, outcome=str(Outcome.LIVE), reason=None, ended_at=now, left_for=None))
    previous = live if live != target.release else None
    told = Told("rollback", Outcome.LIVE, None, STRATEGY, previous, began, steps, home, why=why)
    candidate, counted = tell(cloud, target, template, told)
    return Result(
        stage=target.stage, release=target.release, outcome=Outcome.LIVE, strategy=STRATEGY,
        duration_s=steps.duration_s, steps=tuple(steps.steps),
        candidate=candidate, live=counted, url=url_of(cloud),
    )  # fmt: skip


def _leave(cloud: Cloud, live: int | None, target: Record) -> None:
    """Write into the live release's record where traffic goes, before it goes there: until the stack has followed,
    nothing else tells this rollback from an alias that somebody moved by hand.
    """
    if target.release != live and target.left_for is not None:  # of an earlier rollback, the other way
        cloud.records.save(replace(target, left_for=None))
    record = cloud.records.get(live) if live is not None else None
    if record is not None:
        cloud.records.save(replace(record, left_for=target.release if target.release != live else None))


def _keep_ready(cloud: Cloud, template: Template, target: Record, before: Observed, previous: int | None) -> None:
    """What is kept ready belongs to the target's versions, with its bounds, and to no others."""
    versions = {target.functions[name]: version for name, version in target.versions.items()}
    names, wanting = functions_of(template), kept_ready(template)
    kept = {ids: versions[name] for ids, name in names.items() if name in versions and ids in wanting}
    bound(cloud, template, kept, before.live.template)
    withdraw(cloud, template, previous, keep=kept)


def _target(cloud: Cloud, before: Observed, number: int | None) -> Record:
    if number is None:
        previous = before.live.output(PREVIOUS_OUTPUT)
        if previous is None:
            raise ConflictError("no release was live before this one", hint="`hitless aws releases` lists them")
        number = int(previous)
    target = cloud.records.require(number)
    if target.outcome != Outcome.LIVE or not target.versions:
        raise ConflictError(
            f"release {number} was never live ({target.outcome or 'its deploy did not end'})",
            hint="roll back to one that was: `hitless aws releases`",
        )
    return target


def _check_roles(live: LiveState, template: Template, number: int) -> None:
    """ConflictError where a version would run under a role that has gone: it keeps the one that it was published with,
    and no role of the same name is that one again.
    """
    there = of_type(live.resources, "AWS::IAM::Role")
    theirs = of_type(template["Resources"], "AWS::IAM::Role")
    for ids, name in functions_of(template).items():
        for role in references(template["Resources"][ids.function]["Properties"].get("Role")):
            if role in theirs and role not in there:
                raise ConflictError(
                    f"{name}'s version of release {number} ran under a role that is gone ({role})",
                    hint="deploy its commit anew: releases under one role each go back as far as they are kept",
                )


def _stands(before: Observed, target: Record) -> bool:
    at = {before.functions[ids]: state for ids, state in before.aliases.items()}
    wanted = {target.functions[name]: version for name, version in target.versions.items()}
    return all(name in at and at[name].version == version for name, version in wanted.items())


def _sync(cloud: Cloud, template: Template, versions: Mapping[str, str]) -> None:
    """Bring the stack to the release: in one update, or two where the API's draft has to change first."""
    observed = cloud.stack.observe()
    by_alias = {ids.alias: versions[name] for ids, name in functions_of(template).items()}
    wanted = without_publishing(template, observed.live, by_alias)
    before = observed.live.template
    if _api(wanted) != _api(before):
        expanded = expand(wanted, observed.live)
        for update in (clear(expanded, observed.live), expanded):
            if update is not None:
                cloud.stack.update(update, before=before)
                before = update
    cloud.stack.update(contract(wanted, observed.live, by_alias), before=before)


def _api(template: Template) -> dict[str, Any]:
    return {name: one for name, one in template["Resources"].items() if one["Type"].startswith("AWS::ApiGateway::")}


def numbered(template: Template, number: int, previous: int | None) -> Template:
    """The release's template as it is recorded now: its own number, and the release that it follows."""
    made = copy.deepcopy(template)
    made["Outputs"][RELEASE_OUTPUT]["Value"] = str(number)
    made["Outputs"].pop(PREVIOUS_OUTPUT, None)
    if previous is not None and previous != number:
        made["Outputs"][PREVIOUS_OUTPUT] = {"Value": str(previous)}
    return made


def without_publishing(template: Template, live: LiveState, versions: Mapping[str, str]) -> Template:
    """The template where each Version that the stack does not hold is replaced by its literal number."""
    made = copy.deepcopy(template)
    numbers = {
        version: versions[ids.alias] for ids, version in version_ids(template).items() if version not in live.versions
    }

    def literal(node: Any) -> Any:
        match node:
            case {"Fn::GetAtt": [str(name), "Version"]} if name in numbers:
                return numbers[name]
            case _:
                return node

    for version in numbers:
        del made["Resources"][version]
    for resource in of_type(made["Resources"], "AWS::CloudWatch::Alarm").values():
        resource["Properties"] = rewritten(resource["Properties"], literal)
    return made
