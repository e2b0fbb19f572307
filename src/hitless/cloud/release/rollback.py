"""Makes an earlier release on AWS live again, and aborts a release that is under way.

Lambda still has the earlier release's versions, so traffic moves to them at once, and the stack is updated afterwards.
Nothing is built or published, because Lambda would publish the earlier code as yet another version. So the stack gets
the earlier release's template, but without the Version resources that the stack no longer has.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from hitless.aws.follow import resting
from hitless.clock import timestamp
from hitless.cloud.records.records import Record, ReleaseSteps
from hitless.cloud.release.executor import TransitionExecutor, conclude, return_home
from hitless.cloud.stage.stage import Cloud, Observed, live_number, live_template, lower_shield, settle
from hitless.cloud.transform.desired import functions_of
from hitless.cloud.transform.model import PREVIOUS_OUTPUT, FunctionIds, LiveState, Template, of_type, references
from hitless.cloud.transform.updates import numbered
from hitless.cloud.transition import Transition, plan
from hitless.errors import ConflictError
from hitless.release.result import Outcome, Result

STRATEGY = "AllAtOnce"


def rollback(
    cloud: Cloud, number: int | None, *, why: str | None = None, holder: str = "", served: str | None = None
) -> Result:
    """Make release `number` live again, or without a number the release that was live before this one.

    `why` goes into the receipt, `holder` is the caller's mark. `served`: the target's Deployment (id), which clients
    get back before anything else, because the live release fails them. Raises ConflictError if there is no such release
    or its versions are gone, and ServiceFileError if no order of updates avoids failed requests. Raises CloudError if
    the stack's update failed after traffic had moved; the next rollback, `repair` or deploy then updates the stack.
    """
    steps = ReleaseSteps(cloud.clock, cloud.say)
    before = settle(cloud, holder=holder or secrets.token_hex(8))
    live = live_number(before)
    before = return_home(cloud, before, live)
    target = _target(cloud, before, number)
    if served is not None and before.stage is not None:
        _record_leaving(cloud, live, target)
        cloud.api.serve(before.stage, served)
        cloud.shift.point(target.at)
        before = cloud.stack.observe()
    template = cloud.records.template(target.release)
    if target.release == live and _serves(before, target):
        if template is not None:  # an earlier rollback to it may have been cut off after the last update
            came_from = before.live.output(PREVIOUS_OUTPUT)
            _, executor, targets = _planned(cloud, before, target, template, live)
            executor.keep_ready(targets, int(came_from) if came_from is not None else None)
        return Result(target.stage, target.release, Outcome.UNCHANGED, STRATEGY, url=None)
    if template is None:
        raise ConflictError(f"release {target.release} has no template in the bucket", hint="deploy its commit again")
    _check_roles(before.live, template, target.release)
    transition, executor, targets = _planned(cloud, before, target, template, live)
    transition.check()
    for note in transition.notes:
        cloud.say(f"note: {note}")
    if (cut_off := cloud.records.unfinished()) is not None:
        reason = f"a rollback to release {target.release} started before it ended"
        cloud.records.save(replace(cut_off, outcome=Outcome.SUPERSEDED, reason=reason))
    steps.add("preparing", 0, f"release {target.release}")
    _record_leaving(cloud, live, target)
    for function, version in target.at.items():
        cloud.lambdas.wake(function, version)
    executor.provision(targets, before.at, awaited=False)
    executor.check_unchanged()
    executor.update(transition.before_traffic)
    steps.add("shifting", 0)
    cloud.shift.point(target.at)
    steps.add("draining", 100)
    executor.check_unchanged()
    executor.update(transition.updates[len(transition.before_traffic) :])
    executor.finish(targets)
    executor.keep_ready(targets, live)
    steps.add("ended", 100)
    now = cloud.clock.now()
    live_again = replace(target, outcome=Outcome.LIVE, reason=None, ended_at=timestamp(now), left_for=None)
    cloud.records.save(live_again)
    return conclude(
        cloud, replace(live_again, strategy=STRATEGY, steps=tuple(steps.steps)), template, steps, before.at, now=now,
        previous=live if live != target.release else None, verb="rollback", why=why,
    )  # fmt: skip


def _planned(
    cloud: Cloud, before: Observed, target: Record, template: Template, live: int | None
) -> tuple[Transition, TransitionExecutor, dict[FunctionIds, str]]:
    """The transition back to the target, its executor, and the version of each of its functions."""
    targets = {ids: target.at[name] for ids, name in functions_of(template).items() if name in target.at}
    by_alias = {ids.alias: version for ids, version in targets.items()}
    wanted, recorded = numbered(template, target.release, live), live_template(cloud, before)
    transition = plan(before.live, wanted, recorded=recorded, back_to=by_alias)
    return transition, TransitionExecutor(cloud, transition, before), targets


def _record_leaving(cloud: Cloud, live: int | None, target: Record) -> None:
    """Record in the live release that traffic is about to leave it for the target. Until the stack is updated, only
    this shows that a rollback moved the aliases, and not a user.
    """
    if target.release != live and target.left_for is not None:  # left by an earlier rollback in the opposite direction
        cloud.records.save(replace(target, left_for=None))
    record = cloud.records.get(live) if live is not None else None
    if record is not None:
        cloud.records.save(replace(record, left_for=target.release if target.release != live else None))


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
    """Raise ConflictError if a version would run under a deleted role. A version keeps the role that it was published
    with, and a new role with the same name does not replace it.
    """
    there = of_type(live.resources, "AWS::IAM::Role")
    theirs = of_type(template["Resources"], "AWS::IAM::Role")
    for ids, name in functions_of(template).items():
        for role in references(template["Resources"][ids.function]["Properties"].get("Role")):
            if role in theirs and role not in there:
                raise ConflictError(
                    f"{name}'s version of release {number} ran under a role that was deleted ({role})",
                    hint="deploy its commit again: a version keeps the role that it was published with",
                )


def _serves(before: Observed, target: Record) -> bool:
    """Whether every alias already points at the target's version."""
    return all(before.at.get(name) == version for name, version in target.at.items())


def abort(cloud: Cloud, *, stage: str) -> dict[str, Any]:
    """Stop the release that is under way. Raises ConflictError if there is none.

    A stack update is not interrupted: the deploy that started it notices the abort before its next step.
    """
    observed, record, stack = cloud.stack.observe(), cloud.records.unfinished(), cloud.stack.find()
    if record is not None:
        reason = "it was aborted by `hitless aws abort`"
        cloud.records.save(
            replace(record, outcome=Outcome.ABORTED, reason=reason, ended_at=timestamp(cloud.clock.now()))
        )
    stopped = cloud.shift.stop_groups(ids.base for ids in observed.functions)
    cloud.shift.settle(observed.functions.values())
    lower_shield(cloud, observed)
    if record is None and not stopped:
        raise ConflictError(f"no release is in progress in {stage}", hint="`hitless aws status` shows what runs")
    number = live_number(observed)
    live = cloud.records.get(number) if number is not None else None
    if live is not None and (stack is None or resting(stack.status)):  # otherwise the stack's update moves the aliases
        at = set(observed.functions.values())
        cloud.shift.point({name: version for name, version in live.at.items() if name in at})
    return {
        "stage": stage,
        "release": record.release if record else None,
        "outcome": str(Outcome.ABORTED),
        "live": number,
        "stopped": stopped,
    }
