"""Carries out a transition, as long as this process holds the release. Deploy, rollback and adopt write by it.

It updates the stack and moves provisioned concurrency from version to version: ready on the new one before the shift,
removed from all others after it. During a shift both versions have it, and both are paid for. If it is scaled, the new
version starts as large as the live one has grown, and does not shrink while it takes over. Once it has all traffic, it
gets the release's own bounds.

The release's record has the mark of its holder, the process that may change it. A process that takes over (a newer
deploy, `abort`, `repair`) writes its own mark first. The previous holder checks the mark before each step and stops.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from botocore.exceptions import ClientError

from hitless.aws.events import ReleaseEnded
from hitless.aws.session import is_denied
from hitless.clock import timestamp
from hitless.cloud.records.records import Record, ReleaseSteps, rollout_of
from hitless.cloud.release.packaging import ServicePackage
from hitless.cloud.stage.stage import TIME_LIMIT, Cloud, Observed, url_of
from hitless.cloud.transform.desired import fingerprint, functions_of, version_ids
from hitless.cloud.transform.functions import Ready, kept_ready
from hitless.cloud.transform.model import PREVIOUS_OUTPUT, FunctionIds, Template, of_type
from hitless.cloud.transform.widening import one_index_each
from hitless.cloud.transition import Transition
from hitless.errors import CloudError, ConflictError, ServiceFileError
from hitless.release.receipt import HookEnd
from hitless.release.result import Outcome, Result
from hitless.service.model import AlarmSettings
from hitless.service.strategy import Strategy, weights

KEPT_RELEASES = 10
"""How many previously live releases remain available for a rollback."""
UPDATES_S = 3600
"""Allowed for all of a release but its bake."""
ALWAYS_UNRESERVED = 100
"""Concurrency that Lambda keeps for other functions (Lambda Developer Guide, "Configuring reserved concurrency")."""


class TransitionExecutor:
    """Writes one transition to AWS. `before` is what was live when the transition was planned."""

    def __init__(self, cloud: Cloud, transition: Transition, before: Observed) -> None:
        self._cloud, self._transition, self._before = cloud, transition, before
        self._standing = transition.standing
        self._names, self._ready = functions_of(transition.wanted), kept_ready(transition.wanted)

    def check_unchanged(self) -> None:
        """Raise ConflictError if the stack is no longer the one that this process left, or planned on."""
        if self._cloud.stack.observe().live.template != self._standing:
            raise ConflictError(
                f"{self._cloud.stack.name} was updated while this command ran", hint="repeat the command"
            )

    def update(self, templates: Iterable[Template]) -> None:
        """Make these updates of the stack."""
        for template in templates:
            self.apply(template)

    def finish(self, versions: Mapping[FunctionIds, str]) -> None:
        """Make the last update of the stack. `versions`: function → the version that has all its traffic."""
        self.apply(self._transition.contract({ids.alias: version for ids, version in versions.items()}))

    def apply(self, template: Template) -> None:
        """Update the stack to the template, one index of a table at a time. The errors are those of
        `ServiceStack.update`.
        """
        for each in one_index_each(self._standing, template):
            self._cloud.stack.update(each, before=self._standing)
            self._standing = each

    def provision(self, targets: Mapping[FunctionIds, str], home: Mapping[str, str], *, awaited: bool = True) -> None:
        """Request provisioned concurrency for these versions. `home`: Lambda's name → the live version. With `awaited`
        wait until it is ready.

        Raises CloudError if Lambda does not have enough of it, or if scaling is denied.
        """
        cloud, names, ready = self._cloud, self._names, self._ready
        wanting = {ids: version for ids, version in targets.items() if ids in ready}
        sizes = {ids: _size(cloud, names[ids], ready[ids], home) for ids in wanting}
        for ids, version in wanting.items():
            cloud.say(f"{names[ids]}: {sizes[ids]} environments of version {version} are made ready")
            cloud.lambdas.provision(names[ids], version, sizes[ids])
        for ids, version in wanting.items() if awaited else ():
            cloud.lambdas.await_provisioned(names[ids], version)
        for ids, version in wanting.items():
            one = ready[ids]
            if one.most is not None and home.get(names[ids]) != version:
                most, target = max(one.most, sizes[ids]), one.target_percent
                cloud.autoscaling.scale(names[ids], version, least=sizes[ids], most=most, target_percent=target)

    def keep_ready(self, versions: Mapping[FunctionIds, str], previous: int | None) -> None:
        """Give provisioned concurrency to these versions, which have all traffic, and to no others. A failure to set
        its bounds is only reported, because the versions are live already.
        """
        cloud, names = self._cloud, self._names
        kept = {ids: version for ids, version in versions.items() if ids in self._ready}
        was = {ids for ids, one in kept_ready(self._before.live.template).items() if one.most is not None}
        for ids, version in kept.items():
            one = self._ready[ids]
            try:
                if one.most is not None:
                    cloud.autoscaling.scale(
                        names[ids], version, least=one.least, most=one.most, target_percent=one.target_percent
                    )
                elif ids in was:
                    cloud.autoscaling.stop_scaling(names[ids], version)
                    cloud.lambdas.provision(names[ids], version, one.least)
            except CloudError as error:
                cloud.say(f"{error.message}; {error.hint}")
        self.withdraw(previous, keep=kept)

    def withdraw(self, previous: int | None, keep: Mapping[FunctionIds, str]) -> None:
        """Remove provisioned concurrency from all versions of the stack and of the `previous` release, except those of
        `keep`.

        If a deploy was cut off after its shift, the stack no longer holds the previous versions. Lambda is not asked if
        neither the wanted release, nor the `previous` one, nor a failed one between them has any.
        """
        cloud = self._cloud
        observed = cloud.stack.observe()
        live = cloud.records.template(previous) if previous is not None else None
        had = [kept_ready(one) for one in (self._transition.wanted, observed.live.template, live or {})]
        if not any(had):
            return
        scaled = any(one.most is not None for ready in had for one in ready.values())
        record = cloud.records.get(previous) if previous is not None else None
        for ids, number in sorted(known_versions(observed, record), key=str):
            if keep.get(ids) != number:
                if scaled:  # first: a scaled version's concurrency would be put back
                    cloud.autoscaling.stop_scaling(observed.functions[ids], number)
                cloud.lambdas.remove_provisioned(observed.functions[ids], number)


def known_versions(observed: Observed, *records: Record | None) -> set[tuple[FunctionIds, str]]:
    """(function, version) of all versions that the stack holds or that these releases had."""
    functions = {ids.function: ids for ids in observed.functions}
    found = set()
    for logical_id, version in of_type(observed.live.resources, "AWS::Lambda::Version").items():
        ids = functions.get(version["Properties"]["FunctionName"].get("Ref"))
        if ids is not None and logical_id in observed.live.versions:
            found.add((ids, str(observed.live.versions[logical_id])))
    by_name = {name: ids for ids, name in observed.functions.items()}
    for record in filter(None, records):
        named = ((record.functions[name], version) for name, version in record.versions.items())
        found |= {(by_name[name], version) for name, version in named if name in by_name}
    return found


def prune(cloud: Cloud, number: int) -> None:
    """Delete the functions' versions that are no longer needed, once release `number` is live. A failure is only
    reported.

    Lambda keeps every version, and 75 GB of code per region (Lambda quotas). Versions of the last releases that
    were live, of the stack, and newer than the live one are kept.
    """
    if number <= KEPT_RELEASES:
        return
    observed, records = cloud.stack.observe(), cloud.records
    previous = observed.live.output(PREVIOUS_OUTPUT)
    releases = [
        *records.recently_live(KEPT_RELEASES, of=5 * KEPT_RELEASES),
        records.get(int(previous)) if previous else None,
    ]
    kept = {(name, version) for record in filter(None, releases) for name, version in record.at.items()}
    kept |= {(observed.functions[ids], version) for ids, version in known_versions(observed)}
    try:
        for name, live in observed.at.items():
            for version in cloud.lambdas.versions(name):
                if int(version) < int(live) and (name, version) not in kept:
                    cloud.lambdas.delete_version(name, version)
    except ClientError as error:
        cloud.say(f"older versions of functions were not deleted: {error}")


def check_time(cloud: Cloud, strategy: Strategy, hooks: int) -> None:
    """Raise ServiceFileError if this machine is stopped before the release can end. `hooks` take an hour each."""
    needed_s = sum(bake_s for _, bake_s in weights(strategy)) + hooks * 3600 + UPDATES_S
    if needed_s > cloud.time_limit_s:
        raise ServiceFileError(
            f"{strategy} may take {needed_s / 60:g} min with the stack's updates and hooks, and this build is stopped "
            f"after {cloud.time_limit_s / 60:g} ({TIME_LIMIT})",
            hint="choose a shorter strategy, or raise the build's time limit and the variable",
        )


def check_headroom(cloud: Cloud, wanted: Template, before: Observed) -> None:
    """Raise ServiceFileError if the account has no room for both versions' provisioned concurrency and for newly
    reserved concurrency. Lambda's number excludes what the live versions have.
    """
    names, ready, versions = functions_of(wanted), kept_ready(wanted), version_ids(wanted)
    home = before.at
    asked: dict[str, int] = {}
    for ids, name in names.items():
        mine, theirs = (_reserved(each, ids) for each in (wanted, before.live.template))
        if mine is None and ids in ready and versions[ids] not in before.live.versions:
            asked[name] = _size(cloud, name, ready[ids], home)
        elif mine is not None and mine > (theirs or 0):
            asked[name] = mine - (theirs or 0)
    if not asked:
        return
    try:
        limit, unreserved = cloud.lambdas.concurrency()
    except ClientError as error:
        if not is_denied(error):
            raise
        cloud.say(f"whether the account has enough concurrency is not known: {error}")
        return
    room = unreserved - min(ALWAYS_UNRESERVED, limit)
    if (needed := sum(asked.values())) > room:
        said = ", ".join(f"{name} {number}" for name, number in asked.items())
        raise ServiceFileError(
            f"the account's concurrency has room for {max(room, 0)} more, and the release takes {needed} while both "
            f"versions exist ({said})",
            hint="provision or reserve less, or ask for more in Service Quotas; `hitless aws plan` counts it",
        )


def _size(cloud: Cloud, name: str, ready: Ready, home: Mapping[str, str]) -> int:
    """The number that the service requests; if it is scaled, the number to which the live version has grown."""
    if ready.most is None or name not in home:
        return ready.least
    return ready.nearest(cloud.lambdas.provisioned(name, home[name]))


def _reserved(template: Template, ids: FunctionIds) -> int | None:
    found = template.get("Resources", {}).get(ids.function, {}).get("Properties", {})
    number = found.get("ReservedConcurrentExecutions")
    return number if isinstance(number, int) else None


class Superseded(Exception):
    """Another process has begun a newer release, or has ended or continued this one.

    `last`: no later process will clean up.
    """

    def __init__(self, outcome: Outcome, reason: str, *, last: bool = False) -> None:
        super().__init__(reason)
        self.outcome, self.reason, self.last = outcome, reason, last


class Tenure:
    """This process's claim to the release that it ships. `holder` is its mark."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self.holder = cloud, secrets.token_hex(8)

    def next_record(
        self, package: ServicePackage, wanted: Template, commit: str | None, message: str | None, strategy: Strategy
    ) -> tuple[Record, Record | None]:
        """The record for this release, and that of a release whose deploy was cut off, if there is one. Both are the
        same record if their content is equal. Writes nothing.
        """
        records, name_of = self._cloud.records, package.packaged.function_names
        mark = fingerprint(wanted)
        cut_off = records.unfinished()
        if cut_off is not None and cut_off.fingerprint == mark:
            self._cloud.say(f"release {cut_off.release} was cut off; it is continued")
            return cut_off, cut_off
        record = Record(
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
            holder=self.holder,
        )
        return record, cut_off

    def begin(self, record: Record, wanted: Template, cut_off: Record | None) -> None:
        """Take the release's number and keep its template. Another release that was cut off ends as superseded."""
        records, resumes = self._cloud.records, cut_off is not None and cut_off.release == record.release
        if cut_off is not None and not resumes:
            reason = "another release started before it ended"
            records.save(replace(cut_off, outcome=Outcome.SUPERSEDED, reason=reason))
        records.begin(record, wanted, new=not resumes)

    def check(self, record: Record, home: Mapping[str, str]) -> None:
        """Raise Superseded if another process holds the release. If that process has ended it, traffic first goes to
        `home` (Lambda's name → version) once more.
        """
        records = self._cloud.records
        if records.is_overtaken(record.release):
            raise Superseded(Outcome.SUPERSEDED, f"release {record.release + 1} has begun in the meantime")
        stored = records.get(record.release)
        if stored is None:
            return
        if stored.outcome is not None:
            last = stored.outcome in (Outcome.ABORTED, Outcome.ROLLED_BACK)  # by `abort`, by `repair`
            if last:  # it may have happened between our last check and CodeDeploy's start
                self._cloud.shift.point(home)
            ends = Outcome.SUPERSEDED if stored.outcome == Outcome.ROLLED_BACK else stored.outcome
            raise Superseded(ends, stored.reason or "another process has ended it", last=last)
        if stored.holder != record.holder:
            raise Superseded(Outcome.SUPERSEDED, "another deploy continues it")

    def end(self, record: Record) -> bool:
        """Save the ended record, unless another process holds the release. True if it was saved."""
        stored = self._cloud.records.get(record.release)
        if stored is None or stored.holder != record.holder:
            return False
        try:
            self._cloud.records.save(record)
        except ConflictError:
            return False
        return True


