"""Bootstrap's options for who may release: core's parameters, GitHub's OIDC provider, and refused options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from msgspec import structs

from hitless.aws.account import AUDIENCE, ensure_provider
from hitless.aws.session import Identity
from hitless.cloud.setup.options import (
    BootstrapOptions,
    GitHubTrust,
    IdentityOptions,
    PipelineOptions,
    check_apart,
    check_identity,
    check_kept,
    check_parts,
    core_parameters,
)
from hitless.cloud.setup.stacks import dry_run
from hitless.errors import ConflictError, UsageError
from hitless.service.model import RehearsalSettings
from tests.unit.aws_services import make_service

pytestmark = pytest.mark.unit

TOOLS, OWN = "210987654321", "123456789012"
ROLE = f"arn:aws:iam::{TOOLS}:role/hitless/clock-dev-deploy-build"
ROLE_ELSEWHERE = f"arn:aws:iam::{TOOLS}:role/clock-core-dev-DeployRole-1"


def test_a_missing_identity_option_keeps_its_value_and_an_empty_one_removes_it() -> None:
    assert set(core_parameters(IdentityOptions(), None).values()) == {None}
    emptied = IdentityOptions(boundary="", trust="", external_id="", github=False, assume="", reads="")
    assert set(core_parameters(emptied, None).values()) == {""}


def test_trusted_accounts_and_roles_become_separate_parameters_without_duplicates() -> None:
    another = ROLE.replace("clock", "tea")
    found = core_parameters(IdentityOptions(trust=f"{ROLE},333333333333,{another},{ROLE}"), None)
    assert found["TrustedAccounts"] == "333333333333"
    assert found["TrustedRoles"] == f"{ROLE},{another}"
    assert found["TrustedRoleAccounts"] == TOOLS


@pytest.mark.parametrize(
    "trust",
    [
        "*",
        "12345678901",
        "1234567890123",
        "arn:aws:iam::*:role/x",
        f"arn:aws:iam::{TOOLS}:role/*",
        f"arn:aws:iam::{TOOLS}:role/x?",
        f"arn:aws:iam::{TOOLS}:role/",
        f"arn:aws:iam::{TOOLS}:root",
        f"arn:aws:iam::{TOOLS}:user/anna",
        f"arn:aws:sts::{TOOLS}:assumed-role/x/y",
        f"{TOOLS},",
        f"{TOOLS}, {ROLE}",
        "٢١٠٩٨٧٦٥٤٣٢١",
    ],
)
def test_an_incomplete_or_wildcard_trust_option_is_refused(trust: str) -> None:
    with pytest.raises(UsageError, match="--trust"):
        check_identity(IdentityOptions(trust=trust))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (IdentityOptions(boundary="organisation"), "--boundary"),
        (IdentityOptions(boundary=ROLE), "--boundary"),
        (IdentityOptions(boundary="arn:aws:iam::aws:policy/AdministratorAccess"), "restricts nothing"),
        (IdentityOptions(external_id="x"), "--external-id"),
        (IdentityOptions(external_id="a b"), "--external-id"),
        (IdentityOptions(reads="/clock/dev/*"), "--reads"),
        (IdentityOptions(reads="arn:aws:iam::123456789012:role/x"), "--reads"),
        (IdentityOptions(reads="arn:aws:ssm:*:123456789012:parameter/x"), "--reads"),
        (IdentityOptions(reads="*"), "--reads"),
        (IdentityOptions(environment="prod*"), "--github-environment"),
        (IdentityOptions(environment="a:b"), "--github-environment"),
        (IdentityOptions(environment="prod", github=False), "contradict"),
        (IdentityOptions(deploy_role=OWN), "--deploy-role"),
        (IdentityOptions(deploy_role=ROLE_ELSEWHERE, trust=TOOLS), "--trust must be set there"),
        (IdentityOptions(deploy_role=ROLE_ELSEWHERE, github=True), "--github-oidc must be set there"),
    ],
)
def test_malformed_or_contradictory_options_are_refused(told: IdentityOptions, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        check_identity(told)
    assert refused.value.hint


@pytest.mark.parametrize("repository", ["anna/*", "anna", "anna/clock:ref", "anna/clock/main", "*/clock"])
def test_a_missing_or_wildcard_repository_is_never_trusted(repository: str) -> None:
    with pytest.raises(UsageError, match="--repository"):
        core_parameters(IdentityOptions(github=True), GitHubTrust("arn", repository))


def test_trusting_the_whole_account_of_the_stage_is_refused() -> None:
    with pytest.raises(UsageError, match="this account"):
        check_kept(IdentityOptions(trust=f"{TOOLS},{OWN}"), {}, OWN)
    check_kept(IdentityOptions(trust=TOOLS), {}, OWN)


def test_an_external_id_or_environment_without_a_trust_is_refused() -> None:
    for told, words in (
        (IdentityOptions(external_id="abc"), "no account or role is trusted"),
        (IdentityOptions(external_id="abc", trust=""), "no account or role is trusted"),
        (IdentityOptions(environment="prod"), "not trusted yet"),
    ):
        with pytest.raises(UsageError, match=words):
            check_kept(told, {}, OWN)
    check_kept(IdentityOptions(external_id="abc"), {"TrustedRoles": ROLE}, OWN)
    check_kept(IdentityOptions(environment="prod"), {"GitHubProviderArn": "arn"}, OWN)


APART = BootstrapOptions(PipelineOptions("anna/clock", "", "clock.whl", ""), identity=IdentityOptions())


def test_a_dry_run_shows_the_trust_and_a_pipeline_in_another_account_has_no_core() -> None:
    told = IdentityOptions(trust=ROLE, external_id="abc", github=True, boundary=f"arn:aws:iam::{OWN}:policy/all")
    core, pipeline = dry_run(make_service(branch="main"), replace(APART, identity=told, repository="anna/clock"))
    assert core.parameters["TrustedRoles"] == ROLE
    assert (core.parameters["GitHubRepository"], core.parameters["Branch"]) == ("anna/clock", "main")
    assert core.parameters["Boundary"] == pipeline.parameters["Boundary"] == told.boundary
    assert pipeline.parameters["ExternalId"] is None, "the own deploy role asks its own pipeline nothing"

    apart = IdentityOptions(deploy_role=ROLE_ELSEWHERE, external_id="abc")
    (alone,) = dry_run(make_service(), replace(APART, identity=apart))
    assert (alone.parameters["DeployRoleArn"], alone.parameters["ExternalId"]) == (ROLE_ELSEWHERE, "abc")


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"pipeline": None}, "--no-pipeline"), ({"cidr": "10.0.0.0/16"}, "--cidr"), ({"policies": ""}, "--policies")],
)
def test_options_of_core_are_refused_with_another_accounts_deploy_role(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_parts(replace(APART, identity=IdentityOptions(deploy_role=ROLE_ELSEWHERE), **changed))


def test_a_pipeline_in_another_account_is_refused_for_a_stage_with_rehearsals() -> None:
    service = make_service()
    rehearsed = replace(service, stages=(structs.replace(service.settings, rehearsal=RehearsalSettings()),))
    with pytest.raises(UsageError, match="is rehearsed"):
        check_apart(rehearsed)
    check_apart(service)


class NoSuchEntity(ClientError):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "NoSuchEntity"}}, "GetOpenIDConnectProvider")


class AlreadyExists(ClientError):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "EntityAlreadyExists"}}, "CreateOpenIDConnectProvider")


class FakeIam:
    """An account's providers; with `late` another stage creates it between our look and our call."""

    class exceptions:  # noqa: N801 - botocore's name
        NoSuchEntityException = NoSuchEntity
        EntityAlreadyExistsException = AlreadyExists

    def __init__(self, audiences: list[str] | None = None, *, late: bool = False) -> None:
        self.audiences, self.late, self.made = audiences, late, 0

    def get_open_id_connect_provider(self, *, OpenIDConnectProviderArn: str) -> dict[str, Any]:  # noqa: N803
        if self.audiences is None:
            raise NoSuchEntity
        return {"ClientIDList": self.audiences}

    def create_open_id_connect_provider(self, *, Url: str, ClientIDList: list[str]) -> None:  # noqa: N803
        assert Url == "https://token.actions.githubusercontent.com"
        if self.late:
            raise AlreadyExists
        self.audiences, self.made = ClientIDList, self.made + 1


CALLER = Identity(OWN, f"arn:aws-cn:iam::{OWN}:user/anna")
PROVIDER = f"arn:aws-cn:iam::{OWN}:oidc-provider/token.actions.githubusercontent.com"


def test_the_accounts_oidc_provider_is_created_once_and_reused() -> None:
    iam = FakeIam()
    assert ensure_provider(iam, CALLER) == (PROVIDER, True)
    assert ensure_provider(iam, CALLER) == (PROVIDER, False)
    assert (iam.audiences, iam.made) == ([AUDIENCE], 1)
    assert ensure_provider(FakeIam(late=True), CALLER) == (PROVIDER, False)


def test_an_existing_oidc_provider_for_other_audiences_is_not_changed() -> None:
    iam = FakeIam(["https://github.com/anna"])
    with pytest.raises(ConflictError, match="does not accept tokens") as refused:
        ensure_provider(iam, CALLER)
    assert PROVIDER in str(refused.value.hint)
    assert iam.audiences == ["https://github.com/anna"]
