"""Carries out a transition: updates of the stack, aliases that move at once, provisioned concurrency.

Provisioned concurrency moves from version to version: it is ready on the new one before the shift, and is taken from
all others after it. During a shift both versions have it, and both are paid for. If it is scaled, the new version
begins as large as the live one has grown, and is not made smaller while it takes over. It has the release's own bounds
once it has all traffic.
"""

from __future__ import annotations

from collections.abc import Mapping

from botocore.exceptions import ClientError

from hitless.aws.session import is_denied
from hitless.cloud.records.records import Record
from hitless.cloud.stage.service_stack import Observed
from hitless.cloud.stage.settling import Cloud
from hitless.cloud.transform.desired import functions_of, version_ids
from hitless.cloud.transform.functions import Ready, kept_ready
from hitless.cloud.transform.model import FunctionIds, Template, of_type
from hitless.cloud.transition import Transition
from hitless.errors import CloudError, ConflictError, ServiceFileError

ALWAYS_UNRESERVED = 100
"""What Lambda wants to be left to all other functions (Lambda Developer Guide, "Configuring reserved concurrency")."""


class Executor:
    """Writes one transition to AWS. `before` is what was live when the transition was planned."""

    def __init__(self, cloud: Cloud, transition: Transition, before: Observed) -> None:
        self._cloud, self._transition, self._before = cloud, transition, before
        self._standing = transition.standing

    def check_unchanged(self) -> None:
        """Raise ConflictError if the stack is no longer the one that the transition was planned on."""
        if self._cloud.stack.observe().live.template != self._transition.standing:
            raise ConflictError(
                f"{self._cloud.stack.name} was updated by somebody else meanwhile", hint="repeat the command"
            )

    def update(self) -> None:
        """Make all updates of the stack but the last."""
        for template in self._transition.updates:
            self.apply(template)

    def finish(self, versions: Mapping[FunctionIds, str]) -> None:
        """Make the last update of the stack. `versions`: function → the version that has all its traffic."""
        self.apply(self._transition.contract({ids.alias: version for ids, version in versions.items()}))

    def apply(self, template: Template) -> None:
        """Make one update of the stack. The errors are those of `ServiceStack.update`."""
        self._cloud.stack.update(template, before=self._standing)
        self._standing = template

    def provision(self, targets: Mapping[FunctionIds, str], home: Mapping[str, str], *, awaited: bool = True) -> None:
        """Ask for provisioned concurrency on these versions. `home`: Lambda's name → the version that is live.

        With `awaited` wait until it is ready. CloudError if Lambda has not enough of it, or denies scaling it.
        """
        cloud, names, ready = self._cloud, *self._kept_ready()
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
        """Provisioned concurrency belongs to these versions, which have all traffic, and to no others."""
        kept = {ids: version for ids, version in versions.items() if ids in self._kept_ready()[1]}
        self._bound(kept)
        self.withdraw(previous, keep=kept)

    def _bound(self, targets: Mapping[FunctionIds, str]) -> None:
        """Give these versions the release's own bounds. Only says if that fails: they are live already."""
        cloud, names, ready = self._cloud, *self._kept_ready()
        was = {ids for ids, one in kept_ready(self._before.live.template).items() if one.most is not None}
        for ids, version in targets.items():
            one = ready[ids]
            try:
                if one.most is not None:
                    cloud.autoscaling.scale(
                        names[ids], version, least=one.least, most=one.most, target_percent=one.target_percent
                    )
                elif ids in was:
                    cloud.autoscaling.scale_no_more(names[ids], version)
                    cloud.lambdas.provision(names[ids], version, one.least)
            except CloudError as error:
                cloud.say(f"{error.message}; {error.hint}")

    def withdraw(self, previous: int | None, keep: Mapping[FunctionIds, str]) -> None:
        """Take provisioned concurrency from all versions that the stack holds or the `previous` release had, except
        those of `keep`. If a deploy was cut off after its shift, the stack no longer holds the previous versions.

        Nothing is asked if neither the wanted release, nor the `previous` one, nor a failed one between them has any.
        """
        cloud = self._cloud
        observed = cloud.stack.observe()
        live = cloud.records.template(previous) if previous is not None else None
        had = [kept_ready(one) for one in (self._transition.wanted, observed.live.template, live or {})]
        if not any(had):
            return
        scaled = any(one.most is not None for ready in had for one in ready.values())
        record = cloud.records.get(previous) if previous is not None else None
        for ids, number in sorted(held_versions(observed, record), key=str):
            if keep.get(ids) != number:
                if scaled:  # first: a scaled version's concurrency would be put back
                    cloud.autoscaling.scale_no_more(observed.functions[ids], number)
                cloud.lambdas.provision_no_more(observed.functions[ids], number)

    def _kept_ready(self) -> tuple[dict[FunctionIds, str], dict[FunctionIds, Ready]]:
        return functions_of(self._transition.wanted), kept_ready(self._transition.wanted)


def held_versions(observed: Observed, *records: Record | None) -> set[tuple[FunctionIds, str]]:
    """(function, version) of all that the stack holds, and that these releases had."""
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


def check_headroom(cloud: Cloud, wanted: Template, before: Observed) -> None:
    """ServiceFileError where the account has no room for both versions' provisioned concurrency during the shift, and
    for what is newly reserved. What the live versions have is taken from Lambda's number already.
    """
    names, ready, versions = functions_of(wanted), kept_ready(wanted), version_ids(wanted)
    home = {before.functions[ids]: state.version for ids, state in before.aliases.items()}
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
            f"versions stand ({said})",
            hint="provision or reserve less, or ask for more in Service Quotas; `hitless aws plan` counts it",
        )


def _size(cloud: Cloud, name: str, ready: Ready, home: Mapping[str, str]) -> int:
    """As many as the service asks for; where it is scaled, as many as the live version has grown to."""
    if ready.most is None or name not in home:
        return ready.least
    return ready.nearest(cloud.lambdas.provisioned(name, home[name]))


def _reserved(template: Template, ids: FunctionIds) -> int | None:
    found = template.get("Resources", {}).get(ids.function, {}).get("Properties", {})
    number = found.get("ReservedConcurrentExecutions")
    return number if isinstance(number, int) else None
