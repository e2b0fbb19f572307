"""Creates or updates what a stage needs on AWS: the core stack, then the pipeline and its connection to GitHub.

Safe to repeat at any point: each step first checks what exists, so the next run finishes an interrupted one.
`Bootstrap.run` shows the order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hitless.aws.account import (
    NUMBER_OF_ZONES,
    GitHubConnection,
    GitHubConnections,
    close_default_group,
    console_url,
    ensure_log_role,
    ensure_provider,
    find_zone,
    usable_zones,
)
from hitless.aws.follow import Stack, StackStep, Time, next_step
from hitless.aws.session import Aws
from hitless.aws.stacks import Stacks, StackSpec
from hitless.cloud.setup.domain import LookUp, check_domain
from hitless.cloud.setup.options import (
    BootstrapOptions,
    GitHubTrust,
    PipelineOptions,
    account_of,
    check_apart,
    check_kept,
    check_options,
    check_parts,
)
from hitless.cloud.setup.stacks import DEFAULT_CIDR, DeployRole, connection_name, core_stack, names_of, pipeline_stack
from hitless.errors import ConflictError, UsageError
from hitless.service.model import Service


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """The stacks. `connection` is None without a pipeline, `core` is None if another account's is released to."""

    core: Stack | None
    pipeline: Stack | None
    connection: GitHubConnection | None

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


