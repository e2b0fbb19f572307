"""Provisioned concurrency, moved from version to version: ready on the new one before the shift, taken from all others
after it. During a shift both versions have it, and both are paid for.

Where it is scaled, the new version begins as large as the live one has grown, and is not made smaller while it takes
over: it has the release's own bounds once it has all traffic.
"""

from __future__ import annotations

from collections.abc import Mapping

from botocore.exceptions import ClientError

from hitless.aws.session import is_denied
from hitless.cloud.records.records import Record
from hitless.cloud.stage.service_stack import Observed
from hitless.cloud.stage.settling import Cloud
from hitless.cloud.transform.desired import functions_of, version_ids
from hitless.cloud.transform.model import FunctionIds, Template, of_type
from hitless.cloud.transform.provisioned import Ready, kept_ready
from hitless.errors import CloudError, ServiceFileError

ALWAYS_UNRESERVED = 100
"""What Lambda wants to be left to all other functions (Lambda Developer Guide, "Configuring reserved concurrency")."""


def provision(
    cloud: Cloud,
    wanted: Template,
    targets: Mapping[FunctionIds, str],
    home: Mapping[str, str],
    *,
    awaited: bool = True,
) -> None:
    """Put it on these versions and wait until it is ready. `home`: Lambda's name → the version that is live.

    CloudError where Lambda has not enough of it, or may not scale it.
    """
    names, ready = functions_of(wanted), kept_ready(wanted)
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
            most = max(one.most, sizes[ids])
            cloud.autoscaling.scale(names[ids], version, least=sizes[ids], most=most, target_percent=one.target_percent)


def bound(cloud: Cloud, wanted: Template, targets: Mapping[FunctionIds, str], before: Template) -> None:
    """Give the versions that have all traffic the release's own bounds; says where that fails, for they are live.
    `before` is the template that was live.
    """
    names, ready = functions_of(wanted), kept_ready(wanted)
    was = {ids for ids, one in kept_ready(before).items() if one.most is not None}
    for ids, version in targets.items():
        if (one := ready.get(ids)) is None:
            continue
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


def withdraw(cloud: Cloud, wanted: Template, previous: int | None, keep: Mapping[FunctionIds, str]) -> None:
    """Take it from every version that the stack holds, and those of the `previous` release, but those of `keep`:
    function → version. The stack has let the previous ones go where a deploy was cut off behind its shift.

    Nothing is asked where neither the wanted release, nor the `previous` one, nor one between them that failed has any.
    """
    observed = cloud.stack.observe()
    live = cloud.records.template(previous) if previous is not None else None
    had = [kept_ready(one) for one in (wanted, observed.live.template, live or {})]
    if not any(had):
        return
    scaled = any(one.most is not None for ready in had for one in ready.values())
    record = cloud.records.get(previous) if previous is not None else None
    for ids, number in sorted(held_versions(observed, record), key=str):
        if keep.get(ids) != number:
            if scaled:  # first: what is scaled would be put back
                cloud.autoscaling.scale_no_more(observed.functions[ids], number)
            cloud.lambdas.provision_no_more(observed.functions[ids], number)


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
