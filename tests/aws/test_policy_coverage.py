"""Each action of each role is used by a recorded call or has a written reason, and no reason is unused."""

from __future__ import annotations

import itertools

import pytest

from hitless.aws.template import load_template
from hitless.cloud.transform.desired import desired
from tests.aws.front.calls import ACCOUNT
from tests.aws.iam.minima import CODEDEPLOY, PROVIDERS, SERVICE_ROLES, Minimum
from tests.aws.iam.reasons import BEYOND_THE_SCHEMAS, DEPLOYS, ELSEWHERE, NOT_RECORDED, REASONS, RECORDED
from tests.aws.iam.roles import REGION, properties_of, role_names, role_of
from tests.aws.iam.simulate import Question, refused, verdicts
from tests.unit.release_support import packaged, release

pytestmark = pytest.mark.aws

FULLEST = {
    "Rehearsal": "run",
    "Tests": "run",
    "Connection": "ready",
    "DomainName": "api.example.com",
    "Second": "staging",
    "Third": "prod",
    "SecondRoleArn": DEPLOYS["staging"],
    "ThirdRoleArn": DEPLOYS["prod"],
}
ROLES = [(template, name) for template in ("core", "pipeline") for name in role_names(template)]


def test_every_iam_role_has_recorded_reasons_or_is_tested_elsewhere() -> None:
    assert {name for _, name in ROLES} == set(REASONS) | ELSEWHERE


@pytest.mark.parametrize(("template", "name"), [one for one in ROLES if one[1] not in ELSEWHERE])
def test_a_role_allows_only_actions_that_are_recorded_or_have_a_reason(template: str, name: str) -> None:
    recorded = RECORDED.get(name, frozenset())
    assert role_of(template, name, **FULLEST).allowed_actions() == recorded | set(REASONS[name])
    assert not recorded & set(REASONS[name]), "what is recorded needs no reason"


