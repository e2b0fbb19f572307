"""From a `git push` to a response of the pushed commit, through the generated pipeline; and the permissions that its
roles used.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.aws.emulated import EmulatedAws
from tests.aws.front.calls import ACCOUNT
from tests.aws.iam.reasons import NOT_RECORDED, RECORDED
from tests.aws.iam.simulate import Question, Role, read_role, refused, verdicts
from tests.aws.pipeline.deployed import definition_of, role_session
from tests.aws.pipeline.driver import Driver, Run

pytestmark = pytest.mark.aws

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-central-1"
PIPELINE = "worldclock-pipeline-dev"
REHEARSAL = "{beside_s: 1, shift_s: 1}"
"""As short as it may be: what changed in an answer shows before any load."""

NEEDS_NO_PERMISSION = {"sts:GetCallerIdentity"}
MAY_BE_REFUSED = {"logs:DeleteLogGroup": "osls tidies a log group that the stage never has; refused, it goes on"}


@dataclass(frozen=True)
class Pushed:
    """The result of a push."""

    aws: EmulatedAws
    work: Path
    driver: Driver
    run: Run

    def role(self, project: str) -> Role:
        iam = self.aws.client("iam", REGION)
        return read_role(iam, self.driver.definition.projects[f"worldclock-dev-{project}"].role_arn)

    @property
    def deploy_role(self) -> Role:
        variables = self.driver.definition.projects["worldclock-dev-deploy"].environment
        return read_role(self.aws.client("iam", REGION), variables["HITLESS_DEPLOY_ROLE_ARN"])


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=A developer", "-c", "user.email=developer@example.com"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new))


def clone(place: Path) -> Path:
    """A clone of a bare repository with the example service in a subfolder, on branch dev, not pushed yet."""
    subprocess.run(["git", "init", "--quiet", "--bare", str(place / "origin.git")], check=True)
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "dev", str(place / "repository")], check=True)
    folder = place / "repository" / "services" / "worldclock"
    ignored = shutil.ignore_patterns(".hitless", "__pycache__", ".pytest_cache")
    shutil.copytree(ROOT / "examples" / "worldclock", folder, ignore=ignored)
    (folder / ".gitignore").write_text(".hitless/\n__pycache__/\n")
    edit(folder / "serverless.yml", "branch: dev\n", f"branch: dev\n        rehearsal: {REHEARSAL}\n")
    git(folder, "remote", "add", "origin", str(place / "origin.git"))
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "The service")
    return folder


@pytest.fixture(scope="module")
def pushed(running_aws: EmulatedAws, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    aws, place = running_aws, tmp_path_factory.mktemp("pipeline")
    aws.front.reset()
    aws.emulator.reset()
    work = clone(place)
    told = ("--stage", "dev", "--repository", "somebody/worldclock", "--package", str(ROOT))
    aws.hitless("aws", "bootstrap", *told, "--yes", folder=work)
    dry = aws.hitless("aws", "bootstrap", *told, "--dry-run", folder=work)
    (template,) = (Path(one["template"]) for one in dry["stacks"] if one["name"] == PIPELINE)
    definition = definition_of(template, PIPELINE, REGION, aws.client)
    sessions = role_session(aws.session_client("sts", REGION))
    driver = Driver(definition, place / "origin.git", place / "builds", aws.environ, sessions)
    assert driver.after_push() == []
    git(work, "push", "--quiet", "origin", "dev")
    (run,) = driver.after_push()
    assert run.succeeded, run.log()
    return Pushed(aws, work, driver, run)


def test_a_push_runs_the_generated_pipeline_and_the_pushed_commit_goes_live(pushed: Pushed) -> None:
    run, aws = pushed.run, pushed.aws
    assert [step.stage for step in run.steps] == ["source", "test", "deploy"]
    assert run.commit == git(pushed.work, "rev-parse", "HEAD")
    url = aws.service_url("worldclock-dev", "dev", REGION)
    with urllib.request.urlopen(f"{url}/version", timeout=60) as answer:
        assert answer.status == 200
        assert json.loads(answer.read())["commit"] == run.commit
    assert pushed.driver.after_push() == [], "a branch that did not move starts nothing"


def test_each_role_is_allowed_every_call_that_it_makes_in_a_release_and_a_rollback(pushed: Pushed) -> None:
    build = pushed.driver.definition.projects["worldclock-dev-deploy"]
    environ = pushed.aws.environ | dict(pushed.driver.credentials(build.role_arn)) | dict(build.environment)
    as_build = replace(pushed.aws, environ=environ)
    with (pushed.work / "worldclock" / "api.py").open("a") as file:
        file.write("\n# another release\n")
    second = as_build.hitless(
        "aws", "deploy", "--stage", "dev", "--strategy", "Canary10Percent5Minutes", folder=pushed.work
    )
    assert (second["outcome"], second["release"]) == ("live", 2)
    assert as_build.hitless("aws", "rollback", "--stage", "dev", folder=pushed.work)["outcome"] == "live"
    as_build.hitless("aws", "logs", "--stage", "dev", folder=pushed.work)

    calls = list(pushed.aws.front.calls)
    for role in (pushed.role("deploy"), pushed.deploy_role):
        made = [call for call in calls if call.principal == role.arn and call.action not in NEEDS_NO_PERMISSION]
        assert made, f"{role.arn} made no call"
        asked = [Question(call.action, resource, call.context) for call in made for resource in call.resources]
        assert refused(role, [one for one in asked if one.action not in MAY_BE_REFUSED]) == []
    releasing = {call.action for call in calls if call.principal == pushed.deploy_role.arn}
    assert {"cloudformation:UpdateStack", "codedeploy:CreateDeployment", "iam:PassRole"} <= releasing
    assert pushed.deploy_role.allowed_actions() - releasing == set(NOT_RECORDED)
    assert releasing - NEEDS_NO_PERMISSION - pushed.deploy_role.allowed_actions() == set(MAY_BE_REFUSED)
    building = {call.action for call in calls if call.principal == pushed.role("deploy").arn} - NEEDS_NO_PERMISSION
    assert building == RECORDED["DeployBuildRole"]


def arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


ANY_STACK = "00000000-0000-0000-0000-000000000000"
NEVER = (
    Question("apigateway:PATCH", f"arn:aws:apigateway:{REGION}::/restapis/abc/stages/prod"),
    Question("cloudformation:DeleteStack", arn("cloudformation", f"stack/worldclock-core-dev/{ANY_STACK}")),
    Question("cloudformation:UpdateStack", arn("cloudformation", f"stack/worldclock-core-dev/{ANY_STACK}")),
    Question("cloudformation:UpdateStack", arn("cloudformation", f"stack/worldclock-prod/{ANY_STACK}")),
    Question("cloudformation:UpdateStack", arn("cloudformation", f"stack/another-dev/{ANY_STACK}")),
    Question("codedeploy:CreateDeployment", arn("codedeploy", "deploymentgroup:another-dev/api")),
    Question("codedeploy:CreateDeployment", arn("codedeploy", "deploymentgroup:worldclock-dev2/api")),
    Question("ec2:DeleteVpc", arn("ec2", "vpc/vpc-1")),
    Question("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/anything"),
    Question("iam:CreateUser", f"arn:aws:iam::{ACCOUNT}:user/somebody"),
    Question("iam:PutRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/worldclock-core-dev-DeployRole"),
    Question(
        "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/Admin", {"iam:PassedToService": "cloudformation.amazonaws.com"}
    ),
    Question("kms:ScheduleKeyDeletion", arn("kms", "key/1")),
    Question("lambda:AddPermission", arn("lambda", "function:worldclock-dev-api:1"), {"lambda:Principal": "*"}),
    Question("lambda:DeleteFunction", arn("lambda", "function:worldclock-dev-api")),
    Question("lambda:InvokeFunction", arn("lambda", "function:another-dev-api")),
    Question("lambda:UpdateAlias", arn("lambda", "function:worldclock-prod-api")),
    Question("route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/Z1"),
    Question("s3:DeleteBucket", "arn:aws:s3:::another-bucket"),
    Question("s3:GetObject", "arn:aws:s3:::another-bucket/key"),
    Question("secretsmanager:GetSecretValue", arn("secretsmanager", "secret:anything-AbCdEf")),
    Question("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/Admin"),
)


@pytest.mark.parametrize("who", ["test", "deploy", "deploy role"])
def test_forbidden_actions_are_denied_to_each_role(pushed: Pushed, who: str) -> None:
    role = pushed.deploy_role if who == "deploy role" else pushed.role(who)
    found = verdicts(role, NEVER)
    assert {one.action: verdict for one, verdict in found.items() if not verdict.endswith("Denied")} == {}


def test_a_first_release_is_not_rehearsed_and_a_breaking_change_fails_the_next_runs_test(
    pushed: Pushed,
) -> None:
    assert "not rehearsed: nothing is live in the stage" in pushed.run.log()
    for file in ("worldclock/handlers/meta.py", "tests/test_api.py"):
        edit(pushed.work / file, '{"status": "ok"}', '{"state": "ok"}')
    edit(
        pushed.work / "worldclock" / "openapi.json",
        '"status": {\n            "const"',
        '"state": {\n            "const"',
    )
    edit(
        pushed.work / "worldclock" / "openapi.json",
        '[\n          "status"\n        ]',
        '[\n          "state"\n        ]',
    )
    git(pushed.work, "commit", "--quiet", "--all", "--message", "A better word, for us")
    git(pushed.work, "push", "--quiet", "origin", "dev")
    (run,) = pushed.driver.after_push()
    assert not run.succeeded
    assert [step.stage for step in run.steps] == ["source", "test"]
    assert "rehearsing against release 1 of dev on AWS" in run.log()
    assert "it may not ship: GET /health: status is gone" in run.log()

    role = pushed.role("test")
    made = [call for call in pushed.aws.front.calls if call.principal == role.arn]
    assert {call.action for call in made} - NEEDS_NO_PERMISSION == {"s3:GetObject", "s3:ListBucket"}
    asked = [Question(call.action, resource, call.context) for call in made for resource in call.resources]
    assert refused(role, [one for one in asked if one.action not in NEEDS_NO_PERMISSION]) == []


def test_the_test_role_can_only_use_its_logs_its_sources_and_the_live_release(pushed: Pushed) -> None:
    role, bucket = pushed.role("test"), "arn:aws:s3:::worldclock-core-dev-artifacts"
    asked = [
        Question("sts:AssumeRole", pushed.deploy_role.arn),
        Question("s3:GetObject", f"{bucket}/zip"),
        Question("s3:GetObject", f"{bucket}/releases/prod/1.json"),
        Question("s3:PutObject", f"{bucket}/releases/dev/1.json"),
        Question("s3:PutObject", f"{bucket}/artifacts/0.zip"),
        Question("s3:ListBucket", bucket),
    ]
    assert set(verdicts(role, asked).values()) == {"ImplicitlyDenied"}


def test_the_policy_check_detects_a_removed_action(pushed: Pushed) -> None:
    whole = pushed.deploy_role
    text = json.dumps(whole.policies).replace("lambda:UpdateAlias", "lambda:ListAliases")
    poorer = Role(whole.arn, tuple(json.loads(text)))
    question = Question("lambda:UpdateAlias", arn("lambda", "function:worldclock-dev-meta"))
    assert refused(whole, [question]) == []
    assert refused(poorer, [question]) == [f"lambda:UpdateAlias on {question.resource}: ImplicitlyDenied"]
