"""The options of `hitless aws bootstrap`, the stacks that they lead to, and the service's GitHub repository."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from hitless.aws.account import provider_arn
from hitless.aws.stacks import StackSpec
from hitless.cloud.setup.identity import AS_IT_IS, GitHubTrust, IdentityOptions, check_identity
from hitless.cloud.setup.stacks import DEFAULT_CIDR, DeployRole, PipelineOptions, core_stack, pipeline_stack
from hitless.errors import UsageError
from hitless.service.model import Service

PLACEHOLDER_ACCOUNT = "000000000000"
PLACEHOLDER_REPOSITORY = "OWNER/REPOSITORY"
PLACEHOLDER_ROLE = f"arn:aws:iam::{PLACEHOLDER_ACCOUNT}:role/placeholder-deploy-role"
PLACEHOLDER_BUCKET = "placeholder-artifact-bucket"
PLACEHOLDER_ZONE = "Z00000000000000000000"


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """Options of the command. None keeps the stacks' value, or the default.

    `connection_wait_s` is how long a person has to authorise GitHub; 0 does not wait. `repository` is owner/name for
    GitHub's tokens, with or without a pipeline.
    """

    pipeline: PipelineOptions | None
    cidr: str | None = None
    zone_id: str | None = None
    policies: str | None = None
    connection_wait_s: float = 1800.0
    force: bool = False
    identity: IdentityOptions = AS_IT_IS
    repository: str | None = None


def dry_run(service: Service, options: BootstrapOptions) -> tuple[StackSpec, ...]:
    """The stacks without asking AWS: values that only AWS knows are placeholders."""
    identity, told = options.identity, options.pipeline
    check_parts(options)
    if identity.deploy_role:
        check_apart(service)
    provider = provider_arn("aws", PLACEHOLDER_ACCOUNT)
    core = core_stack(
        service,
        cidr=options.cidr or DEFAULT_CIDR,
        zone_id=options.zone_id or PLACEHOLDER_ZONE,
        policies=options.policies or "",
        identity=identity,
        github=GitHubTrust(provider, options.repository or PLACEHOLDER_REPOSITORY) if identity.github else None,
    )
    if told is None:
        return (core,)
    complete = replace(
        told,
        repository=told.repository or PLACEHOLDER_REPOSITORY,
        package=told.package or "hitless[aws]",
        folder=told.folder or "",
        notify_email=told.notify_email or "",
    )
    role = DeployRole(PLACEHOLDER_ROLE, PLACEHOLDER_BUCKET, identity.boundary)
    if identity.deploy_role:
        role = DeployRole(identity.deploy_role, "", identity.boundary, identity.external_id)
    pipeline = pipeline_stack(service, complete, role, connected=True, connection_arn="")
    return (pipeline,) if identity.deploy_role else (core, pipeline)


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
        ("--policies", options.policies),
    ):
        if given is not None:
            raise UsageError(
                f"{option} is for the core stack, which is in the account of --deploy-role",
                hint=f"give {option} to a bootstrap with that account's credentials",
            )


_GITHUB = re.compile(
    r"(?:https?://(?:[^@/]+@)?github\.com/|(?:ssh://)?git@github\.com[:/])(?P<name>[A-Za-z0-9-]+/[A-Za-z0-9._-]+?)(?:\.git)?/?"
)


@dataclass(frozen=True, slots=True)
class GitHubRepository:
    """`name` is owner/name, None if origin is not on GitHub. `folder` is the service's, `""` or `a/b/`."""

    name: str | None
    folder: str


def parse_remote(url: str) -> str | None:
    """owner/name of a remote on GitHub; None for any other. A token in the URL is dropped."""
    found = _GITHUB.fullmatch(url.strip())
    return found["name"] if found else None


def read_repository(folder: Path) -> GitHubRepository:
    """The repository of the service's folder; outside git neither name nor folder."""
    return GitHubRepository(
        name=parse_remote(_git(folder, "remote", "get-url", "origin")),
        folder=_git(folder, "rev-parse", "--show-prefix"),
    )


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