class Bootstrap:
    """One stage of one service on AWS. `say` gets one sentence a line, `look_up` asks public DNS."""

    def __init__(
        self,
        service: Service,
        aws: Aws,
        stacks: Stacks,
        *,
        say: Callable[[str], None],
        clock: Time,
        poll_s: float = 5.0,
        look_up: LookUp,
    ) -> None:
        self._service, self._aws, self._stacks = service, aws, stacks
        self._say, self._time, self._poll_s, self._look_up = say, clock, poll_s, look_up
        self._names = names_of(service)

    def run(self, options: BootstrapOptions) -> Bootstrapped:
        """Make core, close its default security group, await the connection, make the pipeline.

        Raises ConflictError for a foreign stack, a harmful change, or a connection that was not authorised in time;
        UsageError if an option is missing.
        """
        check_parts(options)
        if options.pipeline is not None:
            self._check(options.pipeline)
        elsewhere = self._role_elsewhere(options)
        if elsewhere:
            check_apart(self._service)
        then = self._then(options.pipeline) if options.pipeline and not elsewhere else {}
        core = None if elsewhere else self._make_core(options)
        if options.pipeline is None:
            return Bootstrapped(core, None, None)
        told = options.identity
        if core is None:
            releases_as = DeployRole(elsewhere or "", "", told.boundary, told.external_id)
        else:  # it requires no external id of this account's own pipeline
            bucket, boundary = core.outputs["ArtifactBucketName"], core.parameters.get("Boundary", "")
            releases_as = DeployRole(core.outputs["DeployRoleArn"], bucket, boundary, "", then)
        pipeline, connection, connected = self._connect(releases_as, options)
        if not connection.available:
            connection = self._await(connection, options.connection_wait_s)
        if not connected:  # as the stack was made: a person may authorise GitHub at any moment since
            pipeline = self._pipeline(releases_as, options, connected=True)
        self._say(f"a push to {self._service.settings.branch} now releases to {self._service.stage}")
        return Bootstrapped(core, pipeline, connection)

    def _make_core(self, options: BootstrapOptions) -> Stack:
        core = self._stacks.deploy(self._core(options), force=options.force)
        group = core.outputs["DefaultSecurityGroupId"]
        if group and (closed := close_default_group(self._aws.client("ec2"), group)):
            self._say(f"{core.name}: the network's default security group is closed (rules removed: {closed})")
        self._let_api_gateway_log(core)
        return core

    def _role_elsewhere(self, options: BootstrapOptions) -> str | None:
        """The deploy role of another account, as given now or to an earlier bootstrap of this pipeline."""
        if options.pipeline is None:
            return None
        account = self._aws.identity().account
        told = options.identity.deploy_role
        role = told or self._present(self._names.pipeline).get("DeployRoleArn", "")
        if not role or account_of(role) == account:
            if told:
                raise UsageError(
                    f"--deploy-role: {told} is of this account, {account}",
                    hint="leave the option out: the pipeline uses this account's deploy role by default",
                )
            return None
        return role

    def _let_api_gateway_log(self, core: Stack) -> None:
        partition = self._aws.identity().partition
        apigateway, iam = self._aws.client("apigateway"), self._aws.client("iam")
        boundary = core.parameters.get("Boundary", "")
        if arn := ensure_log_role(apigateway, iam, partition=partition, boundary=boundary):
            self._say(f"API Gateway writes access logs of this account's APIs by {arn}")

    def _core(self, options: BootstrapOptions) -> StackSpec:
        """A network keeps its addresses and zones unless told otherwise. A domain may be new: its zone is looked up."""
        exists = self._present(self._names.core)
        domain = self._service.settings.domain
        zone = options.zone_id
        if domain:
            route53, present = self._aws.client("route53"), exists.get("DomainName") == domain
            zone = zone or (exists.get("HostedZoneId") if present else None) or find_zone(route53, domain)
            if not present:
                check_domain(route53, domain, zone, self._look_up, self._say)
        cidr = options.cidr or (None if exists else DEFAULT_CIDR)
        keep_nat = bool(exists) and not self._service.settings.network.own and self._in_own_network()
        if keep_nat:
            self._say(f"{self._names.core}: its NAT gateways stay until the functions leave: deploy, then repeat this")
        has_network = bool(exists) and exists.get("MakeNetwork", "yes") == "yes"
        zones = options.zones
        if zones is None and not has_network and self._service.settings.network.own:
            zones = ",".join(usable_zones(self._aws.client("ec2"), self._service.region)[:NUMBER_OF_ZONES])
        check_kept(options.identity, exists, self._aws.identity().account)
        return core_stack(
            self._service,
            cidr=cidr,
            zone_id=zone,
            zones=zones,
            policies=options.policies,
            identity=options.identity,
            github=self._github(options, exists) if options.identity.github else None,
            keep_nat=keep_nat,
            notify_email=options.notify_email,
            concurrency=self._aws.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"],
        )

    def _in_own_network(self) -> bool:
        """Whether an alias of the service has traffic for a version in the network that the core stack made."""
        vpc = self._stacks.resources(self._names.core).get("Vpc", ("", ""))[1]
        if not vpc or self._stacks.find(self._names.service) is None:
            return False
        ask, held = self._aws.client("lambda").get_function_configuration, self._stacks.resources(self._names.service)
        aliases = [arn for kind, arn in held.values() if kind == "AWS::Lambda::Alias"]
        return any(ask(FunctionName=arn).get("VpcConfig", {}).get("VpcId") == vpc for arn in aliases)

    def _github(self, options: BootstrapOptions, kept: Mapping[str, str]) -> GitHubTrust:
        repository = options.repository or kept.get("GitHubRepository")
        if not repository:
            raise UsageError(
                "--github-oidc: the repository is unknown, because origin is not on GitHub",
                hint="name the repository with --repository OWNER/NAME",
            )
        arn, made = ensure_provider(self._aws.client("iam"), self._aws.identity())
        self._say(f"this account accepts tokens of GitHub Actions by {arn}{' (created now)' if made else ''}")
        return GitHubTrust(arn, repository)

    def _connect(self, releases_as: DeployRole, options: BootstrapOptions) -> tuple[Stack, GitHubConnection, bool]:
        """The pipeline stack, its connection, and whether it was made with the pipeline itself.

        The connection is the service's own if another stage has made it. An existing pipeline stays, even if GitHub
        revoked the connection.
        """
        connections = self._connections()
        present = self._present(self._names.pipeline)
        found = None if present else connections.named(connection_name(self._service))
        standing = self._stacks.find(self._names.pipeline) if present else None
        known = connections.get(standing.outputs["ConnectionArn"]) if standing else found
        connected = bool(known and known.available) or present.get("Connection") == "ready"
        arn = found.arn if found else None
        pipeline = self._pipeline(releases_as, options, connected=connected, connection_arn=arn)
        return pipeline, connections.get(pipeline.outputs["ConnectionArn"]), connected

    def _pipeline(
        self, releases_as: DeployRole, options: BootstrapOptions, *, connected: bool, connection_arn: str | None = None
    ) -> Stack:
        assert options.pipeline is not None
        spec = pipeline_stack(
            self._service,
            options.pipeline,
            releases_as,
            connected=connected,
            connection_arn=connection_arn,
        )
        return self._stacks.deploy(spec, force=options.force)

    def _then(self, told: PipelineOptions) -> dict[str, str]:
        """Stage → deploy role of the stages that the pipeline promotes to, as given now or to an earlier bootstrap."""
        kept = self._present(self._names.pipeline)
        names = told.then if told.then is not None else f"{kept.get('Second', '')},{kept.get('Third', '')}"
        stacks = {name: names_of(replace(self._service, stage=name)) for name in filter(None, names.split(","))}
        for name, its in stacks.items():
            if self._stacks.find(its.pipeline) is not None:
                hint = (
                    f"run `aws cloudformation delete-stack --stack-name {its.pipeline}`, or leave {name} out of --then"
                )
                raise ConflictError(f"--then: {name} has a pipeline of its own, the stack {its.pipeline}", hint=hint)
        return {name: self._stacks.get(its.core).outputs["DeployRoleArn"] for name, its in stacks.items()}

    def _await(self, connection: GitHubConnection, wait_s: float) -> GitHubConnection:
        url = console_url(connection.arn)
        self._say(f"authorise GitHub once, with an account that may install apps on the repository: {url}")
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
        """Check the options that only the first run needs; later runs keep them."""
        check_options(told)
        present = self._present(self._names.pipeline)
        if told.repository is None and "Repository" not in present:
            raise UsageError(
                "the pipeline's repository is unknown: origin is not on GitHub",
                hint="name it with --repository OWNER/NAME, or skip the pipeline with --no-pipeline",
            )
        if told.package is None and "HitlessPackage" not in present:
            raise UsageError(
                "the pipeline's deploy step needs a hitless package to install, and none is named",
                hint="name a wheel or a pinned git URL with --package, or skip the pipeline with --no-pipeline",
            )

    def _present(self, name: str) -> Mapping[str, str]:
        """The parameters of a stack that came up once; empty if it must be created."""
        stack = self._stacks.find(name)
        made_anew = stack is None or next_step(stack.status) in (StackStep.CREATE, StackStep.RECREATE)
        return {} if stack is None or made_anew else stack.parameters

    def _connections(self) -> GitHubConnections:
        return GitHubConnections(self._aws.client("codeconnections"))
