"""Services for the AWS tests, made without a file."""

from __future__ import annotations

from pathlib import Path

from hitless.service.model import Approval, Function, Nat, Network, RehearsalSettings, Service, StageSettings

OWN_NETWORK = Network()


def make_service(
    stage: str = "dev",
    *,
    name: str = "clock",
    nat: Nat = Nat.SINGLE,
    domain: str | None = None,
    approval: Approval = Approval.NONE,
    branch: str | None = None,
    architecture: str = "x86_64",
    rehearsal: RehearsalSettings | None = None,
    network: Network = OWN_NETWORK,
) -> Service:
    """A service with one function and one stage."""
    settings = StageSettings(
        stage, branch or stage, nat=nat, network=network, domain=domain, approval=approval, rehearsal=rehearsal
    )
    return Service(
        name=name,
        folder=Path("/service"),
        file=Path("/service/serverless.yml"),
        stage=stage,
        region="us-east-1",
        stages=(settings,),
        functions=(Function("api", "app.handler", architecture=architecture),),
    )
