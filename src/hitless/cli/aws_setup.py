"""`hitless aws plan`, `bootstrap` and `destroy`: the stacks that a stage needs on AWS."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from hitless.artifact.requirements import read_requirements
from hitless.aws.stacks import StackSpec
from hitless.aws.template import parse_template
from hitless.cli.common import Context, UnsuccessfulResult, command
from hitless.cli.findings import Finding, in_words, show_findings
from hitless.cloud.setup.bootstrap import Bootstrap, Bootstrapped
from hitless.cloud.setup.costs import Costs, costs, load_prices
from hitless.cloud.setup.destroy import Destroy, DestroyPlan
from hitless.cloud.setup.domain import SERVER_VARIABLE, public_dns
from hitless.cloud.setup.options import BootstrapOptions, IdentityOptions, PipelineOptions, parse_remote
from hitless.cloud.setup.plan import Findings, Planner
from hitless.cloud.setup.stacks import dry_run, is_production
from hitless.documents import to_plain
from hitless.errors import ConflictError, HitlessError, UsageError
from hitless.homes.aws_stage import connected, poll_seconds, template_folder, write_template
from hitless.homes.folder import ask_git
from hitless.service.model import Service

Boundary = Annotated[
    str | None,
    typer.Option("--boundary", help="ARN of the organisation's permissions boundary, for every role that is created."),
]
Trust = Annotated[
    str | None, typer.Option("--trust", help="Account ids and ARNs of roles that may release besides the pipeline.")
]
ExternalId = Annotated[
    str | None, typer.Option("--external-id", help="The external id of these accounts, or the one of --deploy-role.")
]
DeployRole = Annotated[
    str | None,
    typer.Option("--deploy-role", help="ARN of another account's deploy role: only the pipeline is created here."),
]
GitHubOidc = Annotated[
    bool | None,
    typer.Option("--github-oidc/--no-github-oidc", help="Allow GitHub workflows on the stage's branch to release."),
]
GitHubEnvironment = Annotated[
    str | None,
    typer.Option("--github-environment", help="The GitHub environment that may release, instead of the branch."),
]
Region = Annotated[str | None, typer.Option("--region", help="Instead of provider.region.")]
WithPipeline = Annotated[bool, typer.Option("--pipeline/--no-pipeline", help="Include the pipeline.")]


@command("aws doctor", example="hitless aws doctor --stage prod")
def aws_doctor(
    ctx: Context,
    region: Region = None,
    pipeline: WithPipeline = True,
    boundary: Boundary = None,
    trust: Trust = None,
    external_id: ExternalId = None,
    github: GitHubOidc = None,
    environment: GitHubEnvironment = None,
) -> None:
    """Check the account before a bootstrap. Credentials, quotas, permissions, domain; changes nothing.

    Give the options of the bootstrap.
    """
    service = ctx.load_for_aws(region)
    options = _options(ctx, IdentityOptions(boundary, trust, external_id, github, environment), pipeline=pipeline)
    with connected(ctx, service) as (aws, stacks):
        planner = Planner(service, aws, stacks, say=ctx.say)
        found = planner.check(options)
        findings = [Finding("credentials", True, aws.identity().arn)]
        if service.settings.domain:
            findings.append(_domain(planner, service.settings.domain))
    show_findings(ctx, [*findings, *in_account(found)])


def _options(ctx: Context, identity: IdentityOptions, *, pipeline: bool) -> BootstrapOptions:
    """The bootstrap that `doctor` and `plan` look ahead to."""
    has_tests = (ctx.service_dir / "buildspec-test.yml").is_file()
    return BootstrapOptions(PipelineOptions(tests=has_tests) if pipeline else None, identity=identity)


def in_account(found: Findings) -> list[Finding]:
    """The quotas and the permissions as checks. A check that AWS did not answer is not known, instead of passed."""
    findings = [
        Finding("quota", None, str(one), "allow servicequotas:GetServiceQuota")
        if one.limit is None
        else Finding("quota", one.enough, str(one), "request it in Service Quotas")
        for one in found.quotas
    ]
    if (missing := found.missing_permissions) is None:
        return [*findings, Finding("permissions", None, "not known", "allow iam:SimulatePrincipalPolicy")]
    told = ", ".join(missing) or "enough"
    return [*findings, Finding("permissions", not missing, told, "attach a policy with these actions")]


def _domain(planner: Planner, domain: str) -> Finding:
    try:
        planner.check_domain(public_dns(os.environ.get(SERVER_VARIABLE)))
    except HitlessError as error:
        return Finding("domain", False, error.message, error.hint)
    return Finding("domain", True, domain)


@command("aws plan", example="hitless aws plan --stage prod --offline")
def plan(
    ctx: Context,
    offline: Annotated[bool, typer.Option("--offline", help="Only the costs, without asking AWS.")] = False,
    region: Region = None,
    pipeline: WithPipeline = True,
    boundary: Boundary = None,
    trust: Trust = None,
    external_id: ExternalId = None,
    github: GitHubOidc = None,
    environment: GitHubEnvironment = None,
) -> None:
    """Show cost, changes, missing quotas and permissions. Changes nothing.

    Give the options of the bootstrap.
    """
    service = ctx.load_for_aws(region)
    priced = costs(service, load_prices(), pipeline=pipeline)
    ctx.say(_requirements(service))
    found = None
    if not offline:
        options = _options(ctx, IdentityOptions(boundary, trust, external_id, github, environment), pipeline=pipeline)
        with connected(ctx, service) as (aws, stacks):
            found = Planner(service, aws, stacks, say=ctx.say).look(options)
    ctx.show(_planned(service.stage, service.region, priced, found), lambda: _plan_in_words(priced, found))
    if found is not None:
        refuse_if_missing(found)


def _requirements(service: Service) -> str:
    """Whether the functions' requirements are checked by hashes. Raises BuildError as the build does."""
    read = [read_requirements(service.folder / module) for module in {one.module for one in service.functions}]
    if all(one.checked_by_hash for one in read if one.required):
        return "note: the packages of requirements.txt are checked by their hashes"
    return "note: packages are not checked by hashes; `uv pip compile --generate-hashes` writes them"


