"""`hitless aws bootstrap`: make what a stage stands on, or bring it up to date; harmless to repeat."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from hitless.cli.aws_common import connected, load_for_aws, write_templates
from hitless.cli.bootstrap_options import Boundary, DeployRole, ExternalId, GitHubEnvironment, GitHubOidc, Trust
from hitless.cli.common import Context, command
from hitless.cloud.setup.bootstrap import Bootstrap, Bootstrapped
from hitless.cloud.setup.identity import IdentityOptions
from hitless.cloud.setup.options import BootstrapOptions, dry_run
from hitless.cloud.setup.repository import read_repository
from hitless.cloud.setup.stacks import PipelineOptions


def register(app: typer.Typer) -> None:
    @command(app, "bootstrap", example="hitless aws bootstrap --stage prod --package 'git+https://…@v1' --dry-run")
    def bootstrap(
        ctx: Context,
        dry: Annotated[bool, typer.Option("--dry-run", help="Write the templates; ask and touch nothing.")] = False,
        region: Annotated[str | None, typer.Option("--region", help="Instead of provider.region.")] = None,
        repository: Annotated[
            str | None, typer.Option("--repository", help="OWNER/NAME on GitHub; default: git's origin.")
        ] = None,
        package: Annotated[
            str | None,
            typer.Option("--package", help="What the deploy step installs as hitless: a wheel, a pinned URL."),
        ] = None,
        pipeline: Annotated[bool, typer.Option("--pipeline/--no-pipeline", help="With a pipeline or without.")] = True,
        notify: Annotated[
            str | None, typer.Option("--notify", help="An e-mail address for failures, approvals.")
        ] = None,
        cidr: Annotated[
            str | None, typer.Option("--cidr", help="The network's addresses; default 10.0.0.0/16.")
        ] = None,
        zone_id: Annotated[
            str | None, typer.Option("--zone-id", help="The domain's hosted zone; default: the one that holds it.")
        ] = None,
        policies: Annotated[
            str | None,
            typer.Option("--policies", help="ARNs of policies for what the service's own `resources` need."),
        ] = None,
        boundary: Boundary = None,
        trust: Trust = None,
        external_id: ExternalId = None,
        deploy_role: DeployRole = None,
        github: GitHubOidc = None,
        environment: GitHubEnvironment = None,
        wait_s: Annotated[
            float, typer.Option("--wait", help="Seconds to wait for GitHub to be authorised; 0 does not wait.")
        ] = 1800.0,
        force: Annotated[bool, typer.Option("--force", help="Replace even what serves.")] = False,
    ) -> None:
        """Make or update what a stage stands on. Network, artifact bucket, roles, domain and pipeline on AWS.

        Options once given are kept by the stacks.
        """
        found = read_repository(ctx.service_dir)
        repository = repository or found.name
        tests = (ctx.service_dir / "buildspec-test.yml").is_file()
        told = PipelineOptions(repository, found.folder, package, notify, tests)
        identity = IdentityOptions(boundary, trust, external_id, github, environment, deploy_role)
        options = BootstrapOptions(
            told if pipeline else None, cidr, zone_id, policies, wait_s, force, identity, repository
        )
        service = load_for_aws(ctx, region)
        if dry:
            stacks = write_templates(ctx, dry_run(service, options))
            ctx.show({"stacks": stacks}, lambda: "\n".join(f"{each['name']}  {each['template']}" for each in stacks))
            return
        with connected(ctx, service) as on:
            runner = Bootstrap(service, on.aws, on.stacks, say=ctx.say, clock=time, poll_s=on.poll_s)
            result = runner.run(options)
        ctx.show(result.to_json(), lambda: _in_words(result))


def _in_words(result: Bootstrapped) -> str:
    stacks = [stack for stack in (result.core, result.pipeline) if stack]
    lines = [f"{stack.name} {stack.status.lower().replace('_', ' ')}" for stack in stacks]
    if result.core is not None:
        lines.append(f"deploy role {result.core.outputs['DeployRoleArn']}")
    return "\n".join(lines)
