"""Who may do what in an account: roles of the stage `dev` against what they must not reach, asked of the simulator.

A function is asked with the right to everything, so that only its boundary answers. docs/aws.md shows the same table.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hitless.cloud.transform.model import short_hash
from tests.aws.front.calls import ACCOUNT
from tests.aws.iam.roles import REGION, role_of, service_boundary
from tests.aws.iam.simulate import Question, Role, verdicts

pytestmark = pytest.mark.aws

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "aws.md"
FULLEST = {"Rehearsal": "run", "Tests": "run", "Connection": "ready", "DomainName": "api.example.com"}
DEPLOY_ROLE = f"arn:aws:iam::{ACCOUNT}:role/clock-core-dev-deployrole-1"
NAMED = f"arn:aws:iam::{ACCOUNT}:role/reports"
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
OTHER_STAGE = {"aws:ResourceTag/hitless:service": "clock", "aws:ResourceTag/hitless:stage": "prod"}
OWN_STAGE = {**OTHER_STAGE, "aws:ResourceTag/hitless:stage": "dev"}


@dataclass(frozen=True)
class Deed:
    """What somebody does. `may`: the columns of those who are allowed it."""

    what: str
    action: str
    resource: str
    may: str = ""
    context: dict[str, str] = field(default_factory=dict)


def arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


def function_role(name: str, **parameters: str) -> Role:
    """A role of the service's stack that is granted everything, within its boundary."""
    return Role(f"arn:aws:iam::{ACCOUNT}:role/{name}", (EVERYTHING,), service_boundary(**parameters))


WHO = {
    "a function": function_role("clock-dev-ApiRole-1"),
    "test": role_of("pipeline", "TestRole", **FULLEST),
    "pull request": role_of("pipeline", "PullRequestRole", **FULLEST),
    "deploy build": role_of("pipeline", "DeployBuildRole", **FULLEST, DeployRoleArn=DEPLOY_ROLE),
    "deploy role": role_of("core", "DeployRole", **FULLEST),
    "CloudFormation": role_of("core", "CloudFormationRole", **FULLEST),
    "pipeline": role_of("pipeline", "PipelineRole", **FULLEST),
}
ARTIFACT = "arn:aws:s3:::clock-core-dev-artifactbucket-1/artifacts/1a2b.zip"
SOURCES = "arn:aws:s3:::clock-pipeline-dev-pipelinebucket-1/clock-dev/Sources/1a2b"
CONNECTION = arn("codeconnections", "connection/clock-pipeline-dev-github-1")
OF_OWN, OF_OTHER = (
    {"codeconnections:FullRepositoryId": one, "codestar-connections:FullRepositoryId": one}
    for one in ("anna/clock", "anna/secrets")
)
DEEDS = (
    Deed("use a table of its own stage", "dynamodb:PutItem", arn("dynamodb", "table/t"), "a function", OWN_STAGE),
    Deed("use a table of another stage", "dynamodb:PutItem", arn("dynamodb", "table/t"), "", OTHER_STAGE),
    Deed(
        "read a secret of another stage",
        "secretsmanager:GetSecretValue",
        arn("secretsmanager", "secret:s-1"),
        "",
        OTHER_STAGE,
    ),
    Deed(
        "start a build of its own stage",
        "codebuild:StartBuild",
        arn("codebuild", "project/clock-dev-deploy"),
        "pipeline",
    ),
    Deed("start a build of prod", "codebuild:StartBuild", arn("codebuild", "project/clock-prod-deploy")),
    Deed("start prod's pipeline", "codepipeline:StartPipelineExecution", arn("codepipeline", "clock-prod")),
    Deed("answer prod's approval", "codepipeline:PutApprovalResult", arn("codepipeline", "clock-prod/approve/Approve")),
    Deed(
        "move an alias",
        "lambda:UpdateAlias",
        arn("lambda", "function:clock-dev-api"),
        "deploy role, CloudFormation",
        OWN_STAGE,
    ),
    Deed("move an alias of prod", "lambda:UpdateAlias", arn("lambda", "function:clock-prod-api"), "", OTHER_STAGE),
    Deed(
        "publish a version",
        "lambda:PublishVersion",
        arn("lambda", "function:clock-dev-api"),
        "CloudFormation",
        OWN_STAGE,
    ),
    Deed(
        "let somebody invoke a function",
        "lambda:AddPermission",
        arn("lambda", "function:clock-dev-api"),
        "CloudFormation",
        OWN_STAGE,
    ),
    Deed("write an artifact", "s3:PutObject", ARTIFACT, "deploy role"),
    Deed("write an artifact of prod", "s3:PutObject", ARTIFACT.replace("-dev-", "-prod-")),
    Deed("write the sources of a run", "s3:PutObject", SOURCES, "pipeline"),
    Deed("become the deploy role", "sts:AssumeRole", DEPLOY_ROLE, "deploy build"),
    Deed("become another role", "sts:AssumeRole", NAMED),
    Deed("read the repository", "codeconnections:UseConnection", CONNECTION, "pull request, pipeline", OF_OWN),
    Deed("read another repository", "codeconnections:UseConnection", CONNECTION, "", OF_OTHER),
    Deed(
        "start a shift",
        "codedeploy:CreateDeployment",
        arn("codedeploy", "deploymentgroup:clock-dev/Api"),
        "deploy role",
    ),
    Deed("answer CodeDeploy for a hook", "codedeploy:PutLifecycleEventHookExecutionStatus", "*", "a function"),
    Deed(
        "change the service's stack",
        "cloudformation:UpdateStack",
        arn("cloudformation", "stack/clock-dev/1"),
        "deploy role",
    ),
    Deed("change core", "cloudformation:UpdateStack", arn("cloudformation", "stack/clock-core-dev/1")),
    Deed("make a role without a boundary", "iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/clock-dev-x"),
)


