"""Bootstrap's options for who may release: set, kept and removed; and a pipeline in an account of its own.

The emulator's CloudFormation leaves a role's boundary out; that the templates give it is in test_identity.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.aws.emulated import EmulatedAws
from tests.aws.front.calls import ACCOUNT

pytestmark = pytest.mark.aws

SERVICE = """\
service: clock
provider: {name: aws, region: us-east-1, runtime: python3.11, stage: "${opt:stage, 'dev'}"}
functions: {api: {handler: app.handler, events: [{http: GET /time}]}}
custom: {hitless: {stages: {dev: {branch: main}, staging: {}}}}
"""
TOOLS = "210987654321"
BUILD = f"arn:aws:iam::{TOOLS}:role/hitless/clock-dev-deploy-build"
TOLD = ("--trust", BUILD, "--external-id", "release-7", "--github-oidc", "--repository", "anna/clock")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text("def handler(event, context): return {'statusCode': 200}\n")
    (tmp_path / "serverless.yml").write_text(SERVICE)
    return tmp_path


def role_named(aws: EmulatedAws, stack: str, logical: str) -> dict[str, Any]:
    found = aws.client("cloudformation").describe_stack_resource(StackName=stack, LogicalResourceId=logical)
    name = found["StackResourceDetail"]["PhysicalResourceId"]
    return dict(aws.client("iam").get_role(RoleName=name)["Role"])


def trusted(aws: EmulatedAws) -> list[dict[str, Any]]:
    """The principals that the deploy role trusts besides the stage's own pipeline."""
    statements: list[dict[str, Any]] = role_named(aws, "clock-core-dev", "DeployRole")["AssumeRolePolicyDocument"][
        "Statement"
    ]
    return statements[1:]


def boundary_of_releases(aws: EmulatedAws) -> str:
    """The boundary that the core stack sets for roles of the service's stack."""
    (stack,) = aws.client("cloudformation").describe_stacks(StackName="clock-core-dev")["Stacks"]
    found = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    return str(found["PermissionsBoundaryArn"])


def test_bootstrap_sets_keeps_and_removes_trust(aws: EmulatedAws, folder: Path) -> None:
    def bootstrap(*options: str) -> None:
        aws.hitless("aws", "bootstrap", "--no-pipeline", *options, folder=folder)

    statement = {"Effect": "Allow", "NotAction": "organizations:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    made = aws.client("iam").create_policy(PolicyName="organisation", PolicyDocument=document)
    organisation = made["Policy"]["Arn"]
    bootstrap(*TOLD, "--boundary", organisation)
    by_role, by_token = trusted(aws)
    assert by_role["Condition"]["StringEquals"] == {"aws:PrincipalArn": [BUILD], "sts:ExternalId": "release-7"}
    assert by_role["Principal"] == {"AWS": [TOOLS]}
    (provider,) = aws.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]
    assert by_token["Principal"] == {"Federated": provider["Arn"]}
    assert by_token["Condition"]["StringEquals"] == {
        "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
        "token.actions.githubusercontent.com:sub": "repo:anna/clock:ref:refs/heads/main",
    }
    assert boundary_of_releases(aws) == organisation
    log_role = aws.client("iam").get_role(RoleName="hitless-api-gateway-logs")["Role"]
    assert log_role["PermissionsBoundary"]["PermissionsBoundaryArn"] == organisation

    (folder / "serverless.yml").write_text(SERVICE.replace("branch: main", "branch: trunk"))
    bootstrap()
    kept_role, kept_token = trusted(aws)
    assert kept_role == by_role
    assert boundary_of_releases(aws) == organisation
    subject = kept_token["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"]
    assert subject == "repo:anna/clock:ref:refs/heads/trunk", "the branch is the file's"

    bootstrap("--github-environment", "production")
    assert "repo:anna/clock:environment:production" in json.dumps(trusted(aws))
    bootstrap("--trust", "", "--external-id", "", "--no-github-oidc", "--boundary", "")
    assert trusted(aws) == []
    assert boundary_of_releases(aws) != organisation
    assert len(aws.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]) == 1


def test_a_second_stage_uses_the_accounts_existing_oidc_provider(aws: EmulatedAws, folder: Path) -> None:
    for stage in ("dev", "staging"):
        told = ("--no-pipeline", "--github-oidc", "--repository", "anna/clock", "--stage", stage)
        aws.hitless("aws", "bootstrap", *told, folder=folder)
    made = [call for call in aws.front.calls if call.operation == "CreateOpenIDConnectProvider"]
    assert len(made) == 1


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (("--trust", ACCOUNT), "this account"),
        (("--github-oidc",), "origin is not on GitHub"),
    ],
)
def test_contradictory_options_are_refused_before_anything_is_created(
    aws: EmulatedAws, folder: Path, told: tuple[str, ...], words: str
) -> None:
    refused = aws.hitless("aws", "bootstrap", "--no-pipeline", *told, folder=folder, ok=(2,))
    assert words in refused["error"]["message"]
    assert not [call for call in aws.front.calls if call.operation.startswith("Create")]


def test_a_pipeline_in_another_account_gets_the_deploy_role_of_the_first(aws: EmulatedAws, folder: Path) -> None:
    elsewhere = f"arn:aws:iam::{TOOLS}:role/clock-core-dev-DeployRole-1"
    pipeline = ("--repository", "anna/clock", "--package", "https://example.com/clock.zip")
    told = (*pipeline, "--deploy-role", elsewhere, "--external-id", "release-7")
    first = aws.hitless("aws", "bootstrap", *told, folder=folder)
    assert [stack["name"] for stack in first["stacks"]] == ["clock-pipeline-dev"]
    assert aws.hitless("aws", "bootstrap", folder=folder) == first, "kept: no core is made here by a repetition"

    template = aws.client("cloudformation").get_template(StackName="clock-pipeline-dev")["TemplateBody"]
    held = {
        one["ParameterKey"]: one["ParameterValue"]
        for one in aws.client("cloudformation").describe_stacks(StackName="clock-pipeline-dev")["Stacks"][0][
            "Parameters"
        ]
    }
    assert (held["DeployRoleArn"], held["ExternalId"]) == (elsewhere, "release-7")
    assert "HITLESS_DEPLOY_ROLE_EXTERNAL_ID" in json.dumps(template)

    own = elsewhere.replace(TOOLS, ACCOUNT)
    refused = aws.hitless("aws", "bootstrap", "--deploy-role", own, folder=folder, ok=(2,))
    assert "is of this account" in refused["error"]["message"]
