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


def test_every_role_is_accounted_for() -> None:
    assert {name for _, name in ROLES} == set(REASONS) | ELSEWHERE


@pytest.mark.parametrize(("template", "name"), [one for one in ROLES if one[1] not in ELSEWHERE])
def test_a_role_may_do_what_is_recorded_of_it_or_has_a_reason_and_no_more(template: str, name: str) -> None:
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