def test_the_deploy_role_reads_only_the_logs_of_its_own_handlers() -> None:
    role = role_of("core", "DeployRole")
    groups = ("clock-dev-api", "clock-prod-api", "another-dev-api")
    asked = [
        Question("logs:FilterLogEvents", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{name}")
        for name in groups
    ]
    found = verdicts(role, asked)
    assert [found[one] for one in asked] == ["Allowed", "ImplicitlyDenied", "ImplicitlyDenied"]


def test_the_deploy_role_reads_only_parameters_that_are_named() -> None:
    own, others = (f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/{name}" for name in ("clock/dev/key", "clock/prod/key"))
    asked = [Question("ssm:GetParameter", one) for one in (own, others)]
    named = verdicts(role_of("core", "DeployRole", Readable=own.replace("key", "*")), asked)
    assert [named[one] for one in asked] == ["Allowed", "ImplicitlyDenied"]
    unnamed = verdicts(role_of("core", "DeployRole"), asked)
    assert [unnamed[one] for one in asked] == ["ImplicitlyDenied", "ImplicitlyDenied"]


NEEDS = {**REASONS, "DeployRole": NOT_RECORDED}


@pytest.mark.parametrize("name", NEEDS)
def test_each_need_is_allowed_on_its_resource_and_denied_on_another_services(name: str) -> None:
    template = next(template for template, role in ROLES if role == name)
    needs = NEEDS[name]
    own = [Question(action, need.resource, need.context) for action, need in needs.items()]
    others = [Question(one.action, one.resource.replace("clock", "other"), one.context) for one in own]
    role = role_of(template, name, **FULLEST)
    assert refused(role, own) == []
    found = verdicts(role, others)
    assert [one.action for one in others if "clock" in needs[one.action].resource and found[one] == "Allowed"] == []


BUILDS = {"TestRole": "test", "DeployBuildRole": "deploy", "PullRequestRole": "pull-request"}
BUILDS |= {"SecondBuildRole": "promote-staging", "ThirdBuildRole": "promote-prod"}


@pytest.mark.parametrize("name", BUILDS)
def test_a_build_can_write_only_its_own_log(name: str) -> None:
    """CodeBuild names a stream `StreamName/BUILD_ID`. Denied this, no build starts."""
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/hitless/clock/dev/builds"
    asked = {
        (stream, action): Question(action, f"{group}:log-stream:{stream}/1a2b")
        for stream in BUILDS.values()
        for action in ("logs:CreateLogStream", "logs:PutLogEvents")
    }
    found = verdicts(role_of("pipeline", name, **FULLEST), list(asked.values()))
    assert {stream for (stream, _), question in asked.items() if found[question] == "Allowed"} == {BUILDS[name]}


def test_every_reason_has_more_than_a_few_letters() -> None:
    needs = itertools.chain(*(one.values() for one in NEEDS.values()))
    assert all(len(reason) > 15 for reason in [*BEYOND_THE_SCHEMAS.values(), *(need.reason for need in needs)])


@pytest.mark.parametrize(("template", "name"), ROLES)
def test_no_role_is_an_administrator(template: str, name: str) -> None:
    """Nor does a role have a wildcard for a service's actions, or one of AWS's managed policies."""
    assert not [action for action in role_of(template, name, **FULLEST).allowed_actions() if "*" in action]
    assert "ManagedPolicyArns" not in properties_of(template, name, **FULLEST)


def test_every_policy_in_the_templates_belongs_to_a_checked_role() -> None:
    """The tests above would miss a policy of a group, a user or a managed policy."""
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


@pytest.mark.parametrize(
    "minimum", [*PROVIDERS.values(), *SERVICE_ROLES], ids=lambda one: f"{one.who}-{one.source[:50]}"
)
def test_a_role_has_the_documented_minimum_of_permissions_or_a_reason(minimum: Minimum) -> None:
    template = next(template for template, role in ROLES if role == minimum.who)
    found = verdicts(role_of(template, minimum.who, **FULLEST), minimum.asked)
    denied = {one.action for one, verdict in found.items() if verdict != "Allowed"}
    assert denied == set(minimum.left_out)


def test_each_pipeline_action_has_its_documented_permissions_and_no_build_has_an_output() -> None:
    """A build without output artifacts needs no s3:PutObject, without BatchEnabled no batch."""
    stages = load_template("pipeline")["Resources"]["Pipeline"]["Properties"]["Stages"]
    actions = [action for stage in stages for action in stage.get("Fn::If", ["", stage])[1]["Actions"]]
    assert {one["ActionTypeId"]["Provider"] for one in actions} == set(PROVIDERS)
    builds = [one for one in actions if one["ActionTypeId"]["Provider"] == "CodeBuild"]
    assert len(builds) == 4
    assert not [one for one in builds if "OutputArtifacts" in one or "BatchEnabled" in one["Configuration"]]


def test_codedeploys_role_has_the_documented_minimum_of_permissions_or_a_reason() -> None:
    _, documented = CODEDEPLOY
    role = desired(packaged().template, release())["Resources"]["CodeDeployRole"]["Properties"]
    statements = [one for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"]]
    granted = {action for one in statements for action in one["Action"]}
    assert {action for action in documented if action not in granted} == {one for one, why in documented.items() if why}


def test_a_pull_request_can_use_the_connection_only_for_its_own_repository() -> None:
    """IAM knows no repository for GetConnection and GetConnectionToken (service authorization reference)."""
    role = role_of("pipeline", "PullRequestRole", **FULLEST)
    for prefix in ("codeconnections", "codestar-connections"):
        arn = f"arn:aws:{prefix}:{REGION}:{ACCOUNT}:connection/clock-pipeline-dev-github-1"
        own, other = (
            Question(f"{prefix}:UseConnection", arn, {f"{prefix}:FullRepositoryId": one})
            for one in ("anna/clock", "anna/secrets")
        )
        found = verdicts(role, [own, other])
        assert (found[own], found[other]) == ("Allowed", "ImplicitlyDenied")
