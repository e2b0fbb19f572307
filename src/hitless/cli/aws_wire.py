"""Builds the real objects of a release on AWS from the common options; and what the `aws` verbs share."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from hitless.artifact.build import build
from hitless.artifact.model import Artifact
from hitless.artifact.store import ArtifactStore
from hitless.aws.api_stages import ApiStages
from hitless.aws.autoscaling import Autoscaling
from hitless.aws.buckets import Bucket
from hitless.aws.codedeploy import CodeDeploy
from hitless.aws.lambdas import Lambdas
from hitless.aws.mappings import Mappings
from hitless.aws.osls import find_osls
from hitless.aws.session import Aws
from hitless.aws.traffic import Traffic
from hitless.cli.aws_common import clock_factor, connected, core_of
from hitless.cli.common import Context, Ended
from hitless.clock import SystemClock
from hitless.cloud.records.records import Records
from hitless.cloud.records.result import Result
from hitless.cloud.records.rollouts import Rollouts
from hitless.cloud.stage.core_outputs import CoreOutputs
from hitless.cloud.stage.service_stack import ServiceStack
from hitless.cloud.stage.settling import Cloud
from hitless.cloud.stage.shield import Shield
from hitless.cloud.stage.shift import Shift
from hitless.release.result import Outcome
from hitless.release.who import Who
from hitless.service.model import Service


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage on AWS, connected."""

    service: Service
    core: CoreOutputs
    cloud: Cloud
    aws: Aws


def store_of(ctx: Context) -> ArtifactStore:
    """The artifacts of the data folder."""
    return ArtifactStore(ctx.data_dir / "artifacts")


def build_portable(ctx: Context, service: Service) -> dict[str, Artifact]:
    """The artifacts for the declared platform. Raises BuildError or MachineError."""
    ctx.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    built = build(service, store_of(ctx), say=ctx.say)
    for warning in built.warnings:
        ctx.say(f"warning: {warning}")
    return dict(built.portable)


@contextmanager
def connected_stage(
    ctx: Context,
    service: Service,
    *,
    service_role: bool = True,
    environ: Mapping[str, str] = os.environ,
    profile: str | None = None,
) -> Iterator[Stage]:
    """The stage on AWS, with credentials proved; AWS's errors within become the contract's. Without `service_role` the
    stack is updated with the caller's credentials, and not core's role. `environ` and `profile` say whose they are.
    """
    clock, factor = SystemClock(), clock_factor(environ)
    with connected(ctx, service, environ=environ, profile=profile) as found_aws:
        aws, stacks, poll_s = found_aws.aws, found_aws.stacks, found_aws.poll_s
        cloudformation, lambdas = aws.client("cloudformation"), Lambdas(aws.client("lambda"))
        core = core_of(stacks, service.name, service.stage, service.region)
        core = core if service_role else replace(core, cloudformation_role_arn="")
        bucket = Bucket(aws.client("s3"), core.bucket)
        name = f"{service.name}-{service.stage}"
        stack = ServiceStack(
            name, service=service.name, stage=service.stage, region=service.region, core=core, stacks=stacks,
            cloudformation=cloudformation, lambdas=lambdas,
            osls=lambda: find_osls(service.folder, aws.subprocess_environ(os.environ)), say=ctx.say, now=clock.now,
        )  # fmt: skip
        api = ApiStages(aws.client("apigateway"))
        shield = Shield(api, lambdas, ctx.say, lambda seconds: time.sleep(seconds / factor))
        shift = Shift(CodeDeploy(aws.client("codedeploy"), name), lambdas, poll_s=poll_s, clock_factor=factor)
        traffic, who = Traffic(aws.client("cloudwatch")), Who.of_environment(os.environ).called_by(aws.identity().name)
        cloud = Cloud(
            stack=stack, bucket=bucket, records=Records(bucket, service.stage), lambdas=lambdas, shift=shift,
            shield=shield, autoscaling=Autoscaling(aws.client("application-autoscaling")), api=api,
            mappings=Mappings(aws.client("apigateway")),
            traffic=traffic,
            rollouts=Rollouts(bucket, service.stage, traffic, clock), who=who.to_json(), clock=clock, say=ctx.say,
        )  # fmt: skip
        yield Stage(service, core, cloud, aws)


def conclude(ctx: Context, result: Result) -> None:
    """Show a release's end; raises Ended where it did not go live."""
    ctx.show(result.to_json(), lambda: _sentence(result))
    if result.outcome.exit_code:
        raise Ended(
            result.outcome.exit_code,
            f"release {result.release} was {result.outcome.replace('_', ' ')}: {result.reason}",
            "`hitless aws logs` tells more; the release that was live serves",
        )


def _sentence(result: Result) -> str:
    if result.outcome is Outcome.UNCHANGED:
        return f"release {result.release} is live already: nothing has changed"
    if result.outcome is Outcome.LIVE:
        return f"release {result.release} is live in {result.stage} ({result.duration_s:.0f} s) at {result.url}"
    return f"release {result.release}: {result.outcome.replace('_', ' ')}"
