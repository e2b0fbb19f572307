"""The stacks of a stage: names, tags, templates and parameters. Pure: reads the service, calls nothing.

`core` and `pipeline` come from templates of this package; the `service` stack is osls'. A parameter of None keeps the
stack's value, so that an option given once need not be repeated.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hitless.aws.account import NUMBER_OF_ZONES, provider_arn
from hitless.aws.stacks import SERVICE_TAG, STAGE_TAG, StackSpec
from hitless.aws.template import dump_template, load_template
from hitless.cloud.setup.options import (
    AS_IT_IS,
    POLICY_ARN,
    UNBOUNDED,
    BootstrapOptions,
    GitHubTrust,
    IdentityOptions,
    PipelineOptions,
    check_apart,
    check_identity,
    check_options,
    check_parts,
    core_parameters,
)
from hitless.errors import UsageError
from hitless.service.model import Nat, Service, StageSettings

PLACEHOLDER_ACCOUNT = "000000000000"
PLACEHOLDER_REPOSITORY = "OWNER/REPOSITORY"
PLACEHOLDER_ROLE = f"arn:aws:iam::{PLACEHOLDER_ACCOUNT}:role/placeholder-deploy-role"
PLACEHOLDER_BUCKET = "placeholder-artifact-bucket"
PLACEHOLDER_ZONE = "Z00000000000000000000"

DEFAULT_CIDR = "10.0.0.0/16"
MAX_ROLE_NAME = 64
RESERVED_STAGES = ("core", "pipeline")


@dataclass(frozen=True, slots=True)
class StackNames:
    """The stack names of a stage. `service` is osls' own default."""

    core: str
    service: str
    pipeline: str


@dataclass(frozen=True, slots=True)
class DeployRole:
    """The role that the pipeline assumes, the bucket that its rehearsals read, the boundary of its own roles, and the
    external id that the role requires. None keeps the stack's value. `then` has the deploy role of each stage that a
    release is promoted to.

    `bucket` is empty for another account's role: no bucket is read across accounts.
    """

    arn: str
    bucket: str
    boundary: str | None = None
    external_id: str | None = None
    then: Mapping[str, str] = field(default_factory=dict)


def names_of(service: Service) -> StackNames:
    """The stage's stack names. Raises UsageError if AWS would refuse them or confuse two of them."""
    stage = service.stage
    for word in RESERVED_STAGES:
        if stage == word or stage.startswith(f"{word}-"):
            raise UsageError(
                f"a stage on AWS cannot be called {stage}: {service.name}-{stage} is the name of its {word} stack",
                hint="rename the stage in custom.hitless.stages",
            )
    longest = f"{service.name}-{stage}-deploy-build"
    if len(longest) > MAX_ROLE_NAME:
        raise UsageError(
            f"the role name {longest} has {len(longest)} characters, over IAM's {MAX_ROLE_NAME}",
            hint="shorten the service's or the stage's name",
        )
    return StackNames(f"{service.name}-core-{stage}", f"{service.name}-{stage}", f"{service.name}-pipeline-{stage}")


def tags_of(service: Service) -> dict[str, str]:
    """The tags of everything of the stage. A stack without them is not ours."""
    return {SERVICE_TAG: service.name, STAGE_TAG: service.stage}


def network(cidr: str) -> dict[str, str]:
    """The parameters for a VPC's block: three private subnets of a quarter each, three public ones of a sixteenth. A
    sixteenth stays free. UsageError unless it is a private block from /16 to /24.
    """
    try:
        block = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise UsageError(f"--cidr: {error}", hint="give a block such as 10.20.0.0/16") from error
    if not 16 <= block.prefixlen <= 24 or not block.is_private:
        raise UsageError(
            f"--cidr: {cidr} is not a private block from /16 to /24", hint="give a block such as 10.20.0.0/16"
        )
    *private, last = block.subnets(prefixlen_diff=2)
    public = list(last.subnets(prefixlen_diff=2))[:3]
    return {
        "VpcCidr": str(block),
        "PrivateSubnetCidrs": ",".join(map(str, private)),
        "PublicSubnetCidrs": ",".join(map(str, public)),
    }


