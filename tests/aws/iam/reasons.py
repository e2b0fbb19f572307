"""Reasons for allowed actions of our roles that no call in a test shows: {role: {action: need}}.

The deploy role's calls are recorded in test_pipeline_run.py, which has the reasons for what is left; what the
CloudFormation role is for stands in CloudFormation's own schemas (test_core_template.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.aws.front.calls import ACCOUNT
from tests.aws.iam.roles import REGION

_SOURCES = "CodeBuild fetches the pipeline's sources by the project's role"
_LOG = "CodeBuild writes the build's log by the project's role"
_REPORT = "CodeBuild puts the results that buildspec-test.yml names as reports there"
_REHEARSAL = "`hitless rehearse --against aws` looks for what is live"
_CONNECTION = "CodeBuild clones the pull request and reports its status through the connection"
_GROUP = (
    "CodeBuild's minimum: it makes its log group unless it is there (CodeBuild user guide, setting-up-service-role)"
)
_LEAST_OF_BUILDS = "the least that CodeBuild's user guide lists for its service role (setting-up-service-role)"
_LEAST_OF_FLOWS = "the least that the VPC user guide lists for a flow log's role (flow-logs-iam-role)"
_LEAST = "the least that CodePipeline's user guide lists for its service role"
_FORMER = "the connection's service under its former name, which AWS still asks for in places"


@dataclass(frozen=True)
class Need:
    """Why a role is allowed an action, its resource, and the context keys that AWS passes with the call."""

    reason: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


def _on(resource: str, reasons: Mapping[str, str], context: Mapping[str, str] | None = None) -> dict[str, Need]:
    return {action: Need(reason, resource, context or {}) for action, reason in reasons.items()}


_HERE = f"{REGION}:{ACCOUNT}"
_BUCKET = "arn:aws:s3:::clock-pipeline-dev-pipelinebucket-1"
_FLOWS = f"arn:aws:logs:{_HERE}:log-group:/hitless/clock/dev/vpc"
_BUILDS = f"arn:aws:logs:{_HERE}:log-group:/hitless/clock/dev/builds"
_CONNECTION_ARN, _FORMER_ARN = (
    f"arn:aws:{prefix}:{_HERE}:connection/clock-pipeline-dev-github-1"
    for prefix in ("codeconnections", "codestar-connections")
)
DEPLOYS = {stage: f"arn:aws:iam::{ACCOUNT}:role/clock-core-{stage}-deployrole-1" for stage in ("staging", "prod")}
"""The deploy roles of the stages that a pipeline of several stages promotes to."""
_OWN = {"codeconnections:FullRepositoryId": "anna/clock"}
_OWN_FORMERLY = {"codestar-connections:FullRepositoryId": "anna/clock"}


def _build(stream: str) -> dict[str, Need]:
    """CodeBuild names a stream `StreamName/BUILD_ID` (API reference, CloudWatchLogsConfig)."""
    return _on(_BUILDS, {"logs:CreateLogGroup": _GROUP}) | _on(
        f"{_BUILDS}:log-stream:{stream}/1a2b", {"logs:CreateLogStream": _LOG, "logs:PutLogEvents": _LOG}
    )


_LIVE = "`hitless promote` reads what is live in the first stage (docs/homes.md)"


def _promotes(stage: str) -> dict[str, Need]:
    """A build that ships the first stage's release to `stage`."""
    found = _build(f"promote-{stage}")
    found |= _on(f"{_BUCKET}/clock-dev/Sources/1a2b", {"s3:GetObject": _SOURCES, "s3:GetObjectVersion": _SOURCES})
    found |= _on(_BUCKET, {"s3:GetBucketAcl": _LEAST_OF_BUILDS, "s3:GetBucketLocation": _LEAST_OF_BUILDS})
    found |= _on(
        f"arn:aws:cloudformation:{_HERE}:stack/clock-dev/1",
        dict.fromkeys(
            ("cloudformation:DescribeStacks", "cloudformation:GetTemplate", "cloudformation:ListStackResources"), _LIVE
        ),
    )
    found |= _on(
        f"arn:aws:lambda:{_HERE}:function:clock-dev-api",
        dict.fromkeys(("lambda:GetAlias", "lambda:GetFunctionConfiguration"), _LIVE),
    )
    found |= _on("arn:aws:s3:::-", {"s3:ListBucket": _LIVE}, {"s3:prefix": "releases/dev/"})
    return found | _on(DEPLOYS[stage], {"sts:AssumeRole": "it ships as that stage's deploy role"})


