"""Kills the adoption of a plain stack at each step under load and repeats it; then ships until nothing of the plain
stack is left.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.aws.emulated import EmulatedAws
from tests.aws.release_support import REGION, Client, Worldclock
from tests.aws.test_adoption import NAMES, deploy_with_osls

pytestmark = [pytest.mark.aws, pytest.mark.long]

STEPS = ("importing", "expanding", "testing", "moving")


def kill_at_step(process: subprocess.Popen[str], word: str) -> None:
    """Sends SIGKILL as soon as the command reports that step. CloudFormation and osls continue their work."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(word):
            process.kill()
            break
    process.communicate()
    assert process.returncode == -9, f"{word} was never said"


def test_an_adoption_killed_at_each_step_can_be_repeated_and_fails_no_request(aws: EmulatedAws, tmp_path: Path) -> None:
    service = Worldclock.new(aws, tmp_path)
    service.edit("serverless.yml", "provider:\n", "provider:\n  versionFunctions: false\n")
    deploy_with_osls(service)
    with Client(service.url + "/version") as client:
        for step in STEPS:
            kill_at_step(service.start("adopt", "--yes"), step)
            assert service.get("/version")[0] == 200
            if step == "testing":
                refused = service.run("deploy")
                assert (refused.code, "only partly adopted" in refused.err) == (1, True), refused.err
                unasked = service.run("adopt")
                assert (unasked.code, "pass --yes" in unasked.err) == (1, True), unasked.err
        done = service.run("adopt", "--yes")
        assert (done.code, done.json["release"]) == (0, 1), done.err
        assert service.run("status").json["versions"] == dict.fromkeys(NAMES, "1")
        assert [one["outcome"] for one in service.run("releases").json] == ["live"]
        for number in (2, 3, 4):
            service.mark(f"release {number}")
            shipped = service.run("deploy", "--strategy", "AllAtOnce")
            assert (shipped.code, shipped.json["release"]) == (0, number), shipped.err
        _has_no_resources_of_the_plain_stack(service)
        back = service.run("rollback", "1")
        assert back.code == 1, back.err
        assert "ran under a role that was deleted" in back.err
    assert client.asked > 100
    assert client.failed == 0, client.statuses


def _has_no_resources_of_the_plain_stack(service: Worldclock) -> None:
    cloudformation, s3 = service.aws.client("cloudformation", REGION), service.aws.client("s3", REGION)
    held = cloudformation.describe_stack_resources(StackName="worldclock-prod")["StackResources"]
    names = {one["LogicalResourceId"] for one in held}
    assert not {name for name in names if name.startswith(("ServerlessDeployment", "IamRoleLambdaExecution"))}
    assert len({name for name in names if name.startswith("ApiGatewayDeployment")}) == 1
    buckets = [one["Name"] for one in s3.list_buckets()["Buckets"]]
    assert any("serverlessdeploymentbucket" in name for name in buckets), f"osls' bucket stays: {buckets}"
