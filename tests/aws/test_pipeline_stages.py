"""One pipeline for several stages: what went live in the first stage is shipped to the next, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aws.emulated import EmulatedAws
from tests.aws.iam.simulate import Question, read_role, refused
from tests.aws.pipeline.deployed import definition_of, role_session
from tests.aws.pipeline.driver import Driver
from tests.aws.test_pipeline_run import NEEDS_NO_PERMISSION, PIPELINE, REGION, ROOT, clone, edit, git

pytestmark = [pytest.mark.aws, pytest.mark.long]


def test_one_pipeline_builds_once_and_promotes_the_bytes_after_an_approval(aws: EmulatedAws, tmp_path: Path) -> None:
    work = clone(tmp_path)
    edit(work / "serverless.yml", "branch: prod\n", "branch: prod\n        approval: manual\n")
    git(work, "commit", "--quiet", "--all", "--message", "Ask before prod")
    told = ("--stage", "dev", "--then", "prod", "--repository", "somebody/worldclock", "--package", str(ROOT))
    aws.hitless("aws", "bootstrap", "--stage", "prod", "--no-pipeline", "--yes", folder=work)
    aws.hitless("aws", "bootstrap", *told, "--yes", folder=work)
    dry = aws.hitless("aws", "bootstrap", *told, "--dry-run", folder=work)
    (template,) = (Path(one["template"]) for one in dry["stacks"] if one["name"] == PIPELINE)
    definition = definition_of(template, PIPELINE, REGION, aws.client)
    asked: list[str] = []

    def approve(question: str) -> bool:
        asked.append(question)
        return True

    sessions = role_session(aws.session_client("sts", REGION))
    driver = Driver(definition, tmp_path / "origin.git", tmp_path / "builds", aws.environ, sessions, approve)
    assert driver.after_push() == []
    git(work, "push", "--quiet", "origin", "dev")
    (run,) = driver.after_push()
    assert run.succeeded, run.log()
    assert [step.stage for step in run.steps] == ["source", "test", "deploy", "approve-prod", "prod"]
    assert asked == ["Promote #{Source.CommitId} of worldclock from dev to prod?"]

    def live(stage: str) -> tuple[str, dict[str, str]]:
        shown = aws.hitless("aws", "releases", "1", "--stage", stage, folder=work)
        return shown["commit"], shown["artifacts"]

    assert live("prod") == live("dev")
    role = read_role(aws.client("iam", REGION), definition.projects["worldclock-prod-deploy"].role_arn)
    made = [call for call in aws.front.calls if call.principal == role.arn and call.action not in NEEDS_NO_PERMISSION]
    asked_for = [Question(call.action, resource, call.context) for call in made for resource in call.resources]
    assert refused(role, asked_for) == []
    assert {"s3:GetObject", "sts:AssumeRole"} <= {call.action for call in made}
