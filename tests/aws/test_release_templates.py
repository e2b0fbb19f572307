"""`hitless aws deploy --dry-run` of the example without credentials: its templates pass linter and scanner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.aws.release_support import EXAMPLE, HITLESS

pytestmark = pytest.mark.aws

BIN = Path(sys.executable).parent


def dry_run(place: Path, stage: str, *options: str) -> dict[str, Any]:
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "HITLESS_"))}
    command = [str(HITLESS), "aws", "deploy", "--stage", stage, "--dry-run", "--json"]
    where = ["--service-dir", str(EXAMPLE), "--data-dir", str(place / "data")]
    done = subprocess.run([*command, *where, *options], env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("dry-run")
    core = place / "core.json"
    outputs = {
        "ArtifactBucketName": "worldclock-artifacts",
        "PrivateSubnetIds": "subnet-0123456789abcdef0",
        "LambdaSecurityGroupId": "sg-0123456789abcdef0",
        "ApiDomainName": "api.example.com",
    }
    core.write_text(json.dumps(outputs))
    return dry_run(place, "prod", "--core-outputs", str(core), "--strategy", "Canary5Percent90Seconds")


def test_a_dry_run_writes_both_templates_and_the_list_of_changes(shown: dict[str, Any]) -> None:
    final = json.loads(Path(shown["template"]).read_text())
    first = json.loads(Path(shown["expand_template"]).read_text())
    assert final["Resources"]["ZonesLambdaFunction"]["Properties"]["Code"]["S3Bucket"] == "worldclock-artifacts"
    (mapping,) = (one for name, one in final["Resources"].items() if name.startswith("ApiDomainMapping"))
    assert mapping["Properties"]["DomainName"] == "api.example.com"
    assert "ApiGatewayStage" not in first["Resources"]
    assert {change["action"] for change in shown["changes"]} == {"add"}
    assert {change["resource"] for change in shown["changes"]} == final["Resources"].keys()
    assert not any(change["replaces"] for change in shown["changes"])


@pytest.mark.parametrize("which", ["template", "expand_template"])
def test_the_linter_accepts_both_templates(shown: dict[str, Any], which: str) -> None:
    done = subprocess.run([str(BIN / "cfn-lint"), shown[which]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_security_scanner_accepts_the_template(shown: dict[str, Any]) -> None:
    checkov = BIN / "checkov"
    if not checkov.exists():
        pytest.skip("checkov is not installed: scripts/setup --dev")
    done = subprocess.run(
        [str(checkov), "-f", shown["template"], "--framework", "cloudformation", "--quiet", "--compact",
         "--skip-download"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