REASONS: Final[Mapping[str, Mapping[str, Need]]] = {
    "FlowLogRole": _on("*", {"logs:DescribeLogGroups": _LEAST_OF_FLOWS})
    | _on(_FLOWS, {"logs:CreateLogGroup": _LEAST_OF_FLOWS})
    | _on(
        f"{_FLOWS}:log-stream:eni-1-all",
        {
            "logs:CreateLogStream": "a network interface's flow log is a stream of its own",
            "logs:PutLogEvents": "the records themselves",
        },
    )
    | _on(
        f"{_FLOWS}:*",
        {"logs:DescribeLogStreams": "VPC looks whether it is there (VPC user guide, flow logs to CloudWatch)"},
    ),
    "PipelineRole": _on(
        f"arn:aws:codebuild:{_HERE}:project/clock-dev-deploy",
        {
            "codebuild:BatchGetBuilds": "CodePipeline follows a step's build",
            "codebuild:StartBuild": "CodePipeline starts a step's build",
            "codebuild:StopBuild": "CodePipeline ends the build of an execution that is stopped",
        },
    )
    | _on(_CONNECTION_ARN, {"codeconnections:UseConnection": "CodePipeline fetches the commit"}, _OWN)
    | _on(_FORMER_ARN, {"codestar-connections:UseConnection": _FORMER}, _OWN_FORMERLY)
    | _on(
        _BUCKET,
        {
            "s3:GetBucketAcl": _LEAST,
            "s3:GetBucketLocation": "CodePipeline looks where its artifact store is",
            "s3:GetBucketVersioning": "CodePipeline looks whether its artifact store keeps versions",
            "s3:ListBucket": "without it a missing object is told as a denied one",
        },
    )
    | _on(
        f"{_BUCKET}/clock-dev/Sources/1a2b",
        {
            "s3:GetObject": "CodePipeline hands sources from step to step",
            "s3:GetObjectVersion": "CodePipeline names an object's version from step to step",
            "s3:PutObject": "the source step puts the sources there",
            "s3:PutObjectAcl": _LEAST,
        },
    )
    | _on(
        f"arn:aws:sns:{_HERE}:clock-dev-pipeline",
        {"sns:Publish": "the approval step tells whoever is to answer"},
    ),
    "TestRole": _build("test")
    | _on(
        f"arn:aws:codebuild:{_HERE}:report-group/clock-dev-test-tests",
        {
            "codebuild:BatchPutCodeCoverages": _REPORT,
            "codebuild:BatchPutTestCases": _REPORT,
            "codebuild:CreateReport": _REPORT,
            "codebuild:CreateReportGroup": _REPORT,
            "codebuild:UpdateReport": _REPORT,
        },
    )
    | _on(
        f"{_BUCKET}/clock-dev/Sources/1a2b",
        {"s3:GetObject": f"{_SOURCES}; a rehearsal fetches what is live", "s3:GetObjectVersion": _SOURCES},
    )
    | _on(_BUCKET, {"s3:GetBucketAcl": _LEAST_OF_BUILDS, "s3:GetBucketLocation": _LEAST_OF_BUILDS})
    | _on("arn:aws:s3:::-", {"s3:ListBucket": _REHEARSAL}, {"s3:prefix": "releases/dev/"}),
    "DeployBuildRole": _build("deploy")
    | _on(f"{_BUCKET}/clock-dev/Sources/1a2b", {"s3:GetObject": _SOURCES, "s3:GetObjectVersion": _SOURCES})
    | _on(_BUCKET, {"s3:GetBucketAcl": _LEAST_OF_BUILDS, "s3:GetBucketLocation": _LEAST_OF_BUILDS}),
    "SecondBuildRole": _promotes("staging"),
    "ThirdBuildRole": _promotes("prod"),
    "PullRequestRole": _build("pull-request")
    | _on(
        _CONNECTION_ARN,
        {
            "codeconnections:GetConnection": _CONNECTION,
            "codeconnections:GetConnectionToken": _CONNECTION,
        },
    )
    | _on(
        _FORMER_ARN,
        {
            "codestar-connections:GetConnection": _FORMER,
            "codestar-connections:GetConnectionToken": _FORMER,
        },
    )
    | _on(_CONNECTION_ARN, {"codeconnections:UseConnection": _CONNECTION}, _OWN)
    | _on(_FORMER_ARN, {"codestar-connections:UseConnection": _FORMER}, _OWN_FORMERLY),
}

_STACK = f"arn:aws:cloudformation:{_HERE}:stack/clock-dev/1"
_API = f"arn:aws:lambda:{_HERE}:function:clock-dev-api"
_MORE = "a release with resources beyond a plain service's, before anything changes"
_OLD = "once a stage has had more releases than it keeps versions of"
_SCALED = "where a function's provisionedConcurrency is scaled"
_READY = "where a function has provisionedConcurrency"
_SCALING = "lambda.application-autoscaling.amazonaws.com"

