"""The minimum of permissions that AWS documents for each action provider and service role that we use.

An emulator enforces none of them, so a role without one would fail on a real account alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.aws.front.calls import ACCOUNT
from tests.aws.iam.roles import REGION
from tests.aws.iam.simulate import Question

_HERE = f"{REGION}:{ACCOUNT}"
_BUCKET = "arn:aws:s3:::clock-pipeline-dev-pipelinebucket-1"
_OBJECT = f"{_BUCKET}/clock-dev/Sources/1a2b"
_CONNECTIONS = tuple(
    f"arn:aws:{prefix}:{_HERE}:connection/clock-pipeline-dev-github-1"
    for prefix in ("codeconnections", "codestar-connections")
)
_NO_OUTPUT = "no action of a build has output artifacts, and who writes there could release anything"


@dataclass(frozen=True)
class Minimum:
    """What `source` lists. `left_out`: action → why the role does without."""

    who: str
    source: str
    asked: Sequence[Question]
    left_out: Mapping[str, str] = field(default_factory=dict)


def _on(resource: str, *actions: str, **context: str) -> list[Question]:
    return [
        Question(action, resource, {key.replace("__", ":"): one for key, one in context.items()}) for action in actions
    ]


def _connection(*actions: str) -> list[Question]:
    """By the name of the service that the ARN has (Developer Tools console user guide, security-iam)."""
    return [
        Question(f"{prefix}:{action}", arn, {f"{prefix}:FullRepositoryId": "anna/clock"})
        for prefix, arn in zip(("codeconnections", "codestar-connections"), _CONNECTIONS, strict=True)
        for action in actions
    ]


def _build(who: str, stream: str) -> Minimum:
    builds = f"arn:aws:logs:{_HERE}:log-group:/hitless/clock/dev/builds"
    return Minimum(
        who,
        "CodeBuild user guide, setting-up-service-role: policy of the service role",
        [
            *_on(builds, "logs:CreateLogGroup"),
            *_on(f"{builds}:log-stream:{stream}/1a2b", "logs:CreateLogStream", "logs:PutLogEvents"),
            *_on(_OBJECT, "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"),
            *_on(_BUCKET, "s3:GetBucketAcl", "s3:GetBucketLocation"),
            *_on("*", "codecommit:GitPull", "ecr:GetAuthorizationToken"),
        ],
        {
            "s3:PutObject": _NO_OUTPUT,
            "codecommit:GitPull": "sources come from GitHub",
            "ecr:GetAuthorizationToken": "the image is CodeBuild's own",
        },
    )


PROVIDERS: Final[Mapping[str, Minimum]] = {
    "CodeStarSourceConnection": Minimum(
        "PipelineRole",
        "CodePipeline user guide, action-reference-CodestarConnectionSource: service role permissions",
        [
            *_connection("UseConnection"),
            *_on(_OBJECT, "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:PutObjectAcl"),
            *_on(_BUCKET, "s3:GetBucketAcl", "s3:GetBucketLocation", "s3:GetBucketVersioning"),
        ],
    ),
    "CodeBuild": Minimum(
        "PipelineRole",
        "CodePipeline user guide, action-reference-CodeBuild: service role permissions",
        _on(
            f"arn:aws:codebuild:{_HERE}:project/clock-dev-test",
            *("codebuild:BatchGetBuilds", "codebuild:StartBuild"),
            *("codebuild:BatchGetBuildBatches", "codebuild:StartBuildBatch"),
        ),
        {
            "codebuild:BatchGetBuildBatches": "no action asks for a batch (BatchEnabled)",
            "codebuild:StartBuildBatch": "no action asks for a batch (BatchEnabled)",
        },
    ),
    "Manual": Minimum(
        "PipelineRole",
        "CodePipeline user guide, approvals-service-role-permissions",
        _on(f"arn:aws:sns:{_HERE}:clock-dev-pipeline", "sns:Publish"),
    ),
}
"""By the provider in an action's ActionTypeId."""

SERVICE_ROLES: Final[Sequence[Minimum]] = (
    Minimum(
        "PipelineRole",
        "CodePipeline user guide, how-to-custom-role: service role policy",
        [
            *_on(_BUCKET, "s3:GetBucketVersioning", "s3:GetBucketAcl", "s3:GetBucketLocation"),
            *_on(_OBJECT, "s3:PutObject", "s3:PutObjectAcl", "s3:GetObject", "s3:GetObjectVersion"),
        ],
    ),
    _build("TestRole", "test"),
    _build("DeployBuildRole", "deploy"),
    Minimum(
        "PullRequestRole",
        "CodeBuild user guide, connections-github-app: policy of the service role",
        _connection("GetConnection", "GetConnectionToken", "UseConnection"),
    ),
    Minimum(
        "FlowLogRole",
        "VPC user guide, flow-logs-iam-role",
        [
            *_on(f"arn:aws:logs:{_HERE}:log-group:/hitless/clock/dev/vpc", "logs:CreateLogGroup"),
            *_on(
                f"arn:aws:logs:{_HERE}:log-group:/hitless/clock/dev/vpc:log-stream:eni-1-all",
                *("logs:CreateLogStream", "logs:PutLogEvents"),
            ),
            *_on(f"arn:aws:logs:{_HERE}:log-group:/hitless/clock/dev/vpc", "logs:DescribeLogStreams"),
            *_on("*", "logs:DescribeLogGroups"),
        ],
    ),
)

CODEDEPLOY: Final = (
    "CodeDeploy user guide, managed policy AWSCodeDeployRoleForLambdaLimited",
    {
        "cloudwatch:DescribeAlarms": "",
        "lambda:GetAlias": "",
        "lambda:GetProvisionedConcurrencyConfig": "",
        "lambda:UpdateAlias": "",
        "lambda:InvokeFunction": "only if the stage has hooks, and only those",
        "s3:GetObject": "the revision is given with the deployment (AppSpecContent), no object holds it",
        "s3:GetObjectVersion": "the revision is given with the deployment (AppSpecContent), no object holds it",
    },
)
"""The role in the service's stack: action → why a release without hooks leaves it out; empty if it must be there."""
