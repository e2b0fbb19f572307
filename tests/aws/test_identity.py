"""Who may assume the deploy role, and that no release can remove its permissions boundary.

Trust of roles and boundaries are asked of the simulator: the emulator takes a session's ARN for aws:PrincipalArn, where
AWS has the role's (reference_policies_condition-keys). Tokens of GitHub are shown to the emulator, which checks them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from hitless.aws.account import AUDIENCE, HOST, provider_arn
from hitless.aws.session import DEPLOY_ROLE_VARIABLE, EXTERNAL_ID_VARIABLE, connect
from hitless.cloud.setup.options import GitHubTrust, IdentityOptions, core_parameters
from hitless.errors import CloudError
from tests.aws.front.calls import ACCOUNT
from tests.aws.front.emulators import Emulator, start_ministack
from tests.aws.iam.roles import SERVICE_BOUNDARY, properties_of, role_names, role_of
from tests.aws.iam.simulate import Question, Role, verdicts
from tests.support import free_port

pytestmark = pytest.mark.aws

TOOLS, STRANGER = "210987654321", "333333333333"
BUILD = "hitless/clock-dev-deploy-build"
DEPLOY_ROLE = f"arn:aws:iam::{ACCOUNT}:role/clock-core-dev-DeployRole"
ORGANISATION = f"arn:aws:iam::{ACCOUNT}:policy/organisation"
PROVIDER = provider_arn("aws", ACCOUNT)

ASSUME = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]}


def trust_of(told: IdentityOptions, github: GitHubTrust | None = None) -> dict[str, Any]:
    """The trust policy of core's deploy role with these options."""
    parameters = {name: value for name, value in core_parameters(told, github).items() if value is not None}
    found: dict[str, Any] = properties_of("core", "DeployRole", **parameters)["AssumeRolePolicyDocument"]
    return found


def releases(trust: dict[str, Any], *who: tuple[str, str, str]) -> list[bool]:
    """Whether each (account, role, external id) can assume the deploy role, if its own policy allows any role."""
    found = []
    for account, role, external_id in who:
        principal = f"arn:aws:iam::{account}:role/{role}"
        context = {"aws:PrincipalArn": principal} | ({"sts:ExternalId": external_id} if external_id else {})
        question = Question("sts:AssumeRole", DEPLOY_ROLE, context, trust)
        found.append(bool(allowed(Role(principal, (ASSUME,)), [question])))
    return found


def test_only_the_stages_own_pipeline_may_assume_the_deploy_role_by_default() -> None:
    trust = trust_of(IdentityOptions())
    assert len(trust["Statement"]) == 1
    asking = [(ACCOUNT, BUILD, ""), (ACCOUNT, f"{BUILD}2", ""), (ACCOUNT, "clock-dev-api", ""), (TOOLS, BUILD, "")]
    assert releases(trust, *asking) == [True, False, False, False]


def test_a_trusted_pipeline_of_another_account_needs_its_role_name_and_the_external_id() -> None:
    trust = trust_of(IdentityOptions(trust=f"arn:aws:iam::{TOOLS}:role/{BUILD}", external_id="release-7"))
    assert releases(trust, (TOOLS, BUILD, "release-7"), (TOOLS, BUILD, "release-8")) == [True, False]
    assert releases(trust, (TOOLS, BUILD, ""), (TOOLS, f"{BUILD}2", "release-7")) == [False, False]
    assert releases(trust, (STRANGER, BUILD, "release-7")) == [False]
    assert releases(trust, (ACCOUNT, BUILD, "")) == [True], "the own pipeline is asked for no external id"


def test_a_trusted_role_needs_no_external_id_if_none_is_set() -> None:
    trust = trust_of(IdentityOptions(trust=f"arn:aws:iam::{TOOLS}:role/anna"))
    assert releases(trust, (TOOLS, "anna", ""), (TOOLS, "bob", "")) == [True, False]


