"""`hitless aws plan`: what a bootstrap would change, cost and lack."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hitless.cli.aws_common import connected, load_for_aws
from hitless.cli.bootstrap_options import Boundary, ExternalId, GitHubEnvironment, GitHubOidc, Trust
from hitless.cli.common import Context, Ended, command
from hitless.cloud.setup.costs import Costs, costs, load_prices
from hitless.cloud.setup.identity import IdentityOptions
from hitless.cloud.setup.options import BootstrapOptions
from hitless.cloud.setup.plan import Findings, Planner
from hitless.cloud.setup.stacks import PipelineOptions


def register(app: typer.Typer) -> None:
    @command(app, "plan", example="hitless aws plan --stage prod --offline")
    def plan(
        ctx: Context,
        offline: Annotated[bool, typer.Option("--offline", help="Only the costs; ask no AWS.")] = False,
        region: Annotated[str | None, typer.Option("--region", help="Instead of provider.region.")] = None,
        pipeline: Annotated[bool, typer.Option("--pipeline/--no-pipeline", help="With a pipeline or without.")] = True,
        boundary: Boundary = None,
        trust: Trust = None,
        external_id: ExternalId = None,
        github: GitHubOidc = None,
        environment: GitHubEnvironment = None,
    ) -> None:
        """State the cost a month, and what would change. And quotas that are short, permissions that lack.

        Options are those that the bootstrap will be given.
        """
        service = load_for_aws(ctx, region)
        priced = costs(service, load_prices(), pipeline=pipeline)
        found = None
        if not offline:
            has_tests = (ctx.service_dir / "buildspec-test.yml").is_file()
            identity = IdentityOptions(boundary, trust, external_id, github, environment)
            options = BootstrapOptions(PipelineOptions(tests=has_tests) if pipeline else None, identity=identity)
            with connected(ctx, service) as on:
                found = Planner(service, on.aws, on.stacks, say=ctx.say).look(options)
        ctx.show(_document(service.stage, service.region, priced, found), lambda: _in_words(priced, found))
        if found is not None:
            refuse_what_lacks(found)


def refuse_what_lacks(found: Findings) -> None:
    """Ended with 1, as a doctor that found something, where a bootstrap would fail for want of something."""
    if not found.well:
        short = [quota.name for quota in found.quotas if not quota.enough]
        raise Ended(
            1,
            f"a bootstrap would fail for want of: {', '.join([*short, *(found.missing_permissions or ())])}",
            "ask for more in Service Quotas, or for the permissions; then plan again",
        )


def _document(stage: str, region: str, priced: Costs, found: Findings | None) -> dict[str, Any]:
    return {
        "stage": stage,
        "region": region,
        "costs": priced.to_json(),
        "stacks": [each.to_json() for each in found.stacks] if found else None,
        "quotas": [each.to_json() for each in found.quotas] if found else None,
        "missing_permissions": found.missing_permissions if found else None,
        "well": found.well if found else None,
    }


def _in_words(priced: Costs, found: Findings | None) -> str:
    lines = [f"${priced.fixed_usd_a_month:.2f} a month before any traffic"]
    for line in priced.lines:
        amount = f"${line.usd_a_month:.2f}" if line.usd_a_month is not None else "by use"
        unsure = f" (UNCONFIRMED: {line.unconfirmed})" if line.unconfirmed else ""
        lines.append(f"  {amount:>9}  {line.what}: {line.unit}{unsure}")
    lines.append(f"  prices: {priced.source}")
    if found is None:
        return "\n".join(lines)
    for stack in found.stacks:
        state = f"{len(stack.changes)} changes" if stack.exists else "new"
        lines += [f"{stack.name}: {state}", *(f"  {change}" for change in stack.changes)]
    lines += [str(quota) for quota in found.quotas]
    if found.missing_permissions is None:
        lines.append("missing permissions: not known, these credentials may not simulate policies")
    elif found.missing_permissions:
        lines.append(f"missing permissions: {', '.join(found.missing_permissions)}")
    return "\n".join(lines)