Repository = Annotated[str | None, typer.Option("--repository", help="OWNER/NAME on GitHub; default: git's origin.")]
Package = Annotated[
    str | None,
    typer.Option("--package", help="The hitless package for the deploy step: a wheel's or pinned git URL."),
]
NotifyOption = Annotated[
    str | None, typer.Option("--notify", help="An e-mail address for alarms, failures and approvals.")
]
Then = Annotated[
    str | None, typer.Option("--then", help="Stages that the pipeline promotes a release to: staging,prod.")
]
Cidr = Annotated[str | None, typer.Option("--cidr", help="The network's address range; default 10.0.0.0/16.")]
Zones = Annotated[
    str | None,
    typer.Option("--zones", help="Three availability zones; default: the first with Lambda and NAT gateways."),
]
ZoneId = Annotated[
    str | None, typer.Option("--zone-id", help="The hosted zone of the domain; default: the one with its name.")
]
Policies = Annotated[
    str | None, typer.Option("--policies", help="ARNs of policies that the service's own `resources` need.")
]
Assume = Annotated[str | None, typer.Option("--assume", help="ARNs of roles that the service's functions may assume.")]
Reads = Annotated[
    str | None, typer.Option("--reads", help="ARNs that ${ssm:}, ${cf:} and ${s3:} of the service's file read.")
]


@command("aws bootstrap", example="hitless aws bootstrap --stage prod --package 'git+https://…@v1' --dry-run")
def bootstrap(
    ctx: Context,
    dry: Annotated[bool, typer.Option("--dry-run", help="Write the templates without asking AWS.")] = False,
    region: Region = None,
    repository: Repository = None,
    package: Package = None,
    pipeline: WithPipeline = True,
    notify: NotifyOption = None,
    then: Then = None,
    cidr: Cidr = None,
    zones: Zones = None,
    zone_id: ZoneId = None,
    policies: Policies = None,
    assume: Assume = None,
    reads: Reads = None,
    boundary: Boundary = None,
    trust: Trust = None,
    external_id: ExternalId = None,
    deploy_role: DeployRole = None,
    github: GitHubOidc = None,
    environment: GitHubEnvironment = None,
    wait_s: Annotated[
        float, typer.Option("--wait", help="Seconds to wait until GitHub is authorised; 0 does not wait.")
    ] = 1800.0,
    force: Annotated[bool, typer.Option("--force", help="Replace or delete even resources that serve.")] = False,
) -> None:
    """Create or update what a stage needs on AWS. Network, artifact bucket, roles, domain and pipeline.

    Options of an earlier bootstrap stay in effect.
    """
    repository = repository or parse_remote(ask_git(ctx.service_dir, "remote", "get-url", "origin"))
    folder = ask_git(ctx.service_dir, "rev-parse", "--show-prefix")
    tests = (ctx.service_dir / "buildspec-test.yml").is_file()
    told = PipelineOptions(repository, folder, package, notify, tests, then)
    identity = IdentityOptions(boundary, trust, external_id, github, environment, deploy_role, assume, reads)
    options = BootstrapOptions(
        told if pipeline else None, cidr, zone_id, policies, wait_s, force, identity, repository, zones, notify
    )
    service = ctx.load_for_aws(region)
    if dry:
        written = write_templates(ctx, dry_run(service, options))
        ctx.show({"stacks": written}, lambda: "\n".join(f"{each['name']}  {each['template']}" for each in written))
        return
    with connected(ctx, service) as (aws, stacks):
        look_up = public_dns(os.environ.get(SERVER_VARIABLE))
        poll_s = poll_seconds(os.environ)
        runner = Bootstrap(service, aws, stacks, say=ctx.say, clock=time, poll_s=poll_s, look_up=look_up)
        result = runner.run(options)
    ctx.show(result.to_json(), lambda: _bootstrapped_in_words(result))


