"""The options of `hitless aws bootstrap` and their checks.

They say who may release a stage besides its own pipeline, and within which boundary. No option is a pattern: an
account, a role, a branch or an environment is named in full.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hitless.errors import UsageError
from hitless.service.model import Service

POLICY_ARN = re.compile(r"arn:aws[a-z-]*:iam::(?:\d{12}|aws):policy/[\w+=,.@/-]+", re.ASCII)
UNBOUNDED = re.compile(r"arn:aws[a-z-]*:iam::aws:policy/(AdministratorAccess|IAMFullAccess)")
"""AWS's policies that allow everything: hitless accepts them neither as an addition nor as a boundary."""
_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/[\w+=.@/-]+", re.ASCII)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_ENVIRONMENT = re.compile(r"[A-Za-z0-9._-]{1,255}")
_REPOSITORY = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+")
_READABLE = re.compile(r"arn:aws[a-z-]*:(ssm|cloudformation|s3|kms):[a-z0-9-]*:(\d{12})?:[\w./-]+(/\*)?", re.ASCII)
_TRUST_HINT = "name accounts and roles in full: 210987654321,arn:aws:iam::210987654321:role/releases"
_SECRET_IN_URL = re.compile(r"https?://[^/@\s]+@|://[^/@:\s]*:[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class IdentityOptions:
    """Options of `bootstrap`. None keeps the stack's value; an empty text (for `github` False) removes it.

    `trust` is account ids and role ARNs, comma-separated. `deploy_role` is another account's deploy role, for a
    pipeline in an account of its own; `external_id` is then what that role requires. `assume` is the ARNs of roles
    that the service's functions may assume, comma-separated; `reads` those of what serverless.yml's variables read.
    """

    boundary: str | None = None
    trust: str | None = None
    external_id: str | None = None
    github: bool | None = None
    environment: str | None = None
    deploy_role: str | None = None
    assume: str | None = None
    reads: str | None = None


AS_IT_IS = IdentityOptions()
"""No option given: the stacks keep their values."""


@dataclass(frozen=True, slots=True)
class GitHubTrust:
    """The account's provider and the repository (owner/name) whose tokens are trusted."""

    provider_arn: str
    repository: str


def core_parameters(told: IdentityOptions, github: GitHubTrust | None) -> dict[str, str | None]:
    """The parameters of the core stack. `github` is given if `told.github` is. UsageError on a malformed option."""
    check_identity(told)
    if github:
        check_repository(github.repository)
    accounts, roles = _trusted(told.trust) if told.trust is not None else (None, None)
    off = "" if told.github is False else None
    return {
        "AssumableRoles": told.assume,
        "Readable": told.reads,
        "Boundary": told.boundary,
        "TrustedAccounts": _joined(accounts),
        "TrustedRoles": _joined(roles),
        "TrustedRoleAccounts": _joined(None if roles is None else {account_of(role): None for role in roles}),
        "ExternalId": told.external_id,
        "GitHubProviderArn": github.provider_arn if github else off,
        "GitHubRepository": github.repository if github else off,
        "GitHubEnvironment": told.environment if told.environment is not None else off,
    }


def check_repository(repository: str) -> None:
    """Raise UsageError if it is not a repository of GitHub."""
    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(f"--repository: {repository!r} is not owner/name", hint="as GitHub shows it")


def check_identity(told: IdentityOptions) -> None:
    """Raise UsageError on malformed or contradictory options."""
    if told.boundary and not POLICY_ARN.fullmatch(told.boundary):
        hint = "for example arn:aws:iam::123456789012:policy/organisation-boundary"
        raise UsageError(f"--boundary: {told.boundary!r} is not a policy's ARN", hint=hint)
    if told.boundary and UNBOUNDED.fullmatch(told.boundary):
        raise UsageError(
            f"--boundary: {told.boundary} restricts nothing",
            hint="leave the option out: functions have a boundary by default",
        )
    for arn in told.assume.split(",") if told.assume else ():
        if not _ROLE_ARN.fullmatch(arn):
            raise UsageError(f"--assume: {arn!r} is not a role's ARN", hint="name each role in full, without patterns")
    for arn in told.reads.split(",") if told.reads else ():
        if not _READABLE.fullmatch(arn):
            hint = "for example arn:aws:ssm:eu-central-1:123456789012:parameter/clock/dev/*"
            raise UsageError(f"--reads: {arn!r} is not the ARN of a parameter, stack, object or key", hint=hint)
    if told.trust:
        _trusted(told.trust)
    if told.external_id and not _EXTERNAL_ID.fullmatch(told.external_id):
        hint = "2 to 1224 letters, digits and =,.@:/-"
        raise UsageError("--external-id: it has characters that AWS refuses, or is too short", hint=hint)
    if told.environment and not _ENVIRONMENT.fullmatch(told.environment):
        hint = "name it in full, of letters, digits, '.', '_' and '-'"
        raise UsageError(f"--github-environment: {told.environment!r} is not the name of an environment", hint=hint)
    if told.environment and told.github is False:
        raise UsageError(
            "--github-environment and --no-github-oidc contradict each other", hint="leave one of them out"
        )
    if told.deploy_role:
        _check_deploy_role(told)


def _check_deploy_role(told: IdentityOptions) -> None:
    if not _ROLE_ARN.fullmatch(told.deploy_role or ""):
        hint = "it is the output DeployRoleArn of the core stack in the other account"
        raise UsageError(f"--deploy-role: {told.deploy_role!r} is not a role's ARN", hint=hint)
    elsewhere = {"--trust": told.trust, "--github-oidc": told.github or told.environment, "--assume": told.assume}
    for option, given in elsewhere.items():
        if given:
            raise UsageError(
                f"--deploy-role is of another account: {option} must be set there",
                hint=f"pass {option} to a bootstrap with that account's credentials",
            )


def check_kept(told: IdentityOptions, kept: Mapping[str, str], account: str) -> None:
    """Raise UsageError on options that contradict the existing core stack's parameters or this account."""
    if told.trust and account in _trusted(told.trust)[0]:
        raise UsageError(
            f"--trust: {account} is this account: every role in it, the functions' too, could release",
            hint="name the role that may release",
        )
    trusts = told.trust if told.trust is not None else kept.get("TrustedAccounts") or kept.get("TrustedRoles")
    if told.external_id and not trusts:
        raise UsageError("--external-id: no account or role is trusted", hint="pass it together with --trust")
    github = told.github if told.github is not None else kept.get("GitHubProviderArn")
    if told.environment and not github:
        raise UsageError(
            "--github-environment: GitHub's tokens are not trusted yet", hint="pass it together with --github-oidc"
        )


def account_of(arn: str) -> str:
    """The account in an ARN."""
    return arn.split(":")[4]


def _trusted(trust: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(account ids, role ARNs) of a comma-separated list, without repetitions."""
    parts = list(dict.fromkeys(trust.split(","))) if trust else []
    for part in parts:
        if not _ACCOUNT.fullmatch(part) and not _ROLE_ARN.fullmatch(part):
            raise UsageError(f"--trust: {part!r} is neither an account id nor a role's ARN", hint=_TRUST_HINT)
    return tuple(part for part in parts if ":" not in part), tuple(part for part in parts if ":" in part)


def _joined(parts: Mapping[str, None] | tuple[str, ...] | None) -> str | None:
    return None if parts is None else ",".join(parts)


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """Settings of the pipeline that are not in the service's file. None keeps the stack's value.

    `then` are the stages that a release is promoted to, in their order, comma-separated.
    """

    repository: str | None = None
    folder: str | None = None
    package: str | None = None
    notify_email: str | None = None
    tests: bool = True
    then: str | None = None


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """Options of the command. None keeps the stacks' value, or the default.

    `connection_wait_s` is how long a person has to authorise GitHub; 0 does not wait. `repository` is owner/name for
    GitHub's tokens, with or without a pipeline. `zones` are the network's availability zones, comma-separated.
    """

    pipeline: PipelineOptions | None
    cidr: str | None = None
    zone_id: str | None = None
    policies: str | None = None
    connection_wait_s: float = 1800.0
    force: bool = False
    identity: IdentityOptions = AS_IT_IS
    repository: str | None = None
    zones: str | None = None
    notify_email: str | None = None


def check_apart(service: Service) -> None:
    """Raise UsageError if a pipeline in another account cannot do what the stage asks for."""
    if service.settings.rehearsal:
        raise UsageError(
            f"{service.stage} is rehearsed, but a pipeline in another account may not read its live release",
            hint="set rehearsal: false for the stage, or create the pipeline in the stage's account",
        )


def check_parts(options: BootstrapOptions) -> None:
    """Raise UsageError on options for a part that another option leaves out."""
    check_identity(options.identity)
    if not options.identity.deploy_role:
        return
    if options.pipeline is None:
        raise UsageError(
            "--deploy-role is for the pipeline, and --no-pipeline leaves the pipeline out",
            hint="leave one of them out",
        )
    for option, given in (
        ("--cidr", options.cidr),
        ("--zone-id", options.zone_id),
        ("--zones", options.zones),
        ("--policies", options.policies),
        ("--then", options.pipeline.then),
    ):
        if given is not None:
            raise UsageError(
                f"{option} is for the core stack, which is in the account of --deploy-role",
                hint=f"pass {option} to a bootstrap with that account's credentials",
            )


_GITHUB = re.compile(
    r"(?:https?://(?:[^@/]+@)?github\.com/|(?:ssh://)?git@github\.com[:/])(?P<name>[A-Za-z0-9-]+/[A-Za-z0-9._-]+?)(?:\.git)?/?"
)


def parse_remote(url: str) -> str | None:
    """owner/name of a remote on GitHub; None for any other. A token in the URL is dropped."""
    found = _GITHUB.fullmatch(url.strip())
    return found["name"] if found else None


def check_options(options: PipelineOptions) -> None:
    """Raise UsageError on options that would fail, or show a secret, once the core stack exists."""
    if options.repository is not None:
        check_repository(options.repository)
    if options.package is not None and _SECRET_IN_URL.search(options.package):
        raise UsageError(
            "--package: the URL contains a password or a token, and would be readable in the pipeline",
            hint="name a public URL, or a wheel that the build's role may fetch",
        )