def test_any_role_of_a_trusted_account_may_release_and_no_other_accounts_role() -> None:
    trust = trust_of(IdentityOptions(trust=f"{TOOLS},arn:aws:iam::{STRANGER}:role/anna", external_id="release-7"))
    assert releases(trust, (TOOLS, "anybody", "release-7"), (TOOLS, "anybody", "")) == [True, False]
    assert releases(trust, (STRANGER, "anna", "release-7"), (STRANGER, "anybody", "release-7")) == [True, False]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    started = start_ministack(free_port(), tmp_path_factory.mktemp("iam"), enforce=True)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def iam(emulator: Emulator) -> Emulator:
    """An IAM without users that checks signatures, policies and trust."""
    emulator.reset()
    return emulator


def client(iam: Emulator, service: str, key: str = "test") -> Any:
    """A client as the root of the account, or of the account that is the key."""
    return boto3.session.Session().client(
        service, "us-east-1", endpoint_url=iam.url, aws_access_key_id=key, aws_secret_access_key="test"
    )


def make_deploy_role(iam: Emulator, trust: dict[str, Any]) -> str:
    made = client(iam, "iam").create_role(RoleName="deploy", AssumeRolePolicyDocument=json.dumps(trust))
    return str(made["Role"]["Arn"])


def test_another_accounts_credentials_assume_the_deploy_role_with_the_pipelines_variables(
    iam: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = make_deploy_role(iam, trust_of(IdentityOptions(trust=TOOLS, external_id="release-7")))
    for name, value in (("ENDPOINT_URL", iam.url), ("ACCESS_KEY_ID", TOOLS), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    aws = connect("us-east-1", {DEPLOY_ROLE_VARIABLE: role, EXTERNAL_ID_VARIABLE: "release-7"})
    assert (aws.identity().account, aws.identity().name) == (ACCOUNT, "assumed-role/deploy/hitless-deploy")
    with pytest.raises(CloudError, match="AWS still refuses AssumeRole"):
        connect("us-east-1", {DEPLOY_ROLE_VARIABLE: role, "AWS_MAX_ATTEMPTS": "1"})


BRANCH = "repo:anna/clock:ref:refs/heads/main"
ENVIRONMENT = "repo:anna/clock:environment:production"
SUBJECTS = (
    BRANCH,
    ENVIRONMENT,
    "repo:anna/clock:pull_request",
    "repo:anna/clock:ref:refs/heads/main2",
    "repo:anna/clock:ref:refs/heads/feature/main",
    "repo:anna/clock:ref:refs/heads/Main",
    "repo:anna/clock:ref:refs/tags/main",
    "repo:anna/clock:ref:refs/pull/7/merge",
    "repo:anna/clock:environment:production2",
    "repo:anna/clock:environment:staging",
    "repo:anna/clock2:ref:refs/heads/main",
    "repo:anna/cloc:ref:refs/heads/main",
    "repo:bob/clock:ref:refs/heads/main",
    "repo:hanna/clock:ref:refs/heads/main",
    "repo:bob/clock:pull_request",
    "repo:anna/clock:*",
    "repo:anna/clock",
    "",
)
"""What GitHub's tokens say of themselves: branch, environment, pull request, tag, a fork, names that begin alike."""


def token(issuer: str, subject: str, audience: str) -> str:
    """A token with these claims. The emulator reads the claims and does not check the signature, as AWS does."""
    claims = {"iss": issuer, "aud": audience, "sub": subject}
    parts = [
        base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in ({"alg": "RS256"}, claims)
    ]
    return ".".join([*parts, "c2lnbmF0dXJl"])


@pytest.mark.parametrize(("environment", "trusted"), [(None, BRANCH), ("production", ENVIRONMENT)])
def test_only_workflows_of_the_stages_branch_or_environment_may_release(
    iam: Emulator, environment: str | None, trusted: str
) -> None:
    told = IdentityOptions(github=True, environment=environment)
    role = make_deploy_role(iam, trust_of(told, GitHubTrust(PROVIDER, "anna/clock")))
    assert [subject for subject in SUBJECTS if shown(iam, role, subject)] == [trusted]
    assert not shown(iam, role, trusted, audience="https://github.com/anna")
    assert not shown(iam, role, trusted, issuer="https://gitlab.com")


def test_without_the_option_no_github_token_is_accepted(iam: Emulator) -> None:
    assert not shown(iam, make_deploy_role(iam, trust_of(IdentityOptions())), BRANCH)


def shown(iam: Emulator, role: str, subject: str, *, issuer: str = f"https://{HOST}", audience: str = AUDIENCE) -> bool:
    """Whether STS gives a session of the role for such a token. Any error except a denial fails the test."""
    try:
        client(iam, "sts").assume_role_with_web_identity(
            RoleArn=role, RoleSessionName="release", WebIdentityToken=token(issuer, subject, audience)
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


FUNCTION_ROLE = f"arn:aws:iam::{ACCOUNT}:role/clock-dev-us-east-1-lambdaRole"
ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
ON_ROLES = ("iam:AttachRolePolicy", "iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy")
ON_POLICIES = ("iam:CreatePolicyVersion", "iam:DeletePolicy", "iam:DeletePolicyVersion", "iam:SetDefaultPolicyVersion")
EVERYTHING = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def cloudformation_role(boundary: str, *, everything: bool = False) -> Role:
    """CloudFormation's role; `everything` adds an administrator's rights by --policies."""
    role = role_of("core", "CloudFormationRole", Boundary="" if boundary == SERVICE_BOUNDARY else boundary)
    return Role(role.arn, (*role.policies, EVERYTHING)) if everything else role


def on_role(action: str, boundary: str | None) -> Question:
    """A question about a role that has, or would get, that boundary."""
    return Question(action, FUNCTION_ROLE, {"iam:PermissionsBoundary": boundary} if boundary else {})


def allowed(role: Role, questions: Sequence[Question]) -> list[Question]:
    """The questions that are allowed; the others are denied, and none is malformed."""
    found = verdicts(role, questions)
    assert set(found.values()) <= {"Allowed", "ImplicitlyDenied", "ExplicitlyDenied"}, found
    return [question for question, verdict in found.items() if verdict == "Allowed"]


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("boundary", [SERVICE_BOUNDARY, ORGANISATION])
def test_a_release_can_only_create_roles_with_the_boundary(boundary: str, everything: bool) -> None:
    role = cloudformation_role(boundary, everything=everything)
    within = [on_role(action, boundary) for action in ON_ROLES]
    others = (None, ADMINISTRATOR, f"{boundary}2", "arn:aws:iam::aws:policy/PowerUserAccess")
    outside = [on_role(action, another) for action in ON_ROLES for another in others]
    itself = [Question(action, kept) for action in ON_POLICIES for kept in {SERVICE_BOUNDARY, boundary}]
    without = on_role("iam:DeleteRolePermissionsBoundary", boundary)
    assert allowed(role, [*within, *outside, *itself, without]) == within


def test_an_older_role_gets_the_organisations_boundary_at_its_next_release_and_keeps_it() -> None:
    moves = on_role("iam:PutRolePermissionsBoundary", ORGANISATION)
    meanwhile = on_role("iam:PutRolePolicy", SERVICE_BOUNDARY)
    never = [on_role("iam:PutRolePermissionsBoundary", SERVICE_BOUNDARY), on_role("iam:CreateRole", SERVICE_BOUNDARY)]
    assert allowed(cloudformation_role(ORGANISATION), [moves, meanwhile, *never]) == [moves, meanwhile]


@pytest.mark.parametrize("template", ["core", "pipeline"])
def test_every_role_has_the_organisations_boundary_if_one_is_given(template: str) -> None:
    names = role_names(template)
    assert len(names) >= 3
    for name in names:
        assert properties_of(template, name, Boundary=ORGANISATION)["PermissionsBoundary"] == ORGANISATION, name
        assert "PermissionsBoundary" not in properties_of(template, name), name
