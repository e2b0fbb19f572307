"""A release on AWS: expand → prove → shift → contract, in one readable method.

Every step can be repeated: what is live is read from the stack, from Lambda and from the stage's bucket, never from a
file here. A deploy that was cut off is finished by the next one: its shift is stopped first, what had arrived stays
where it is, and the rest follows. One release at a time; the newest wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from hitless.aws.buckets import Bucket
from hitless.aws.codedeploy import Move
from hitless.aws.lambdas import Lambdas
from hitless.clock import Clock, timestamp
from hitless.cloud.packaging import Package
from hitless.cloud.records import Record, Records, ended
from hitless.cloud.result import Counts, Outcome, Result, Steps
from hitless.cloud.service_stack import Observed, ServiceStack
from hitless.cloud.shift import Shift
from hitless.cloud.smoke import send_smoke_requests
from hitless.cloud.transform.desired import fingerprint, functions_of, version_ids
from hitless.cloud.transform.guard import whole_minutes
from hitless.cloud.transform.model import (
    ALIAS,
    FINGERPRINT_OUTPUT,
    RELEASE_OUTPUT,
    URL_OUTPUT,
    FunctionIds,
    LiveState,
    Template,
    of_type,
)
from hitless.cloud.transform.steps import clear, contract, expand
from hitless.errors import CandidateFailedError, CloudError
from hitless.service.strategy import Strategy


class Counter(Protocol):
    """Counts requests of versions: aws.traffic.Traffic."""

    def count(self, versions: Any, *, since: Any, until: Any) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class Cloud:
    """Everything outside that a release needs."""

    stack: ServiceStack
    bucket: Bucket
    records: Records
    lambdas: Lambdas
    shift: Shift
    traffic: Counter
    clock: Clock
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Run:
    """One release under way."""

    record: Record
    wanted: Template
    before: Observed
    targets: Mapping[FunctionIds, str]
    home: Mapping[str, str]
    """Lambda's name → the version that the live release has: where traffic goes back to."""