@command("aws destroy", example="hitless aws destroy --stage staging --confirm staging")
def destroy(
    ctx: Context,
    dry: Annotated[bool, typer.Option("--dry-run", help="List the stacks to delete; delete nothing.")] = False,
    region: Region = None,
    confirm: Annotated[str | None, typer.Option("--confirm", help="The stage's name, instead of typing it.")] = None,
    with_data: Annotated[
        bool, typer.Option("--with-data", help="Delete the artifacts, and the service's tables and buckets, too.")
    ] = False,
    with_domain: Annotated[bool, typer.Option("--with-domain", help="Delete the domain, too.")] = False,
) -> None:
    """Delete the stage's stacks: service, pipeline, core. Data and domain stay unless an option names them."""
    service = ctx.load_for_aws(region)
    with connected(ctx, service) as (aws, stacks):
        runner = Destroy(service, aws, stacks, say=ctx.say)
        plan = runner.plan(with_data=with_data, with_domain=with_domain)
        if not dry and (plan.goes or plan.keeps_core):
            _ask(ctx, service, plan, confirm)
            runner.run(plan, with_data=with_data)
    ctx.show({"stage": service.stage, "dry_run": dry, **plan.to_json()}, lambda: _destroyed_in_words(plan, dry=dry))


def refuse_if_missing(found: Findings) -> None:
    """UnsuccessfulResult with 1 if a bootstrap would fail because a quota or a permission is missing."""
    if not found.well:
        short = [quota.name for quota in found.quotas if not quota.enough]
        raise UnsuccessfulResult(
            1,
            f"a bootstrap would fail; missing: {', '.join([*short, *(found.missing_permissions or ())])}",
            "request the quota in Service Quotas, or the permissions; then run `hitless aws plan` again",
        )


def _planned(stage: str, region: str, priced: Costs, found: Findings | None) -> dict[str, Any]:
    return {
        "stage": stage,
        "region": region,
        "costs": to_plain(priced),
        "stacks": [each.to_json() for each in found.stacks] if found else None,
        "quotas": [each.to_json() for each in found.quotas] if found else None,
        "missing_permissions": found.missing_permissions if found else None,
        "well": found.well if found else None,
    }


def _plan_in_words(priced: Costs, found: Findings | None) -> str:
    lines = [f"${priced.fixed_usd_a_month:.2f} a month before any traffic"]
    for line in priced.lines:
        amount = f"${line.usd_a_month:.2f}" if line.usd_a_month is not None else "by use"
        unsure = f" (UNCONFIRMED: {line.unconfirmed})" if line.unconfirmed else ""
        lines.append(f"  {amount:>9}  {line.what}: {line.unit}{unsure}")
    lines.append("  choices of network, a month idle:")
    lines += [f"  {f'${one.usd_a_month:.2f}':>9}  {one.what}: {one.unit}" for one in priced.networks]
    lines.append(f"  prices: {priced.source}")
    if found is None:
        return "\n".join(lines)
    for stack in found.stacks:
        state = f"{len(stack.changes)} changes" if stack.exists else "new"
        lines += [f"{stack.name}: {state}", *(f"  {change}" for change in stack.changes)]
    return "\n".join([*lines, in_words(in_account(found))])


def write_templates(ctx: Context, specs: Iterable[StackSpec]) -> list[dict[str, Any]]:
    """The document of a dry run: each template is written into the data folder and named by its absolute path."""
    folder = template_folder(ctx)
    return [
        {
            "name": spec.name,
            "template": str(write_template(folder / f"{spec.name}.json", parse_template(spec.template))),
            "parameters": {key: value for key, value in sorted(spec.parameters.items()) if value is not None},
        }
        for spec in specs
    ]


def _bootstrapped_in_words(result: Bootstrapped) -> str:
    stacks = [stack for stack in (result.core, result.pipeline) if stack]
    lines = [f"{stack.name} {stack.status.lower().replace('_', ' ')}" for stack in stacks]
    if result.core is not None:
        lines.append(f"deploy role {result.core.outputs['DeployRoleArn']}")
    return "\n".join(lines)


def _ask(ctx: Context, service: Service, plan: DestroyPlan, confirm: str | None) -> None:
    """Return if a person confirms the stage. A protected stage's name must be given even with --yes."""
    if confirm is not None and confirm != service.stage:
        raise UsageError(f"--confirm: {confirm!r} is not the stage {service.stage}", hint="nothing was changed")
    if confirm is not None or (ctx.yes and not is_production(service)):
        return
    ctx.say(_destroyed_in_words(plan, dry=True))
    if ctx.ask(f"type {service.stage} to delete them:", hint=f"pass --confirm {service.stage}") != service.stage:
        raise ConflictError("not confirmed: nothing was changed", hint=f"type the stage's name, {service.stage}")


def _destroyed_in_words(plan: DestroyPlan, *, dry: bool) -> str:
    done = "would be deleted" if dry else "deleted"
    lines = [f"{done}: {name}" for name in plan.goes] or ["there is nothing to delete"]
    return "\n".join([*lines, *(f"stays: {what}" for what in plan.stays)])
