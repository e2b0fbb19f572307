"""Adopts a plain `osls deploy` of worldclock under load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hitless.aws.follow import Stack
from hitless.aws.lambdas import Running
from hitless.aws.osls import find_osls
from hitless.cloud.adoption.templates import (
    PlainStack,
    adopted,
    contracted,
    expanded,
    functions_in,
    with_stage,
)
from hitless.cloud.transform.model import BUCKET_ID, LiveState
from tests.aws.emulated import EmulatedAws
from tests.aws.release_support import REGION, Client, Worldclock
from tests.unit.release_support import packaged

pytestmark = pytest.mark.aws

NAMES = ("zones", "convert", "meetings", "meta")


def deploy_with_osls(service: Worldclock, *words: str) -> None:
    """Deploys with osls alone, as a user without hitless does."""
    osls = find_osls(service.folder, service.environ)
    done = subprocess.run(
        [*osls.command, "deploy", "--stage", "prod", *words], cwd=service.folder, env=dict(osls.environ),
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_adopting_a_plain_stack_and_then_releasing_fails_no_request(aws: EmulatedAws, tmp_path: Path) -> None:
    service = Worldclock.new(aws, tmp_path)
    deploy_with_osls(service)
    (before,) = service.stages()
    with Client(service.url + "/version") as client:
        refused = service.run("deploy")
        assert (refused.code, "hitless aws adopt" in refused.json["error"]["hint"]) == (1, True), refused.err
        assert "built" not in refused.err, "it is refused before anything is done"
        _reports_an_obstacle(service)

        adopted = service.run("adopt", "--yes")
        assert adopted.code == 0, adopted.err
        assert (adopted.json["outcome"], adopted.json["release"]) == ("live", 1)
        _serves_the_previous_code_through_aliases(service, before["deploymentId"])
        again = service.run("adopt", "--yes")
        assert (again.code, again.json["outcome"]) == (0, "unchanged"), again.err

        service.mark("second")
        second = service.run("deploy", "--strategy", "Canary10Percent1Minute")
        assert (second.code, second.json["outcome"], second.json["release"]) == (0, "live", 2), second.err
        weights = [(step["state"], step["weight_percent"]) for step in second.json["steps"]]
        assert ("guard", 100) in weights, "each function gets a role of its own"
        assert not {10} & {weight for _, weight in weights}, "between two roles nothing is shared"
        assert service.run("status").json["versions"] == dict.fromkeys(NAMES, "2")

        back = service.run("rollback")
        assert (back.code, back.json["outcome"], back.json["release"]) == (0, "live", 1), back.err
        assert service.run("status").json["versions"] == dict.fromkeys(NAMES, "1")
    assert client.asked > 50
    assert client.failed == 0, client.statuses


@pytest.mark.parametrize("version", [None, "1"], ids=["no versions", "versions published"])
def test_each_template_of_an_adoption_passes_cfn_lint(version: str | None, tmp_path: Path) -> None:
    template = packaged().template
    stack = Stack("worldclock-prod", "worldclock-prod", "UPDATE_COMPLETE", "", {}, {}, {}, protected=False)
    running = {ids: Running(name, "a" * 64, 1000, version) for ids, name in functions_in(template).items()}
    stage = {"deploymentId": "d", "stageName": "prod", "methodSettings": {"*/*": {"metricsEnabled": True}}}
    seen = PlainStack(stack, template, {BUCKET_ID: "worldclock-prod-serverlessdeploymentbucket-1"}, stage, running)
    imported = with_stage(template, stage)
    wanted = adopted(imported, seen, number=1)
    first = expanded(wanted, imported, seen)
    after = contracted(wanted, LiveState(first, dict.fromkeys((ids.alias for ids in running), "1")))
    paths = []
    for name, one in (("import", imported), ("expand", first), ("contract", after)):
        paths.append(str(tmp_path / f"{name}.json"))
        Path(paths[-1]).write_text(json.dumps(one))
    lint = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([str(lint), *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def _reports_an_obstacle(service: Worldclock) -> None:
    """Sets a variable of the stage; a dry run then reports it and changes nothing."""
    apigateway = service.aws.client("apigateway", REGION)
    (api,) = apigateway.get_rest_apis()["items"]
    where, path = {"restApiId": api["id"], "stageName": "prod"}, "/variables/theirs"
    apigateway.update_stage(**where, patchOperations=[{"op": "replace", "path": path, "value": "x"}])
    dry = service.run("adopt", "--dry-run")
    assert (dry.code, dry.json["phase"], dry.json["steps"]) == (1, "plain", []), dry.err
    assert [one["what"].partition(";")[0] for one in dry.json["refused"]] == ["the stage has stage variables"]
    apigateway.update_stage(**where, patchOperations=[{"op": "remove", "path": path}])


def _serves_the_previous_code_through_aliases(service: Worldclock, plain_deployment: str) -> None:
    (stage,) = service.stages()
    assert stage["deploymentId"] != plain_deployment
    state = service.run("status").json
    assert (state["release"], state["versions"]) == (1, dict.fromkeys(NAMES, "1")), "osls had published what runs"
    record = service.run("releases").json[0]
    bucket, s3 = "worldclock-prod-artifacts", service.aws.client("s3", REGION)
    for digest in record["artifacts"].values():
        assert s3.head_object(Bucket=bucket, Key=f"artifacts/{digest.removeprefix('sha256:')}.zip")["ContentLength"]