class Superseded(Exception):
    """A newer release was begun, or this one was aborted by another process."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome, self.reason = outcome, reason


class Deploy:
    """Ships a package. `zip_of` gives the path of an artifact's zip by its digest."""

    def __init__(self, cloud: Cloud, zip_of: Callable[[str], Path]) -> None:
        self._cloud, self._zip_of = cloud, zip_of
        self._steps = Steps(cloud.clock, cloud.say)
        self._began = cloud.clock.now()

    def run(
        self, package: Package, *, strategy: Strategy, commit: str | None, message: str | None, force: bool = False
    ) -> Result:
        """Ship it and return how it ended. Raises HitlessError where nothing could be begun."""
        shipped = self._whole_minutes(strategy)
        before = settle(self._cloud)
        live = live_number(before)
        wanted = package.wanted(number=0, previous=live, commit=commit, strategy=shipped)
        if not force and _is_live(before, wanted):
            return Result(package.service.stage, live or 0, Outcome.UNCHANGED, str(shipped), url=self._url())
        record = self._begin(package, wanted, commit, message, shipped)
        previous = live if live != record.release else None
        wanted = package.wanted(number=record.release, previous=previous, commit=commit, strategy=shipped)
        self._begin_record(record, wanted)
        run = _Run(record, wanted, before, {}, self._home(before, live))
        try:
            self._upload(package)
            run = self._expand(run)
            self._prove(run, package)
            self._shift(run, shipped)
            self._contract(run)
        except Superseded as error:
            return self._end(run, error.outcome, error.reason)
        except (CandidateFailedError, CloudError) as error:
            self._cloud.shift.point(run.home)
            return self._end(run, Outcome.ROLLED_BACK, error.message)
        return self._end(run, Outcome.LIVE, None)

    def _whole_minutes(self, strategy: Strategy) -> Strategy:
        shipped = whole_minutes(strategy)
        if shipped != strategy:
            self._cloud.say(f"{strategy} is shipped as {shipped}: CodeDeploy knows whole minutes")
        return shipped

    def _begin(
        self, package: Package, wanted: Template, commit: str | None, message: str | None, strategy: Strategy
    ) -> Record:
        """The record of this release: that of the same content whose deploy was cut off, else a new one."""
        records, name_of = self._cloud.records, package.packaged.function_names
        mark = fingerprint(wanted)
        cut_off = records.unfinished()
        if cut_off is not None and cut_off.fingerprint == mark:
            self._cloud.say(f"release {cut_off.release} was cut off; it is continued")
            return cut_off
        if cut_off is not None:
            reason = "another release was begun before it ended"
            records.save(replace(cut_off, outcome=str(Outcome.SUPERSEDED), reason=reason))
        return Record(
            release=records.next_number(),
            service=package.service.name,
            stage=package.service.stage,
            created_at=timestamp(self._cloud.clock.now()),
            fingerprint=mark,
            strategy=str(strategy),
            commit=commit,
            message=message,
            artifacts={name: artifact.digest for name, artifact in package.artifacts.items()},
            functions={name_of[lambda_name]: lambda_name for lambda_name in functions_of(wanted).values()},
        )

    def _begin_record(self, record: Record, wanted: Template) -> None:
        if self._cloud.records.get(record.release) is None:
            self._cloud.records.begin(record, wanted)
        self._steps.add("preparing", 0, f"release {record.release}")

    def _home(self, before: Observed, live: int | None) -> dict[str, str]:
        recorded = self._cloud.records.get(live) if live is not None else None
        at = {before.functions[ids]: state.version for ids, state in before.aliases.items()}
        if recorded is not None:
            known = {recorded.functions[name]: version for name, version in recorded.versions.items()}
            at |= {name: version for name, version in known.items() if name in at}
        return at if live is not None else {}

    def _upload(self, package: Package) -> None:
        for digest in {artifact.digest for artifact in package.artifacts.values()}:
            self._cloud.bucket.put_artifact(digest.removeprefix("sha256:"), self._zip_of(digest))

    def _expand(self, run: _Run) -> _Run:
        """First update: new versions beside the live ones. Its end tells the new versions' numbers."""
        live, before = run.before.live, run.before.live.template
        template = expand(run.wanted, live)
        if (cleared := clear(template, live)) is not None:
            self._cloud.stack.update(cleared, before=before)
            before = cleared
        self._cloud.stack.update(template, before=before)
        seen = self._cloud.stack.observe()
        targets = {ids: str(seen.live.versions[version]) for ids, version in version_ids(run.wanted).items()}
        name_of = {lambda_name: name for name, lambda_name in run.record.functions.items()}
        versions = {name_of[seen.functions[ids]]: version for ids, version in targets.items()}
        record = replace(run.record, versions=versions)
        self._cloud.records.save(record)
        return replace(run, record=record, targets=targets)

    def _prove(self, run: _Run, package: Package) -> None:
        """The new versions hold the bytes that were built, can be invoked, and answer the smoke requests."""
        self._steps.add("testing", 0)
        versions: dict[str, tuple[str, str]] = {}
        for name, version in run.record.versions.items():
            lambda_name = run.record.functions[name]
            built = package.artifacts[name].digest.removeprefix("sha256:")
            if self._cloud.lambdas.code_sha256(lambda_name, version) != built:
                raise CloudError(f"{lambda_name}: version {version} does not hold the bytes that were built")
            self._cloud.lambdas.wake(lambda_name, version)
            versions[name] = (lambda_name, version)
        requests = package.service.settings.smoke
        send_smoke_requests(
            requests, package.service.functions, versions, self._cloud.lambdas, stage=package.service.stage
        )

    def _shift(self, run: _Run, strategy: Strategy) -> None:
        """CodeDeploy, one deployment for each function that changed; nothing where no client is served yet."""
        self._check_still_ours(run)
        moves = [
            Move(run.before.functions[ids], ids.base, ALIAS, run.before.aliases[ids].version, target)
            for ids, target in run.targets.items()
            if run.home and ids in run.before.aliases and run.before.aliases[ids].version != target
        ]
        if not moves:
            self._cloud.shift.point({functions_of(run.wanted)[ids]: target for ids, target in run.targets.items()})
            return
        self._steps.add("shifting", 0, f"{len(moves)} functions by {strategy}")
        failure = self._cloud.shift.run(
            moves,
            configuration=_configuration(run.wanted, moves),
            description=f"release {run.record.release}",
            on_weight=lambda weight: self._steps.add("baking" if 0 < weight < 100 else "shifting", weight),
        )
        if failure is None:
            return
        if failure.by_hand:
            self._check_still_ours(run)
            self._cloud.shift.point(run.home)
            raise Superseded(Outcome.ABORTED, f"the shift was stopped by hand ({failure.reason})")
        raise CandidateFailedError(failure.reason)

    def _contract(self, run: _Run) -> None:
        """Second update: the stack records where the aliases are, and the API moves to its new Deployment."""
        self._check_still_ours(run)
        self._steps.add("draining", 100)
        versions = {ids.alias: version for ids, version in run.targets.items()}
        now = self._cloud.stack.observe().live.template
        self._cloud.stack.update(contract(run.wanted, run.before.live, versions), before=now)

    def _check_still_ours(self, run: _Run) -> None:
        records = self._cloud.records
        if (newest := max(records.numbers(), default=0)) > run.record.release:
            raise Superseded(Outcome.SUPERSEDED, f"release {newest} was begun meanwhile")
        stored = records.get(run.record.release)
        if stored is not None and stored.outcome == Outcome.ABORTED:
            self._cloud.shift.point(run.home)
            raise Superseded(Outcome.ABORTED, stored.reason or "it was aborted")

    def _end(self, run: _Run, outcome: Outcome, reason: str | None) -> Result:
        now = self._cloud.clock.now()
        self._steps.add("ended", 100 if outcome is Outcome.LIVE else 0, reason or "")
        record = ended(
            run.record, outcome=str(outcome), reason=reason, at=timestamp(now), steps=tuple(self._steps.steps)
        )
        self._cloud.records.save(record)
        candidate = {run.record.functions[name]: version for name, version in run.record.versions.items()}
        live = {name: version for name, version in run.home.items() if candidate.get(name) != version}
        return Result(
            stage=run.record.stage,
            release=run.record.release,
            outcome=outcome,
            strategy=run.record.strategy,
            reason=reason,
            duration_s=self._steps.duration_s,
            steps=tuple(self._steps.steps),
            candidate=self._count(candidate),
            live=self._count(live) if run.home else None,
            url=self._url(),
        )

    def _count(self, versions: Mapping[str, str]) -> Counts | None:
        where = [(name, ALIAS, version) for name, version in versions.items()]
        return Counts(*self._cloud.traffic.count(where, since=self._began, until=self._cloud.clock.now()))

    def _url(self) -> str | None:
        stack = self._cloud.stack.find()
        return stack.outputs.get(URL_OUTPUT) if stack is not None else None


