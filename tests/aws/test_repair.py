"""Real faults of a stage under load: `status` reports them, `hitless aws repair` fixes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.aws.emulated import EmulatedAws
from tests.aws.release_support import REGION, Client, Worldclock
from tests.aws.test_release_faults import FUNCTIONS, deploying

pytestmark = pytest.mark.aws

META = "worldclock-prod-meta"


def reported_faults(service: Worldclock) -> list[dict[str, str]]:
    """The faults that status reports."""
    shown = service.run("status")
    assert shown.code == 0, shown.err
    return list(shown.json["troubles"])


def fix(service: Worldclock, *named: str, ends: int = 0, words: tuple[str, ...] = ()) -> Any:
    """Checks that status reports exactly these faults and that repair ends as expected, while no request fails."""
    troubles = [one["what"] for one in reported_faults(service)]
    assert len(troubles) == len(named), troubles
    assert all(any(part in one for one in troubles) for part in named), troubles
    planned = service.run("repair", "--dry-run")
    assert (planned.code, len(planned.json["left"]) >= len(named)) == (0, True), planned.err
    with Client(service.url + "/version", every_s=0.02) as client:
        done = service.run("repair", *words)
    assert (done.code, client.failed) == (ends, 0), (done.err, client.statuses)
    assert client.asked > 10
    if ends == 0:
        assert (done.json["left"], reported_faults(service)) == ([], [])
    return done.json


def test_repair_finds_and_fixes_faults_without_failing_a_request(aws: EmulatedAws, tmp_path: Path) -> None:
    service = Worldclock.new(aws, tmp_path)
    strategy = "strategy: Canary10Percent5Minutes"
    service.edit("serverless.yml", strategy, f"{strategy}\n        alarms: {{guard_s: 0}}")  # a real minute
    assert service.run("deploy", "--strategy", "AllAtOnce").code == 0
    service.mark("second")
    assert service.run("deploy", "--strategy", "AllAtOnce").code == 0
    well = service.run("repair")
    assert (well.code, well.json) == (0, {"stage": "prod", "dry_run": False, "steps": [], "mended": [], "left": []})
    lambdas = aws.client("lambda", REGION)
    _aliases_moved_by_hand(service, lambdas)
    _a_stage_at_another_deployment(service)
    _a_removed_permission(service, lambdas)
    _leftovers_of_a_shift(service, lambdas)
    _a_deploy_that_died_during_its_shift(service)
    assert service.run("status").json["weights"] == {name: {"2": 100} for name in FUNCTIONS}
    assert service.get("/version")[1]["release"] == 2


def _aliases_moved_by_hand(service: Worldclock, lambdas: Any) -> None:
    lambdas.update_alias(FunctionName=META, Name="live", FunctionVersion="1")
    weights = {"AdditionalVersionWeights": {"1": 0.2}}
    lambdas.update_alias(FunctionName="worldclock-prod-zones", Name="live", FunctionVersion="2", RoutingConfig=weights)
    fix(service, "to version 1 100 %: release 2 has version 2", "has weights (version 1 20 %, version 2 80 %)")


def _a_stage_at_another_deployment(service: Worldclock) -> None:
    gateway = service.aws.client("apigateway", REGION)
    (api,) = gateway.get_rest_apis()["items"]
    other = gateway.create_deployment(restApiId=api["id"])["id"]
    patch = [{"op": "replace", "path": "/deploymentId", "value": other}]
    gateway.update_stage(restApiId=api["id"], stageName="prod", patchOperations=patch)
    fix(service, f"it serves Deployment {other}")
    assert service.stages()[0]["deploymentId"] != other


def _a_removed_permission(service: Worldclock, lambdas: Any) -> None:
    name = {"FunctionName": "worldclock-prod-convert", "Qualifier": "live"}
    (statement,) = json.loads(lambdas.get_policy(**name)["Policy"])["Statement"]
    lambdas.remove_permission(**name, StatementId=statement["Sid"])
    left = fix(service, "API Gateway may not invoke the alias live", ends=1)["left"]
    assert "--function-name worldclock-prod-convert" in left[0]["mends"]
    lambdas.add_permission(
        **name, StatementId=statement["Sid"], Action=statement["Action"], Principal="apigateway.amazonaws.com"
    )


def _leftovers_of_a_shift(service: Worldclock, lambdas: Any) -> None:
    gateway = service.aws.client("apigateway", REGION)
    (api,) = gateway.get_rest_apis()["items"]
    patch = [{"op": "replace", "path": "/variables/hitlessShieldMeta", "value": "1:2"}]
    gateway.update_stage(restApiId=api["id"], stageName="prod", patchOperations=patch)
    lambdas.put_provisioned_concurrency_config(FunctionName=META, Qualifier="2", ProvisionedConcurrentExecutions=1)
    fix(service, "a shield is up", "1 environments of version 2 are provisioned instead of 0")


def _a_deploy_that_died_during_its_shift(service: Worldclock) -> None:
    service.mark("third")
    with deploying(service) as deploy:
        deploy.kill()
        deploy.communicate()
        assert reported_faults(service) == [], "CodeDeploy is at work: its deploy may still run"
        with Client(service.url + "/version") as client:
            done = service.run("repair")
        assert (done.code, done.json["left"], client.failed) == (0, [], 0), (done.err, client.statuses)
    assert reported_faults(service) == []
    (newest, *_) = service.run("releases").json
    assert (newest["release"], newest["outcome"]) == (3, "rolled_back")


@pytest.mark.long
def test_a_repair_during_a_deploy_takes_over_and_the_deploy_ends_as_superseded(
    aws: EmulatedAws, tmp_path: Path
) -> None:
    service = Worldclock.new(aws, tmp_path)
    assert service.run("deploy").code == 0
    service.mark("second")
    with Client(service.url + "/version", every_s=0.02) as client, deploying(service) as deploy:
        done = service.run("repair")
        assert (done.code, done.json["left"]) == (0, []), done.err
        out, err = deploy.communicate()
        assert (deploy.returncode, json.loads(out)["outcome"]) == (4, "superseded"), err
    assert client.failed == 0, client.statuses
    assert reported_faults(service) == []
    assert service.run("status").json["weights"] == {name: {"1": 100} for name in FUNCTIONS}
