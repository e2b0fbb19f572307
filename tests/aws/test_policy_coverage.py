"""Each action of each role is used by a recorded call or has a written reason, and no reason is left over."""

from __future__ import annotations

import itertools

import pytest

from hitless.aws.template import load_template
from tests.aws.front.calls import ACCOUNT
from tests.aws.iam.reasons import BEYOND_THE_SCHEMAS, ELSEWHERE, REASONS, RECORDED
from tests.aws.iam.roles import REGION, properties_of, role_names, role_of
from tests.aws.iam.simulate import Question, verdicts

pytestmark = pytest.mark.aws

FULLEST = {"Rehearsal": "run", "Tests": "run", "Connection": "ready", "DomainName": "api.example.com"}
ROLES = [(template, name) for template in ("core", "pipeline") for name in role_names(template)]


def test_every_iam_role_has_written_reasons_or_is_tested_elsewhere() -> None:
    assert {name for _, name in ROLES} == set(REASONS) | ELSEWHERE


@pytest.mark.parametrize(("template", "name"), [one for one in ROLES if one[1] not in ELSEWHERE])
def test_a_role_allows_only_actions_that_are_recorded_or_have_a_reason(template: str, name: str) -> None:
    recorded = RECORDED.get(name, frozenset())
    assert role_of(template, name, **FULLEST).allowed_actions() == recorded | set(REASONS[name])
    assert not recorded & set(REASONS[name]), "what is recorded needs no reason"


def test_the_deploy_role_reads_its_own_handlers_logs_and_nobody_elses() -> None:
    role = role_of("core", "DeployRole")
    groups = ("clock-dev-api", "clock-prod-api", "another-dev-api")
    asked = [
        Question("logs:FilterLogEvents", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{name}")
        for name in groups
    ]
    found = verdicts(role, asked)
    assert [found[one] for one in asked] == ["Allowed", "ImplicitlyDenied", "ImplicitlyDenied"]


BUILDS = {"TestRole": "test", "DeployBuildRole": "deploy", "PullRequestRole": "pull-request"}


@pytest.mark.parametrize("name", BUILDS)
def test_a_build_writes_its_own_log_and_no_other(name: str) -> None:
    """CodeBuild names a stream `StreamName/BUILD_ID`. Denied this, no build starts."""
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:clock-pipeline-dev-buildlogs-1"
    actions = ("logs:CreateLogStream", "logs:PutLogEvents")
    asked = {
        (stream, action): Question(action, f"{group}:log-stream:{stream}/1a2b")
        for stream in BUILDS.values()
        for action in actions
    }
    found = verdicts(role_of("pipeline", name, **FULLEST), list(asked.values()))
    assert {one for one, question in asked.items() if found[question] == "Allowed"} == {
        (BUILDS[name], action) for action in actions
    }


def test_the_pipeline_may_do_to_its_bucket_what_aws_documents_as_the_least() -> None:
    """CodePipeline user guide, "CodePipeline service role policy"."""
    bucket = "arn:aws:s3:::clock-pipeline-dev-pipelinebucket-1"
    on_bucket = ("s3:GetBucketAcl", "s3:GetBucketLocation", "s3:GetBucketVersioning")
    on_objects = ("s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:PutObjectAcl")
    asked = [
        *(Question(action, bucket) for action in on_bucket),
        *(Question(action, f"{bucket}/clock/Sources/1a2b") for action in on_objects),
    ]
    found = verdicts(role_of("pipeline", "PipelineRole", **FULLEST), asked)
    assert [one.action for one in asked if found[one] != "Allowed"] == []


def test_a_reason_says_something() -> None:
    reasons = itertools.chain(BEYOND_THE_SCHEMAS.values(), *(one.values() for one in REASONS.values()))
    assert all(len(reason) > 15 for reason in reasons)


@pytest.mark.parametrize(("template", "name"), ROLES)
def test_no_role_is_an_administrator(template: str, name: str) -> None:
    """Nor may one name a service's actions as a whole, or have a policy of AWS's own."""
    assert not [action for action in role_of(template, name, **FULLEST).allowed_actions() if "*" in action]
    assert "ManagedPolicyArns" not in properties_of(template, name, **FULLEST)


def test_every_policy_in_the_templates_is_one_of_a_role_that_is_looked_at() -> None:
    """A group's, a user's or a managed policy would be past the tests above."""
    kinds = {
        resource["Type"]
        for template in ("core", "pipeline")
        for resource in load_template(template)["Resources"].values()
        if resource["Type"].startswith("AWS::IAM::")
    }
    assert kinds == {"AWS::IAM::Role", "AWS::IAM::RolePolicy", "AWS::IAM::ManagedPolicy"}
    managed = [
        name
        for template in ("core", "pipeline")
        for name, resource in load_template(template)["Resources"].items()
        if resource["Type"] == "AWS::IAM::ManagedPolicy"
    ]
    assert managed == ["ServiceBoundary"], "a boundary grants nothing"
