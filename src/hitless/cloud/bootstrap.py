"""What a stage stands on, made or brought up to date: core, then the pipeline with its connection to GitHub.

Safe to repeat at any point: each step looks first, and a run that was cut off is finished by the next. The whole order
is in `Bootstrap.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hitless.aws.account import ensure_log_role
from hitless.aws.follow import Stack, Time
from hitless.aws.github import Connection, Connections, console_url
from hitless.aws.network import close_default_group, find_zone
from hitless.aws.session import Aws
from hitless.aws.stacks import Stacks, StackSpec
from hitless.aws.states import Step, next_step
from hitless.cloud.core import (
    DEFAULT_CIDR,
    PipelineOptions,
    check_options,
    connection_name,
    core_stack,
    names_of,
    pipeline_stack,
)
from hitless.errors import ConflictError, UsageError
from hitless.service.model import Service

PLACEHOLDER_ROLE = "arn:aws:iam::000000000000:role/placeholder-deploy-role"
PLACEHOLDER_BUCKET = "placeholder-artifact-bucket"
PLACEHOLDER_ZONE = "Z00000000000000000000"


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """What the command was told. None leaves a setting as the stacks have it, or to its default.

    `connection_wait_s` is how long a person has to authorise GitHub; 0 does not wait.
    """

    pipeline: PipelineOptions | None
    cidr: str | None = None
    zone_id: str | None = None
    policies: str | None = None
    connection_wait_s: float = 1800.0
    force: bool = False


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """What stands. `connection` is None without a pipeline."""

    core: Stack
    pipeline: Stack | None
    connection: Connection | None

    def to_json(self) -> dict[str, Any]:
        stacks = [stack for stack in (self.core, self.pipeline) if stack]
        connection = self.connection
        return {
            "stacks": [
                {"name": stack.name, "status": stack.status, "outputs": dict(stack.outputs)} for stack in stacks
            ],
            "connection": connection
            and {"arn": connection.arn, "status": connection.status, "url": console_url(connection.arn)},
        }


def dry_run(service: Service, options: BootstrapOptions) -> tuple[StackSpec, ...]:
    """The stacks as they would be, without asking AWS: what only AWS knows is a placeholder."""
    core = core_stack(
        service,
        cidr=options.cidr or DEFAULT_CIDR,
        zone_id=options.zone_id or PLACEHOLDER_ZONE,
        policies=options.policies or "",
    )
    if options.pipeline is None:
        return (core,)
    told = options.pipeline
    complete = replace(
        told,
        repository=told.repository or "OWNER/REPOSITORY",
        package=told.package or "hitless[aws]",
        folder=told.folder or "",
        notify_email=told.notify_email or "",
    )
    pipeline = pipeline_stack(
        service,
        complete,
        deploy_role_arn=PLACEHOLDER_ROLE,
        bucket=PLACEHOLDER_BUCKET,
        connected=True,
        connection_arn="",
    )
    return core, pipeline


class Bootstrap:
    """One stage of one service on AWS. `say` gets one sentence a line."""

    def __init__(
        self,
        service: Service,
        aws: Aws,
        stacks: Stacks,
        *,
        say: Callable[[str], None],
        clock: Time,
        poll_s: float = 5.0,
    ) -> None:
        self._service, self._aws, self._stacks = service, aws, stacks
        self._say, self._time, self._poll_s = say, clock, poll_s
        self._names = names_of(service)

    def run(self, options: BootstrapOptions) -> Bootstrapped:
        """Core, its default group closed, the connection awaited, the pipeline.

        ConflictError: foreign stack, harmful change, connection not authorised in time. UsageError: an option lacks.
        """
        if options.pipeline is not None:
            self._check(options.pipeline)
        core = self._stacks.deploy(self._core(options), force=options.force)
        if closed := close_default_group(self._aws.client("ec2"), core.outputs["DefaultSecurityGroupId"]):
            self._say(f"{core.name}: the network's default security group is closed (rules taken away: {closed})")
        self._let_api_gateway_log()
        if options.pipeline is None:
            return Bootstrapped(core, None, None)
        pipeline, connection, connected = self._connect(core, options)
        if not connection.available:
            connection = self._await(connection, options.connection_wait_s)
        if not connected:  # as the stack was made: a person may authorise GitHub at any moment since
            pipeline = self._pipeline(core, options, connected=True)
        self._say(f"a push to {self._service.settings.branch} now releases to {self._service.stage}")
        return Bootstrapped(core, pipeline, connection)

    def _let_api_gateway_log(self) -> None:
        partition = self._aws.identity().partition
        apigateway, iam = self._aws.client("apigateway"), self._aws.client("iam")
        if arn := ensure_log_role(apigateway, iam, partition=partition, sleep=self._time.sleep):
            self._say(f"API Gateway writes access logs of this account's APIs by {arn}")

    def _core(self, options: BootstrapOptions) -> StackSpec:
        """A network keeps its addresses unless told; the zone is looked up, for a domain may have come or changed."""
        exists = self._present(self._names.core)
        domain = self._service.settings.domain
        zone = options.zone_id
        if domain and zone is None:
            kept = exists.get("HostedZoneId") if exists.get("DomainName") == domain else None
            zone = kept or find_zone(self._aws.client("route53"), domain)
        cidr = options.cidr or (None if exists else DEFAULT_CIDR)
        return core_stack(self._service, cidr=cidr, zone_id=zone, policies=options.policies)

    def _connect(self, core: Stack, options: BootstrapOptions) -> tuple[Stack, Connection, bool]:
        """The pipeline stack with its connection, the service's own where another stage has made it already; and
        whether it was made with the pipeline. A pipeline that stands stays, even if GitHub takes the connection back.
        """
        connections = self._connections()
        present = self._present(self._names.pipeline)
        found = None if present else connections.named(connection_name(self._service))
        standing = self._stacks.find(self._names.pipeline) if present else None
        known = connections.get(standing.outputs["ConnectionArn"]) if standing else found
        connected = bool(known and known.available) or present.get("Connection") == "ready"
        arn = found.arn if found else None
        pipeline = self._pipeline(core, options, connected=connected, connection_arn=arn)
        return pipeline, connections.get(pipeline.outputs["ConnectionArn"]), connected

    def _pipeline(
        self, core: Stack, options: BootstrapOptions, *, connected: bool, connection_arn: str | None = None
    ) -> Stack:
        assert options.pipeline is not None
        spec = pipeline_stack(
            self._service,
            options.pipeline,
            deploy_role_arn=core.outputs["DeployRoleArn"],
            bucket=core.outputs["ArtifactBucketName"],
            connected=connected,
            connection_arn=connection_arn,
        )
        return self._stacks.deploy(spec, force=options.force)

    def _await(self, connection: Connection, wait_s: float) -> Connection:
        url = console_url(connection.arn)
        self._say(f"authorise GitHub once, as somebody who may install apps on the repository: {url}")
        self._say("  (Developer Tools → Connections → Update pending connection)")
        deadline = self._time.monotonic() + wait_s
        while not connection.available:
            if connection.status != "PENDING" or self._time.monotonic() >= deadline:
                raise ConflictError(
                    f"the connection to GitHub is {connection.status}",
                    hint=f"authorise it at {url}, then repeat `hitless aws bootstrap`: it continues from here",
                    details={"connection": connection.arn, "url": url},
                )
            self._time.sleep(self._poll_s)
            connection = self._connections().get(connection.arn)
        self._say("GitHub is connected")
        return connection

    def _check(self, told: PipelineOptions) -> None:
        """What the first run must be told; later runs keep it."""
        check_options(told)
        present = self._present(self._names.pipeline)
        if told.repository is None and "Repository" not in present:
            raise UsageError(
                "the pipeline's repository is unknown: origin is not on GitHub",
                hint="name it with --repository OWNER/NAME, or leave the pipeline out with --no-pipeline",
            )
        if told.package is None and "HitlessPackage" not in present:
            raise UsageError(
                "the deploy step does not know what to install as hitless",
                hint="name a wheel or a pinned git URL with --package, or leave the pipeline out with --no-pipeline",
            )

    def _present(self, name: str) -> Mapping[str, str]:
        """The parameters of a stack that came up once; empty where it must be made."""
        stack = self._stacks.find(name)
        made_anew = stack is None or next_step(stack.status) in (Step.CREATE, Step.RECREATE)
        return {} if stack is None or made_anew else stack.parameters

    def _connections(self) -> Connections:
        return Connections(self._aws.client("codeconnections"))
