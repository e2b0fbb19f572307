"""A release on AWS, from top to bottom: expand → prove → shift → contract.

Every step can be repeated: what is live is read from the stack, from Lambda and from the stage's bucket. The next
deploy finishes one that was cut off: it stops the shift, keeps what is done, and does the rest. One release at a time:
the newest wins, and the older deploy makes no more changes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hitless.clock import timestamp
from hitless.cloud.records.records import ReleaseSteps, unwrapped
from hitless.cloud.release.executor import (
    Superseded,
    Tenure,
    TransitionExecutor,
    check_headroom,
    check_time,
    conclude,
    prune,
    return_home,
    versions_to_return_to,
)
from hitless.cloud.release.front_door import FrontDoor
from hitless.cloud.release.packaging import ServicePackage, layer_code, write_layer
from hitless.cloud.release.proving import prove
from hitless.cloud.release.rollback import rollback
from hitless.cloud.release.shifting import ReleaseRun, Shifting
from hitless.cloud.stage.permissions import Granted, check, missing
from hitless.cloud.stage.stage import (
    Cloud,
    Observed,
    StillAtWorkError,
    is_live,
    live_number,
    live_template,
    settle,
    url_of,
)
from hitless.cloud.transform.desired import version_ids
from hitless.cloud.transform.guard import watched_s, whole_minutes
from hitless.cloud.transform.model import ALIAS, PREVIOUS_OUTPUT, Template
from hitless.cloud.transition import plan
from hitless.errors import CandidateFailedError, CloudError, ConflictError
from hitless.release.document import PromotedFrom
from hitless.release.result import Outcome, Result
from hitless.service.model import AlarmSettings, Service
from hitless.service.strategy import Strategy, weights


class Deploy:
    """Ships a package. `zip_of`: an artifact's digest → the path of its zip."""

    def __init__(self, cloud: Cloud, zip_of: Callable[[str], Path]) -> None:
        self._cloud, self._zip_of = cloud, zip_of
        self._steps = ReleaseSteps(cloud.clock, cloud.say)
        self._tenure = Tenure(cloud)
        self._shifting = Shifting(cloud, self._steps, self._tenure)

    def run(
        self, package: ServicePackage, *, strategy: Strategy, commit: str | None, message: str | None,
        force: bool = False, promoted_from: PromotedFrom | None = None,
    ) -> Result:  # fmt: skip
        """Ship the package and return the result. Raises HitlessError if the release could not begin."""
        shipped = self._whole_minutes(strategy)
        check_time(self._cloud, shipped, len(package.hooks))
        before = settle(self._cloud, holder=self._tenure.holder)
        live = live_number(before)
        wanted = package.wanted(number=0, previous=live, commit=commit, strategy=shipped)
        if not force and is_live(before, wanted):
            self._finish(before, wanted, live)
            return Result(package.service.stage, live or 0, Outcome.UNCHANGED, str(shipped), url=url_of(self._cloud))
        record, cut_off = self._tenure.next_record(package, wanted, commit, message, shipped)
        record = replace(record, promoted_from=promoted_from)
        if cut_off is not None and cut_off.release != record.release:
            before = return_home(self._cloud, before, live)
        previous = live if live != record.release else None
        wanted = package.wanted(number=record.release, previous=previous, commit=commit, strategy=shipped)
        transition = plan(before.live, wanted, recorded=live_template(self._cloud, before))
        transition.check()
        self._check_permissions(package.service, wanted, before)
        for note in transition.notes:
            self._cloud.say(f"note: {note}")
        if plain := unwrapped(wanted, record):
            why = "its runtime is not Python, or it has five layers"
            self._cloud.say(f"note: {', '.join(plain)}: no shield, and only Lambda's Errors count as failures: {why}")
        alarms = package.service.settings.alarms
        self._say_thin_traffic(before, alarms, shipped)
        self._cloud.traffic.alarms(alarms.also)  # reports a missing one now
        check_headroom(self._cloud, wanted, before)
        self._tenure.begin(record, wanted, cut_off)
        self._cloud.records.keep_document(record.release, package.document(commit=commit, message=message))
        self._steps.add("preparing", 0, f"release {record.release}")
        home = versions_to_return_to(self._cloud, before, live)
        run = ReleaseRun(record, transition, before, {}, home, package.hooks, previous, alarms)
        executor = TransitionExecutor(self._cloud, transition, before)
        door = FrontDoor(self._cloud, before, wanted, package.service)
        try:
            self._upload(package)
            run = self._expand(run, executor)
            self._steps.add("testing", 0)
            prove(self._cloud, package, run.wanted, run.record, run.targets)
            executor.provision(run.targets, run.home)
            self._shifting.run(run, shipped)
            self._steps.add("draining", 100)
            self._tenure.check(run.record, run.home)
            executor.finish(run.targets)
        except StillAtWorkError:
            raise  # the next deploy waits for it
        except Superseded as newer:
            if newer.last:
                self._withdraw(run, executor)
            return self._end(run, newer.outcome, newer.reason)
        except (CandidateFailedError, CloudError, ConflictError) as error:
            return self._go_back(run, executor, error)
        return self._follow(run, executor, door, shipped, live)

    def _follow(
        self, run: ReleaseRun, executor: TransitionExecutor, door: FrontDoor, shipped: Strategy, live: int | None
    ) -> Result:
        """Watch the API after it has moved. If it fails, go back; else clean up."""
        try:
            failure = self._shifting.watch_api(run, shipped, door)
        except Superseded as newer:
            return self._end(run, newer.outcome, newer.reason)
        if failure is not None:
            self._cloud.say(f"the API has moved, and goes back: {failure.reason}")
            rollback(self._cloud, run.previous, why=failure.reason, holder=self._tenure.holder, served=door.served)
            return self._end(run, Outcome.ROLLED_BACK, failure.reason)
        # it is live: the next deploy repeats any step that fails from here on; nothing is rolled back
        executor.keep_ready(run.targets, live)
        ended = self._end(run, Outcome.LIVE, None)
        prune(self._cloud, run.record.release)
        return ended

    def _check_permissions(self, service: Service, wanted: Template, before: Observed) -> None:
        """Raise ServiceFileError if CloudFormation's role may not create or change a resource of the release."""
        prefix, permissions = f"{service.name}-{service.stage}-", self._cloud.permissions
        live = before.live.resources
        if permissions is None or not missing(wanted, live, Granted(()), prefix):
            return
        granted = permissions.read()
        if granted is None:
            self._cloud.say("whether CloudFormation's role may make all of it is unknown: it may not be read")
        else:
            check(missing(wanted, live, granted, prefix), service.stage)

    def _say_thin_traffic(self, before: Observed, alarms: AlarmSettings, strategy: Strategy) -> None:
        """Name the functions whose candidates get too few requests for a verdict, at the last hour's traffic."""
        full_s = sum(weight * bake_s for weight, bake_s in weights(strategy)) / 100 or watched_s(alarms, strategy)
        live = sorted({before.functions[ids] for ids in before.aliases if ids in before.functions})
        if not live or not full_s:
            return
        seen = self._cloud.traffic.requests(live, ALIAS, until=self._cloud.clock.now())
        expected = {name: round(requests * full_s / 3600) for name, requests in seen.items()}
        thin = [f"{name} {number}" for name, number in expected.items() if number < alarms.minimum_requests]
        if thin:
            self._cloud.say(
                f"note: the alarms judge a candidate from {alarms.minimum_requests} requests on; at the last hour's "
                f"traffic {strategy} gives: {', '.join(thin)}. A longer bake gives more"
            )

    def _finish(self, before: Observed, wanted: Template, live: int | None) -> None:
        """If a deploy was cut off after its last update, finish it. `settle` has made this process its holder."""
        record = self._cloud.records.get(live) if live is not None else None
        if record is None or record.holder != self._tenure.holder:
            return
        executor = TransitionExecutor(self._cloud, plan(before.live, wanted, recorded=wanted), before)
        previous = before.live.output(PREVIOUS_OUTPUT)
        versions = {ids: state.version for ids, state in before.aliases.items()}
        executor.keep_ready(versions, int(previous) if previous is not None else None)

    def _go_back(
        self, run: ReleaseRun, executor: TransitionExecutor, error: CandidateFailedError | CloudError | ConflictError
    ) -> Result:
        """Move all traffic to the live release, unless another process has taken over."""
        try:
            self._tenure.check(run.record, run.home)
        except Superseded as newer:
            return self._end(run, newer.outcome, newer.reason)
        if isinstance(error, ConflictError):
            raise error
        self._cloud.shift.point(run.home)
        self._withdraw(run, executor)
        return self._end(run, Outcome.ROLLED_BACK, error.message)

    def _withdraw(self, run: ReleaseRun, executor: TransitionExecutor) -> None:
        """Remove the provisioned concurrency of a candidate that did not go live."""
        serve = {ids: run.home[name] for ids, name in run.before.functions.items() if name in run.home}
        executor.withdraw(run.previous, keep=serve)

    def _whole_minutes(self, strategy: Strategy) -> Strategy:
        shipped = whole_minutes(strategy)
        if shipped != strategy:
            self._cloud.say(f"{strategy} is shipped as {shipped}: CodeDeploy knows whole minutes")
        return shipped

    def _upload(self, package: ServicePackage) -> None:
        with tempfile.TemporaryDirectory(prefix="hitless-layer-") as place:
            write_layer(layer := Path(place) / "layer.zip")
            self._cloud.bucket.put_artifact(layer_code().sha256, layer)
        for digest in {artifact.digest for artifact in package.artifacts.values()}:
            self._cloud.bucket.put_artifact(digest.removeprefix("sha256:"), self._zip_of(digest))

    def _expand(self, run: ReleaseRun, executor: TransitionExecutor) -> ReleaseRun:
        """Make all updates but the last. Returns the run with the numbers of the new versions."""
        if self._cloud.stack.observe() != run.before:
            raise Superseded(Outcome.SUPERSEDED, "another release went live before it began: repeat the command")
        executor.update(run.transition.updates)
        seen = self._cloud.stack.observe()
        targets = {ids: str(seen.live.versions[version]) for ids, version in version_ids(run.wanted).items()}
        name_of = {lambda_name: name for name, lambda_name in run.record.functions.items()}
        versions = {name_of[seen.functions[ids]]: version for ids, version in targets.items()}
        record = replace(run.record, versions=versions)
        self._tenure.check(run.record, run.home)
        self._cloud.records.save(record)
        return replace(run, record=record, targets=targets)

    def _end(self, run: ReleaseRun, outcome: Outcome, reason: str | None) -> Result:
        now = self._cloud.clock.now()
        self._steps.add("ended", 100 if outcome is Outcome.LIVE else 0, reason or "")
        steps = tuple(self._steps.steps)
        record = replace(run.record, outcome=outcome, reason=reason, ended_at=timestamp(now), steps=steps)
        return conclude(
            self._cloud, record, run.wanted, self._steps, run.home, now=now, previous=run.previous,
            verb="promote" if record.promoted_from else "deploy", keep=self._tenure.end(record), alarms=run.alarms,
            hooks=self._shifting.asked,
        )  # fmt: skip