def conclude(
    cloud: Cloud, record: Record, wanted: Template, steps: ReleaseSteps, home: Mapping[str, str], *, now: datetime,
    verb: str, previous: int | None, keep: bool = True, why: str | None = None, alarms: AlarmSettings | None = None,
    hooks: Sequence[HookEnd] = (),
) -> Result:  # fmt: skip
    """The result of a release that ended as the record says, after an event that tells of it. Without `keep` another
    process keeps its rollout, and sends the event.
    """
    rollout = rollout_of(record, wanted, steps, home, ended=now, who=cloud.who, why=why, alarms=alarms, hooks=hooks)
    kept = cloud.rollouts.add(record, rollout, verb=verb, previous=previous, duration_s=steps.duration_s, keep=keep)
    if keep:
        failed = sum(side.failed for side in (kept.candidate, kept.live) if side) if kept.candidate else None
        which = (record.service, record.stage, record.release)
        cloud.tell_ended(ReleaseEnded(*which, kept.outcome, verb, record.commit, failed, record.reason))
    return Result(
        record.stage, record.release, kept.outcome, record.strategy, record.reason, kept.duration_s, record.steps,
        candidate=kept.candidate, live=kept.live, url=url_of(cloud),
    )  # fmt: skip


def versions_to_return_to(cloud: Cloud, before: Observed, live: int | None) -> dict[str, str]:
    """Lambda's name → the version to which the live release's traffic belongs.

    An alias at another version was left by a deploy that was cut off, or by a rollback whose stack was not updated. In
    the second case that version was live, and the alias stays there.
    """
    if live is None:
        return {}
    at = before.at
    recorded = _versions(cloud.records.get(live))
    strays = {name for name, version in at.items() if recorded.get(name, version) != version}
    were_live = [_versions(record) for record in cloud.records.many(cloud.records.numbers())] if strays else []
    for name in strays:
        if not any(versions.get(name) == at[name] for versions in were_live):
            at[name] = recorded[name]
    return at


def return_home(cloud: Cloud, before: Observed, live: int | None) -> Observed:
    """Give the live release all traffic again, which a release that was cut off has moved: not every route of the live
    release may be known there. Returns what is live then.
    """
    home = versions_to_return_to(cloud, before, live)
    if before.at == home:
        return before
    cloud.shift.point(home)
    return cloud.stack.observe()


def _versions(record: Record | None) -> dict[str, str]:
    """Lambda's name → version, if the release went live; else empty."""
    return record.at if record is not None and record.outcome == Outcome.LIVE else {}
