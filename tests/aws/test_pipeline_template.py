"""The pipeline stack: created in two steps, before and after a person's authorisation, repeated, shared, deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.aws.emulated import EmulatedAws

pytestmark = pytest.mark.aws

SERVICE = """\
service: clock
provider: {name: aws, region: us-east-1, runtime: python3.11, stage: "${opt:stage, 'dev'}"}
functions: {api: {handler: app.handler, events: [{http: GET /time}]}}
custom: {hitless: {stages: {dev: {}, staging: {approval: manual}}}}
"""
TOLD = ("--repository", "anna/clock", "--package", "https://example.com/clock.zip")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text("def handler(event, context): return {'statusCode': 200}\n")
    (tmp_path / "serverless.yml").write_text(SERVICE)
    (tmp_path / "buildspec-test.yml").write_text("version: 0.2\n")
    return tmp_path


def resources(aws: EmulatedAws, stack: str) -> set[str]:
    found = aws.session_client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
    return {one["LogicalResourceId"] for one in found}


def pipeline_of(document: dict[str, Any]) -> dict[str, Any]:
    (found,) = (one for one in document["stacks"] if "-pipeline-" in one["name"])
    return dict(found)


def test_the_pipeline_is_created_by_the_next_bootstrap_after_the_connection_is_authorised(
    aws: EmulatedAws, folder: Path
) -> None:
    waiting = aws.hitless("aws", "bootstrap", *TOLD, "--wait", "0", folder=folder, ok=(1,))
    assert waiting["error"]["code"] == "conflict"
    assert "console.aws.amazon.com" in waiting["error"]["hint"]
    assert "Pipeline" not in resources(aws, "clock-pipeline-dev")

    done = aws.hitless("aws", "bootstrap", folder=folder)  # told before, kept since
    assert done["connection"]["status"] == "AVAILABLE"
    assert pipeline_of(done)["outputs"]["PipelineName"] == "clock-dev"
    assert {"Pipeline", "PullRequestProject", "FailureRule"} <= resources(aws, "clock-pipeline-dev")
    assert aws.hitless("aws", "bootstrap", folder=folder) == done


def test_a_second_stage_uses_the_connection_that_is_already_authorised(aws: EmulatedAws, folder: Path) -> None:
    first = aws.hitless("aws", "bootstrap", *TOLD, folder=folder)
    second = aws.hitless("aws", "bootstrap", *TOLD, "--stage", "staging", "--wait", "0", folder=folder)
    assert second["connection"]["arn"] == first["connection"]["arn"]
    assert "GitHub" not in resources(aws, "clock-pipeline-staging")


def test_a_first_bootstrap_requires_its_options_before_it_creates_anything(aws: EmulatedAws, folder: Path) -> None:
    for told, words in ((TOLD[2:], "--repository"), (TOLD[:2], "--package")):
        refused = aws.hitless("aws", "bootstrap", *told, folder=folder, ok=(2,))
        assert words in refused["error"]["hint"]
    assert not [call for call in aws.front.calls if call.operation == "CreateChangeSet"]


def test_destroy_deletes_the_pipeline_with_its_sources_before_the_core_stack(aws: EmulatedAws, folder: Path) -> None:
    outputs = pipeline_of(aws.hitless("aws", "bootstrap", *TOLD, folder=folder))["outputs"]
    aws.client("s3").put_object(Bucket=outputs["PipelineBucketName"], Key="clock-dev/Sources/x", Body=b"x")
    gone = aws.hitless("aws", "destroy", "--yes", "--with-data", folder=folder)
    assert gone["deleted"] == ["clock-pipeline-dev", "clock-core-dev"]
    assert not aws.client("cloudformation").describe_stacks()["Stacks"]


def test_a_dry_run_calls_no_aws_api_and_writes_the_templates_as_json(folder: Path, aws: EmulatedAws) -> None:
    aws.front.calls.clear()
    dry = aws.hitless("aws", "bootstrap", "--dry-run", folder=folder)
    assert [one["name"] for one in dry["stacks"]] == ["clock-core-dev", "clock-pipeline-dev"]
    for one in dry["stacks"]:
        path = Path(one["template"])
        assert path.is_absolute()
        assert path.suffix == ".json"
        assert all(isinstance(value, str) for value in one["parameters"].values())
    assert aws.front.calls == []