NOT_RECORDED: Final[Mapping[str, Need]] = {
    **_on(
        _STACK,
        {
            "cloudformation:ContinueUpdateRollback": "a stack whose roll-back failed, which the emulator never has",
            "cloudformation:DeleteStack": "a first release that never came up",
            "cloudformation:RollbackStack": "a stack whose update failed and was left there",
        },
    ),
    **_on(
        f"arn:aws:iam::{ACCOUNT}:role/clock-core-dev-cloudformationrole-1",
        {
            "iam:GetRolePolicy": _MORE,
            "iam:ListAttachedRolePolicies": _MORE,
            "iam:ListRolePolicies": _MORE,
        },
    ),
    **_on(
        "*",
        {
            "codedeploy:GetDeploymentTarget": "how a hook ended, where the stage has one",
            "codedeploy:StopDeployment": "a release of which one function fails, or hitless aws abort",
            "cloudwatch:DescribeAlarms": "where a stage names alarms of its own, and after AllAtOnce",
            "lambda:GetAccountSettings": "where a function has provisionedConcurrency or reservedConcurrency",
        },
    ),
    **_on(
        f"arn:aws:codedeploy:{_HERE}:deploymentgroup:clock-dev/Api",
        {"codedeploy:GetDeploymentGroup": "where an alarm of the stage's own rings already"},
    ),
    **_on(
        _API,
        {
            "lambda:GetFunction": "hitless aws repair, of an artifact that the bucket has lost",
            "lambda:ListVersionsByFunction": _OLD,
            "lambda:GetPolicy": "hitless aws status and repair: who may invoke an alias",
        },
    ),
    **_on(
        f"{_API}:*",
        {"lambda:DeleteFunction": _OLD},
    ),
    **_on(
        f"{_API}:*",  # of one version the simulator asks whether it is an alias, whose ARN has the same form
        {
            "lambda:DeleteProvisionedConcurrencyConfig": _READY,
            "lambda:GetProvisionedConcurrencyConfig": _READY,
            "lambda:PutProvisionedConcurrencyConfig": _READY,
        },
    ),
    **_on(
        f"arn:aws:application-autoscaling:{_HERE}:scalable-target/1",
        {
            "application-autoscaling:DeregisterScalableTarget": _SCALED,
            "application-autoscaling:PutScalingPolicy": _SCALED,
            "application-autoscaling:RegisterScalableTarget": _SCALED,
        },
        {"application-autoscaling:service-namespace": "lambda"},
    ),
    **_on(
        f"arn:aws:cloudwatch:{_HERE}:alarm:TargetTracking-function:clock-dev-api:1-AlarmHigh",
        {"cloudwatch:DeleteAlarms": _SCALED, "cloudwatch:PutMetricAlarm": _SCALED},
    ),
    **_on(
        f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/{_SCALING}/AWSServiceRoleForApplicationAutoScaling_Lambda",
        {"iam:CreateServiceLinkedRole": "the first function of an account that is scaled"},
        {"iam:AWSServiceName": _SCALING},
    ),
}
"""What the deploy role may do without a call in test_pipeline_run.py. Stale entries fail there."""

RECORDED: Final[Mapping[str, frozenset[str]]] = {"DeployBuildRole": frozenset({"sts:AssumeRole"})}
"""What test_pipeline_run.py sees these roles do."""

ELSEWHERE: Final = frozenset({"DeployRole", "CloudFormationRole"})
"""Roles whose every action is accounted for in the tests named above."""

BEYOND_THE_SCHEMAS: Final[Mapping[str, str]] = {
    "codedeploy:UpdateApplication": "the application's own update, which its schema leaves out",
    "lambda:GetFunctionConcurrency": "CloudFormation reads a function back once it has changed it",
    "lambda:InvokeFunction": "custom resources whose function is the service's own",
    "logs:DeleteLogDelivery": "API Gateway asks it of whoever turns a stage's access log off",
    "logs:GetLogDelivery": "API Gateway asks it of whoever turns a stage's access log on",
    "logs:ListLogDeliveries": "API Gateway asks it of whoever turns a stage's access log on",
    "logs:ListTagsLogGroup": "the former name of ListTagsForResource, which older handlers call",
    "logs:UpdateLogDelivery": "API Gateway asks it of whoever turns a stage's access log on",
}
"""What the CloudFormation role may do that no schema of a type in a service stack names."""
