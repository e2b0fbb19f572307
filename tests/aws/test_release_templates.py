"""`hitless aws deploy --dry-run` of the example without credentials: its templates pass linter and scanner, which also
reads the templates of core and pipeline.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint

from hitless.aws.template import dump_template, load_template
from tests.aws.release_support import EXAMPLE, HITLESS
from tests.aws.test_core_template import SCANNED, decided

pytestmark = pytest.mark.aws

BIN = Path(sys.executable).parent
CHECKOV = BIN / "checkov"


EVENTS = """\
service: clock
provider: {name: aws, region: us-east-1, runtime: python3.11, stage: "${opt:stage, 'dev'}"}
functions:
  api: {handler: app.handler, events: [{http: GET /time}]}
  jobs:
    handler: app.handler
    url: true
    events:
      - schedule: rate(1 hour)
      - schedule: {rate: ["rate(2 hours)"], method: scheduler}
      - sqs: {arn: "arn:aws:sqs:us-east-1:123456789012:q"}
      - stream: {arn: "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2020"}
      - eventBridge: {pattern: {source: [a.b]}}
      - cloudwatchEvent: {event: {source: [aws.ec2]}}
      - sns: things
      - s3: {bucket: things-of-the-clock, event: "s3:ObjectCreated:*"}
      - iot: {sql: "SELECT * FROM 'a'"}
      - cloudwatchLog: /aws/lambda/hello
"""


def dry_run(place: Path, stage: str, *options: str, service: Path = EXAMPLE) -> dict[str, Any]:
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "HITLESS_"))}
    command = [str(HITLESS), "aws", "deploy", "--stage", stage, "--dry-run", "--json"]
    where = ["--service-dir", str(service), "--data-dir", str(place / "data")]
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
        "AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:worldclock-prod-alarms",
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


@pytest.fixture(scope="module")
def scanned(shown: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """Checkov's failures (check, resource) in the service's template, and in each of ours with all options, with its
    suppressions and without. One run for all, because the scanner takes 10 seconds to start.
    """
    if not CHECKOV.exists():
        pytest.skip("checkov is not installed: scripts/setup --dev")
    folder = tmp_path_factory.mktemp("scan")
    shutil.copy(shown["template"], folder / "service.json")
    for name, chosen in SCANNED.items():
        template = decided(load_template(name), chosen)
        (folder / f"{name}.json").write_text(dump_template(template, indent=1))
        for resource in template["Resources"].values():
            resource.get("Metadata", {}).pop("checkov", None)
        (folder / f"{name}-bare.json").write_text(dump_template(template, indent=1))
    options = ["--framework", "cloudformation", "--skip-download", "-o", "json", "--soft-fail"]
    done = subprocess.run([str(CHECKOV), "-d", str(folder), *options], capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    found: dict[str, set[tuple[str, str]]] = {path.name: set() for path in folder.iterdir()}
    for check in document["results"]["failed_checks"]:
        found[Path(check["file_path"]).name].add((check["check_id"], check["resource"].rpartition(".")[2]))
    assert {Path(check["file_path"]).name for check in document["results"]["passed_checks"]} == found.keys()
    assert document["summary"]["passed"] > 100
    return found


def test_the_security_scanner_finds_nothing_that_is_not_suppressed(scanned: dict[str, set[tuple[str, str]]]) -> None:
    assert scanned["service.json"] == scanned["core.json"] == scanned["pipeline.json"] == set()


@pytest.mark.parametrize("name", ["core", "pipeline"])
def test_every_suppression_matches_a_finding_and_has_a_reason(
    scanned: dict[str, set[tuple[str, str]]], name: str
) -> None:
    skipped = {
        (skip["id"], resource): skip["comment"]
        for resource, one in load_template(name)["Resources"].items()
        for skip in one.get("Metadata", {}).get("checkov", {}).get("skip", [])
    }
    assert set(skipped) == scanned[f"{name}-bare.json"]
    assert all(len(reason) > 40 for reason in skipped.values())


def linted(document: dict[str, Any]) -> list[str]:
    found = (
        lint(Path(document[which]).read_text(), regions=["us-east-1"]) for which in ("template", "expand_template")
    )
    return [str(match) for each in found for match in each]


def test_templates_of_a_service_with_other_events_are_valid_and_its_needed_policy_is_written(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def handler(event, context): return {'statusCode': 200}\n")
    (tmp_path / "serverless.yml").write_text(EVENTS)
    document = dry_run(tmp_path, "dev", service=tmp_path)
    assert linted(document) == []
    needed = json.loads(Path(document["policy"]).read_text())
    makes = {statement["Action"][0] for statement in needed["Statement"]}
    assert makes == {"iot:CreateTopicRule", "logs:PutSubscriptionFilter", "s3:CreateBucket", "sns:CreateTopic"}


@pytest.mark.long
def test_templates_of_a_new_service_are_valid_and_need_no_policy(tmp_path: Path) -> None:
    subprocess.run([str(HITLESS), "init", str(tmp_path / "hello")], capture_output=True, check=True)
    document = dry_run(tmp_path, "dev", service=tmp_path / "hello")
    assert linted(document) == []
    assert document["policy"] is None


def test_the_database_of_the_example_lets_in_the_functions_alone(tmp_path: Path) -> None:
    shown = dry_run(tmp_path, "dev", service=EXAMPLE.parent / "database")
    text = Path(shown["template"]).read_text()
    assert [str(match) for match in lint(text, regions=["us-east-1", "eu-central-1"])] == []
    resources = json.loads(text)["Resources"]
    functions = "sg-00000000000000000"
    assert resources["ApiLambdaFunction"]["Properties"]["VpcConfig"]["SecurityGroupIds"] == [functions]
    (rule,) = resources["DatabaseSecurityGroup"]["Properties"]["SecurityGroupIngress"]
    assert (rule["SourceSecurityGroupId"], rule["FromPort"], rule["ToPort"]) == (functions, 5432, 5432)
    assert not rule.keys() & {"CidrIp", "CidrIpv6", "SourcePrefixListId"}
    assert resources["Database"]["Properties"]["PubliclyAccessible"] is False
    allowed = [action for one in json.loads(Path(shown["policy"]).read_text())["Statement"] for action in one["Action"]]
    made = {
        "ec2:CreateSecurityGroup",
        "ec2:AuthorizeSecurityGroupEgress",
        "rds:CreateDBInstance",
        "rds:CreateDBSubnetGroup",
    }
    assert made <= set(allowed)