@pytest.mark.parametrize("who", WHO)
def test_each_role_is_allowed_exactly_the_actions_that_the_table_lists(who: str) -> None:
    role = WHO[who]
    asked = [Question(one.action, one.resource, {"aws:PrincipalArn": role.arn, **one.context}) for one in DEEDS]
    found = verdicts(role, asked)
    assert not [verdict for verdict in found.values() if verdict.startswith("error")]
    allowed = {deed.what for deed, question in zip(DEEDS, asked, strict=True) if found[question] == "Allowed"}
    assert allowed == {deed.what for deed in DEEDS if who in deed.may.split(", ")}


def test_docs_aws_shows_the_same_table() -> None:
    rows = [
        f"| {deed.what} | {' | '.join('✔' if who in deed.may.split(', ') else '' for who in WHO)} |" for deed in DEEDS
    ]
    shown = DOCUMENT.read_text("utf-8")
    assert f"| may | {' | '.join(WHO)} |" in shown
    assert [row for row in rows if row not in shown] == []


def test_a_function_can_assume_only_the_roles_named_at_bootstrap() -> None:
    role = function_role("clock-dev-ApiRole-1", AssumableRoles=NAMED)
    named, other = Question("sts:AssumeRole", NAMED), Question("sts:AssumeRole", f"{NAMED}-2")
    found = verdicts(role, [named, other])
    assert (found[named], found[other]) == ("Allowed", "ImplicitlyDenied")


@pytest.mark.parametrize("name", ["clock-dev-CodeDeployRole-1", "clock-dev-67e13856fd04f242"])
def test_codedeploys_role_can_move_only_the_stages_own_aliases(name: str) -> None:
    """It is in the service's stack. The second name is given if the service's and the stage's are long."""
    role = function_role(name)
    own = Question("lambda:UpdateAlias", arn("lambda", "function:clock-dev-api"), {"aws:PrincipalArn": role.arn})
    other = replace(own, resource=arn("lambda", "function:other-dev-api"))
    alarms = Question("cloudwatch:DescribeAlarms", "*")
    found = verdicts(role, [own, other, alarms])
    assert (found[own], found[other], found[alarms]) == ("Allowed", "ImplicitlyDenied", "Allowed")
    assert short_hash("CodeDeployRole") == "67e13856fd04f242"


@pytest.mark.parametrize("who", ["DeployRole", "CloudFormationRole"])
def test_a_stage_cannot_change_a_function_of_a_stage_whose_name_starts_with_its_own(who: str) -> None:
    """`clock-dev-*` matches clock-dev-eu-api. CloudFormation gives each function its stack's tags."""
    function = arn("lambda", "function:clock-dev-eu-api")
    asked = {
        stage: Question("lambda:UpdateAlias", function, {**OWN_STAGE, "aws:ResourceTag/hitless:stage": stage})
        for stage in ("dev", "dev-eu")
    }
    untagged = Question("lambda:UpdateAlias", function)
    found = verdicts(role_of("core", who, **FULLEST), [*asked.values(), untagged])
    assert [found[one] for one in asked.values()] == ["Allowed", "ExplicitlyDenied"]
    assert found[untagged] == "Allowed", "a function that is new has no tags yet"
