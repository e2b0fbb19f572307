"""After a release: what its aliases serve is what was shipped, and it answers the stage's smoke requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hitless.cloud.release.smoke import smoke_versions
from hitless.cloud.stage.settling import Cloud, function_names, live_number
from hitless.cloud.transform.model import ALIAS
from hitless.errors import CandidateFailedError
from hitless.service.model import Service


@dataclass(frozen=True, slots=True)
class Found:
    """`faults`: one sentence each. `superseded`: another release is live by now, and nothing was looked at."""

    faults: tuple[str, ...] = ()
    superseded: bool = False


def faults_of(cloud: Cloud, service: Service, release: int, artifacts: Mapping[str, str]) -> Found:
    """What is wrong with a release that has just gone live. `artifacts`: function → digest that it must serve."""
    observed = cloud.stack.observe()
    if live_number(observed) != release:
        return Found(superseded=True)
    names = function_names(cloud, observed, service=service.name, stage=service.stage)
    faults = []
    for ids, state in observed.aliases.items():
        lambda_name = observed.functions[ids]
        name = names[lambda_name]
        if name not in artifacts:
            continue  # kept for one more release, for what still calls it
        if state.others:
            faults.append(f"{name}: not all traffic is at version {state.version}")
        if cloud.lambdas.code_sha256(lambda_name, state.version) != artifacts[name].removeprefix("sha256:"):
            faults.append(f"{name}: version {state.version} does not hold the bytes that were shipped")
    theirs = {ours: lambda_name for lambda_name, ours in names.items()}
    served = {name: (theirs[name], ALIAS) for name in artifacts if name in theirs}
    if missing := sorted(set(artifacts) - set(served)):
        faults.append(f"{', '.join(missing)}: not on AWS")
        return Found(tuple(faults))
    for request in service.settings.smoke:
        try:
            smoke_versions([request], service.functions, served, cloud.lambdas, stage=service.stage)
        except CandidateFailedError as error:
            faults.append(error.message)
    return Found(tuple(faults))