def is_production(service: Service) -> bool:
    """Whether the stage's stacks are protected from deletion: prod, and each stage with a domain."""
    return service.stage == "prod" or service.settings.domain is not None


def core_stack(
    service: Service,
    *,
    cidr: str | None,
    zone_id: str | None,
    zones: str | None = None,
    policies: str | None = None,
    identity: IdentityOptions = AS_IT_IS,
    github: GitHubTrust | None = None,
    keep_nat: bool = False,
    notify_email: str | None = None,
    concurrency: int | None = None,
) -> StackSpec:
    """The core stack. `cidr` and `zones` None keep the network as it is; `policies` are the ARNs of ExtraPolicyArns;
    `keep_nat` keeps the NAT gateways of a network that functions still use; `concurrency` is Lambda's limit.
    """
    if zones is not None and len(set(filter(None, zones.split(",")))) != NUMBER_OF_ZONES:
        hint = "name them as in eu-central-1a,eu-central-1b,eu-central-1c, or choose another region"
        raise UsageError(f"--zones: {zones!r} is not {NUMBER_OF_ZONES} availability zones", hint=hint)
    settings = service.settings
    parameters: dict[str, str | None] = {
        "Service": service.name,
        "Stage": service.stage,
        **_network_parameters(settings, cidr),
        **({"Nat": None} if keep_nat else {}),
        "Zones": zones,
        "LogRetentionDays": "365" if is_production(service) else "30",
        "NotifyEmail": notify_email,
        "ConcurrencyAlarmAt": None if concurrency is None else str(concurrency * 9 // 10),
        "DomainName": settings.domain or "",
        "HostedZoneId": (zone_id or "") if settings.domain else "",
        "ExtraPolicyArns": _policies(policies),
        "Branch": settings.branch,
        **core_parameters(identity, github),
    }
    return StackSpec(
        name=names_of(service).core,
        template=dump_template(load_template("core")),
        tags=tags_of(service),
        parameters=parameters,
        protected=is_production(service),
        policy=CORE_POLICY,
    )


def _network_parameters(settings: StageSettings, cidr: str | None) -> dict[str, str | None]:
    """Whose network the functions use. A network that exists stays when they leave it: older versions run there, and
    without NAT gateways it costs nothing. UsageError on a block of addresses without a network.
    """
    chosen = settings.network
    if not chosen.own and cidr not in (None, DEFAULT_CIDR):
        raise UsageError(
            f"--cidr: the stage makes no network of its own (network: {chosen.kind})",
            hint="leave --cidr out, or remove `network` from the stage's settings",
        )
    return {
        "Network": chosen.kind,
        "MakeNetwork": "yes" if chosen.own else ("no" if cidr else None),
        "NetworkStack": chosen.stack,
        "NetworkVpcId": chosen.vpc,
        "NetworkSubnetIds": ",".join(chosen.subnets),
        "Nat": (settings.nat if chosen.own else Nat.NONE).value,
        **(network(cidr) if cidr else dict.fromkeys(("VpcCidr", "PrivateSubnetCidrs", "PublicSubnetCidrs"))),
    }


def _policies(arns: str | None) -> str | None:
    """Check ARNs of managed policies, comma-separated. Raises UsageError, minutes before CloudFormation would fail."""
    for arn in arns.split(",") if arns else ():
        if not POLICY_ARN.fullmatch(arn):
            hint = "for example arn:aws:iam::123456789012:policy/tables"
            raise UsageError(f"--policies: {arn!r} is not a policy's ARN", hint=hint)
        if UNBOUNDED.fullmatch(arn):
            raise UsageError(
                f"--policies: with {arn} a release could make administrators",
                hint="name a policy for what the service's own resources need, and no more",
            )
    return arns


def pipeline_stack(
    service: Service, options: PipelineOptions, role: DeployRole, *, connected: bool, connection_arn: str | None
) -> StackSpec:
    """The pipeline stack: without the pipeline itself until the connection is authorised."""
    check_options(options)
    check_identity(IdentityOptions(boundary=role.boundary, external_id=role.external_id))
    settings = service.settings
    arm = any(function.architecture == "arm64" for function in service.functions)
    parameters: dict[str, str | None] = {
        "Service": service.name,
        "Stage": service.stage,
        "Repository": options.repository,
        "Branch": settings.branch,
        "Folder": options.folder,
        "Connection": "ready" if connected else "pending",
        "ConnectionArn": connection_arn,
        "ConnectionName": connection_name(service),
        "Tests": "run" if options.tests and (settings.test or settings.rehearsal) else "skip",
        "Rehearsal": "run" if settings.rehearsal else "skip",
        "ArtifactBucketName": role.bucket,
        "Approval": settings.approval.value,
        **_following(service, role.then),
        "DeployRoleArn": role.arn,
        "ExternalId": role.external_id,
        "Boundary": role.boundary,
        "HitlessPackage": options.package,
        "NotifyEmail": options.notify_email,
        "LogRetentionDays": "365" if is_production(service) else "90",
        "BuildImage": "aws/codebuild/amazonlinux-aarch64-standard:3.0"
        if arm
        else "aws/codebuild/amazonlinux-x86_64-standard:5.0",
        "BuildType": "ARM_CONTAINER" if arm else "LINUX_CONTAINER",
    }
    return StackSpec(
        name=names_of(service).pipeline,
        template=dump_template(load_template("pipeline")),
        tags=tags_of(service),
        parameters=parameters,
        protected=is_production(service),
    )


def _following(service: Service, roles: Mapping[str, str]) -> dict[str, str | None]:
    """The parameters of the stages after the first. Raises UsageError unless they are one or two of the service's."""
    stages = {one.name: one.approval.value for one in service.stages if one.name != service.stage}
    found: dict[str, str | None] = {}
    if len(roles) > 2 or not roles.keys() <= stages.keys():
        raise UsageError(
            f"--then: {','.join(roles)} does not name one or two other stages of the service",
            hint=f"other stages are {', '.join(stages)}; for example --stage dev --then staging,prod",
        )
    for place, (name, role) in zip(("Second", "Third"), [*roles.items(), ("", ""), ("", "")], strict=False):
        found |= {place: name, f"{place}RoleArn": role, f"{place}Approval": stages.get(name, "none")}
    return found


def connection_name(service: Service) -> str:
    """One connection serves all stages of a service, so that a person authorises it once."""
    return service.name[:32]


CORE_POLICY: Mapping[str, Any] = {
    "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "Update:*", "Resource": "*"},
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["Update:Replace", "Update:Delete"],
            "Resource": [
                f"LogicalResourceId/{name}"
                for name in ("Vpc", "LambdaSecurityGroup", "ArtifactBucket", "CloudFormationRole", "ServiceBoundary")
            ],
        },
    ]
}
"""What no update of the core stack may remove, whatever a template says: service stacks depend on it."""


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
        zones=options.zones or ",".join(f"{service.region}{letter}" for letter in "abc"),
        policies=options.policies or "",
        identity=identity,
        github=GitHubTrust(provider, options.repository or PLACEHOLDER_REPOSITORY) if identity.github else None,
        notify_email=options.notify_email,
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
    then = dict.fromkeys(filter(None, (told.then or "").split(",")), PLACEHOLDER_ROLE)
    role = DeployRole(PLACEHOLDER_ROLE, PLACEHOLDER_BUCKET, identity.boundary, then=then)
    if identity.deploy_role:
        role = DeployRole(identity.deploy_role, "", identity.boundary, identity.external_id)
    pipeline = pipeline_stack(service, complete, role, connected=True, connection_arn="")
    return (pipeline,) if identity.deploy_role else (core, pipeline)
