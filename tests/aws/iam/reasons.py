"""Why each role of ours is allowed what it is where no call in a test shows it: {role: {action: reason}}.

The deploy role's calls are recorded in test_pipeline_run.py, which has the reasons for what is left; what the
CloudFormation role is for stands in CloudFormation's own schemas (test_core_template.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SOURCES = "CodeBuild fetches the pipeline's sources by the project's role"
_LOG = "CodeBuild writes the build's log by the project's role"
_REPORT = "CodeBuild puts the results that buildspec-test.yml names as reports there"
_REHEARSAL = "`hitless rehearse --against aws` looks for what is live"
_CONNECTION = "CodeBuild clones the pull request and reports its status through the connection"
_LEAST = "the least that CodePipeline's user guide lists for its service role"
_FORMER = "the connection's service under its former name, which AWS still asks for in places"

REASONS: Final[Mapping[str, Mapping[str, str]]] = {
    "FlowLogRole": {
        "logs:CreateLogStream": "a network interface's flow log is a stream of its own",
        "logs:DescribeLogStreams": "VPC looks whether it is there (VPC user guide, flow logs to CloudWatch)",
        "logs:PutLogEvents": "the records themselves",
    },
    "PipelineRole": {
        "codebuild:BatchGetBuilds": "CodePipeline follows a step's build",
        "codebuild:StartBuild": "CodePipeline starts a step's build",
        "codebuild:StopBuild": "CodePipeline ends the build of an execution that is stopped",
        "codeconnections:UseConnection": "CodePipeline fetches the commit",
        "codestar-connections:UseConnection": _FORMER,
        "s3:GetBucketAcl": _LEAST,
        "s3:GetBucketLocation": "CodePipeline looks where its artifact store is",
        "s3:GetBucketVersioning": "CodePipeline looks whether its artifact store keeps versions",
        "s3:GetObject": "CodePipeline hands sources from step to step",
        "s3:GetObjectVersion": "CodePipeline names an object's version from step to step",
        "s3:ListBucket": "without it a missing object is told as a denied one",
        "s3:PutObject": "the source step puts the sources there",
        "s3:PutObjectAcl": _LEAST,
        "sns:Publish": "the approval step tells whoever is to answer",
    },
    "TestRole": {
        "codebuild:BatchPutCodeCoverages": _REPORT,
        "codebuild:BatchPutTestCases": _REPORT,
        "codebuild:CreateReport": _REPORT,
        "codebuild:CreateReportGroup": _REPORT,
        "codebuild:UpdateReport": _REPORT,
        "logs:CreateLogStream": _LOG,
        "logs:PutLogEvents": _LOG,
        "s3:GetObject": f"{_SOURCES}; a rehearsal fetches what is live",
        "s3:GetObjectVersion": _SOURCES,
        "s3:ListBucket": _REHEARSAL,
    },
    "DeployBuildRole": {
        "logs:CreateLogStream": _LOG,
        "logs:PutLogEvents": _LOG,
        "s3:GetObject": _SOURCES,
        "s3:GetObjectVersion": _SOURCES,
    },
    "PullRequestRole": {
        "codeconnections:GetConnection": _CONNECTION,
        "codeconnections:GetConnectionToken": _CONNECTION,
        "codeconnections:UseConnection": _CONNECTION,
        "codestar-connections:GetConnection": _FORMER,
        "codestar-connections:GetConnectionToken": _FORMER,
        "codestar-connections:UseConnection": _FORMER,
        "logs:CreateLogStream": _LOG,
        "logs:PutLogEvents": _LOG,
    },
}

RECORDED: Final[Mapping[str, frozenset[str]]] = {"DeployBuildRole": frozenset({"sts:AssumeRole"})}
"""What test_pipeline_run.py sees these roles do."""

ELSEWHERE: Final = frozenset({"DeployRole", "CloudFormationRole"})
"""Roles whose every action is accounted for in the tests named above."""

BEYOND_THE_SCHEMAS: Final[Mapping[str, str]] = {
    "codedeploy:UpdateApplication": "the application's own update, which its schema leaves out",
    "lambda:GetFunctionConcurrency": "CloudFormation reads a function back once it has changed it",
    "lambda:InvokeFunction": "custom resources whose function is the service's own",
    "lambda:ListTags": "CloudFormation reads a function back once it has changed it",
    "logs:DeleteLogDelivery": "API Gateway asks it of whoever turns a stage's access log off",
    "logs:GetLogDelivery": "API Gateway asks it of whoever turns a stage's access log on",
    "logs:ListLogDeliveries": "API Gateway asks it of whoever turns a stage's access log on",
    "logs:ListTagsLogGroup": "the former name of ListTagsForResource, which older handlers call",
    "logs:UpdateLogDelivery": "API Gateway asks it of whoever turns a stage's access log on",
}
"""What the CloudFormation role may do that no schema of a type in a service stack names."""
