"""Provisioned concurrency, moved from version to version: ready on the new one before the shift, taken from all others
after it. During a shift both versions have it, and both are paid for.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.cloud.settling import Cloud
from hitless.cloud.transform.desired import functions_of
from hitless.cloud.transform.model import FunctionIds, Template, of_type
from hitless.cloud.transform.provisioned import provisioned


def provision(cloud: Cloud, wanted: Template, targets: Mapping[FunctionIds, str], *, awaited: bool = True) -> None:
    """Put it on these versions and wait until it is ready. CloudError where Lambda has not enough of it."""
    names, numbers = functions_of(wanted), provisioned(wanted)
    wanting = {ids: version for ids, version in targets.items() if ids in numbers}
    for ids, version in wanting.items():
        cloud.say(f"{names[ids]}: {numbers[ids]} environments of version {version} are made ready")
        cloud.lambdas.provision(names[ids], version, numbers[ids])
    for ids, version in wanting.items() if awaited else ():
        cloud.lambdas.await_provisioned(names[ids], version)


def withdraw(cloud: Cloud, wanted: Template, previous: int | None, keep: Mapping[FunctionIds, str]) -> None:
    """Take it from every version that the stack holds but those of `keep`: function → version.

    Nothing is asked where neither the wanted release, nor the `previous` one, nor one between them that failed has any.
    """
    observed = cloud.stack.observe()
    live = cloud.records.template(previous) if previous is not None else None
    if not any(map(provisioned, (wanted, observed.live.template, live or {}))):
        return
    functions = {ids.function: ids for ids in observed.functions}
    for logical_id, version in of_type(observed.live.resources, "AWS::Lambda::Version").items():
        ids = functions.get(version["Properties"]["FunctionName"].get("Ref"))
        number = str(observed.live.versions.get(logical_id, ""))
        if ids is not None and number and keep.get(ids) != number:
            cloud.lambdas.provision_no_more(observed.functions[ids], number)