def settle(cloud: Cloud) -> Observed:
    """Bring the stage to rest before something new begins: stack, shifts under way, left-over weights."""
    cloud.stack.settle()
    observed = cloud.stack.observe()
    if not observed.exists:
        return observed
    stopped = cloud.shift.stop_groups(ids.base for ids in observed.functions)
    if stopped:
        cloud.say(f"a shift was under way ({', '.join(stopped)}): it was stopped")
    cloud.shift.settle(observed.functions.values())
    return cloud.stack.observe()


def live_number(observed: Observed) -> int | None:
    """The release that the stack records as live."""
    number = observed.live.output(RELEASE_OUTPUT)
    return int(number) if number is not None and number.isdecimal() else None


def _is_live(observed: Observed, wanted: Template) -> bool:
    """Whether the stage serves just this content, and traffic is where the stack says."""
    if observed.live.output(FINGERPRINT_OUTPUT) != fingerprint(wanted):
        return False
    return _is_at_rest(observed.live) and not any(state.others for state in observed.aliases.values())


def _is_at_rest(live: LiveState) -> bool:
    return all(
        alias["Properties"]["FunctionVersion"] in (live.aliases.get(name), {"Fn::GetAtt": []})
        for name, alias in of_type(live.resources, "AWS::Lambda::Alias").items()
        if name in live.aliases
    )


def _configuration(wanted: Template, moves: list[Move]) -> str:
    """The name of CodeDeploy's configuration that the groups of a wanted template have."""
    group = wanted["Resources"][f"{moves[0].group}DeploymentGroup"]["Properties"]["DeploymentConfigName"]
    if isinstance(group, str):
        return group
    return str(wanted["Resources"][group["Ref"]]["Properties"]["DeploymentConfigName"])
