"""What new versions must show before a client reaches them: the bytes that were built, handlers that can be imported,
the right answers to the stage's smoke requests. Afterwards they are warm.
"""

from __future__ import annotations

from collections.abc import Mapping

from botocore.exceptions import ClientError

from hitless.aws.session import is_denied
from hitless.cloud.records.records import Record
from hitless.cloud.release.packaging import Package
from hitless.cloud.release.smoke import smoke_versions
from hitless.cloud.stage.settling import Cloud
from hitless.cloud.transform.desired import functions_of
from hitless.cloud.transform.functions import is_wrapped
from hitless.cloud.transform.model import ALIAS, FunctionIds, Resource, Template
from hitless.errors import CandidateFailedError, CloudError

WARM_AT_MOST = 50


def prove(cloud: Cloud, package: Package, wanted: Template, record: Record, targets: Mapping[FunctionIds, str]) -> None:
    """Raises CloudError where a version is not what was built, CandidateFailedError where it does not serve."""
    versions: dict[str, tuple[str, str]] = {}
    for name, version in record.versions.items():
        lambda_name = record.functions[name]
        built = package.artifacts[name].digest.removeprefix("sha256:")
        if cloud.lambdas.code_sha256(lambda_name, version) != built:
            raise CloudError(f"{lambda_name}: version {version} does not hold the bytes that were built")
        cloud.lambdas.wake(lambda_name, version)
        versions[name] = (lambda_name, version)
    _warm(cloud, wanted, targets)
    requests = package.service.settings.smoke
    smoke_versions(requests, package.service.functions, versions, cloud.lambdas, stage=package.service.stage)


def environments(cloud: Cloud, function: Resource, at_once: int) -> int:
    """How many are warmed where the live version had so many busy at once: none that clients would miss."""
    if at_once <= 1:
        return 1
    return max(1, min(at_once, WARM_AT_MOST, _room(cloud, function, at_once)))


def _room(cloud: Cloud, function: Resource, at_once: int) -> int:
    """What the function has reserved beyond its busiest, else a twentieth of what the account leaves to all."""
    reserved = function["Properties"].get("ReservedConcurrentExecutions")
    if isinstance(reserved, int):
        return reserved - at_once
    try:
        return cloud.lambdas.concurrency()[1] // 20
    except ClientError as error:
        if not is_denied(error):  # an older core stack
            raise
        return 1


def _warm(cloud: Cloud, wanted: Template, targets: Mapping[FunctionIds, str]) -> None:
    """Have the handlers imported in as many environments as the live version had busy at once in the last hour."""
    names = functions_of(wanted)
    for ids, version in targets.items():
        if not is_wrapped(wanted["Resources"][ids.function]):
            continue
        at_once = cloud.traffic.most_at_once(names[ids], ALIAS, until=cloud.clock.now())
        number = environments(cloud, wanted["Resources"][ids.function], at_once)
        given = cloud.lambdas.warm(names[ids], version, number)
        if given.error:
            said = given.payload if isinstance(given.payload, dict) else {}
            why = f"{said.get('errorType', given.error)}: {said.get('errorMessage', 'no message')}"
            raise CandidateFailedError(
                f"{names[ids]}: version {version} does not start: {why}", hint="see `hitless aws logs`"
            )
