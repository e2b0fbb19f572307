"""From a `git push` to an answer with the pushed commit, through the pipeline that bootstrap generated."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.aws.emulated import EmulatedAws
from tests.aws.pipeline.deployed import definition_of, role_session
from tests.aws.pipeline.driver import Driver

pytestmark = [pytest.mark.aws, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-central-1"
PIPELINE = "worldclock-pipeline-dev"


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=A developer", "-c", "user.email=developer@example.com"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone of a bare repository with the example service in it, on branch dev, not yet pushed."""
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "origin.git")], check=True)
    folder = tmp_path / "worldclock"
    ignored = shutil.ignore_patterns(".hitless", "__pycache__", ".pytest_cache")
    shutil.copytree(ROOT / "examples" / "worldclock", folder, ignore=ignored)
    (folder / ".gitignore").write_text(".hitless/\n__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch", "dev")
    git(folder, "remote", "add", "origin", str(tmp_path / "origin.git"))
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "The service")
    return folder


def test_a_push_runs_the_generated_pipeline_and_the_pushed_commit_answers(
    aws: EmulatedAws, repository: Path, tmp_path: Path
) -> None:
    told = ("--stage", "dev", "--repository", "somebody/worldclock", "--package", str(ROOT))
    aws.hitless("aws", "bootstrap", *told, "--yes", folder=repository)
    dry = aws.hitless("aws", "bootstrap", *told, "--dry-run", folder=repository)
    (template,) = (Path(one["template"]) for one in dry["stacks"] if one["name"] == PIPELINE)
    definition = definition_of(template, PIPELINE, REGION, aws.client)
    driver = Driver(
        definition,
        tmp_path / "origin.git",
        tmp_path / "builds",
        aws.environ,
        role_session(aws.session_client("sts", REGION)),
    )
    assert driver.after_push() == []

    git(repository, "push", "--quiet", "origin", "dev")
    (run,) = driver.after_push()

    assert run.succeeded, run.log()
    assert [step.stage for step in run.steps] == ["source", "test", "deploy"]
    assert run.commit == git(repository, "rev-parse", "HEAD")
    url = aws.service_url("worldclock-dev", "dev", REGION)
    with urllib.request.urlopen(f"{url}/version", timeout=20) as answer:
        assert answer.status == 200
        assert json.loads(answer.read())["commit"] == run.commit
    deploy_role = definition.projects["worldclock-dev-deploy"].environment["HITLESS_DEPLOY_ROLE_ARN"]
    assert {call.principal for call in aws.front.calls if call.operation == "CreateStack"} == {deploy_role}
