"""Builds the real objects of a stage on AWS, with the credentials of the environment."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hitless.aws.api_stages import ApiStages
from hitless.aws.buckets import Bucket
from hitless.aws.codedeploy import CodeDeploy, Shift
from hitless.aws.events import send_event
from hitless.aws.lambdas import Autoscaling, Lambdas
from hitless.aws.osls import find_osls
from hitless.aws.session import Aws, aws_errors, connect
from hitless.aws.stacks import Stacks
from hitless.aws.template import Template, dump_template
from hitless.aws.traffic import Traffic
from hitless.clock import SystemClock
from hitless.cloud.records.records import Records, Rollouts
from hitless.cloud.stage.core_outputs import CoreOutputs
from hitless.cloud.stage.permissions import StackPermissions
from hitless.cloud.stage.shield import Shield
from hitless.cloud.stage.stage import TIME_LIMIT, Cloud, ServiceStack
from hitless.cloud.transform.model import ALIAS
from hitless.documents import replace_file
from hitless.drill.target import fault_of
from hitless.errors import UsageError
from hitless.homes.home import Workplace
from hitless.release.who import Who
from hitless.service.model import Service

POLL_VARIABLE = "HITLESS_AWS_POLL_SECONDS"
CLOCK_VARIABLE = "HITLESS_AWS_CLOCK_FACTOR"


@dataclass(frozen=True, slots=True)
class AwsStage:
    """A stage on AWS, connected."""

    service: Service
    core: CoreOutputs
    cloud: Cloud
    aws: Aws
    stacks: Stacks


@contextmanager
def connected(
    place: Workplace, service: Service, *, environ: Mapping[str, str] = os.environ, profile: str | None = None
) -> Iterator[tuple[Aws, Stacks]]:
    """A verified session in the service's region, and the stacks there; translates botocore's errors inside."""
    poll_s = poll_seconds(environ)
    aws = connect(service.region, environ, profile=profile)
    with aws_errors():
        yield aws, Stacks(aws.client("cloudformation"), say=place.say, poll_s=poll_s)


@contextmanager
def connected_stage(
    place: Workplace,
    service: Service,
    *,
    service_role: bool = True,
    environ: Mapping[str, str] = os.environ,
    profile: str | None = None,
) -> Iterator[AwsStage]:
    """The stage on AWS; translates AWS's errors inside. Without `service_role` the stack is updated with the caller's
    credentials instead of core's role. `environ` and `profile` select the credentials.
    """
    clock, factor = SystemClock(), clock_factor(environ)
    with connected(place, service, environ=environ, profile=profile) as (aws, stacks):
        lambdas = Lambdas(aws.client("lambda"))
        core = core_of(stacks, service.name, service.stage, service.region)
        core = core if service_role else replace(core, cloudformation_role_arn="")
        bucket = Bucket(aws.client("s3"), core.bucket)
        name = f"{service.name}-{service.stage}"
        stack = ServiceStack(
            name, service=service.name, stage=service.stage, region=service.region, core=core, stacks=stacks,
            cloudformation=aws.client("cloudformation"), lambdas=lambdas,
            osls=lambda: find_osls(service.folder, aws.subprocess_environ()), say=place.say, now=clock.now,
        )  # fmt: skip
        api = ApiStages(aws.client("apigateway"))
        traffic, who = Traffic(aws.client("cloudwatch")), Who.of_environment(os.environ).called_by(aws.identity().name)
        cloud = Cloud(
            stack=stack,
            bucket=bucket,
            records=Records(bucket, service.stage),
            lambdas=lambdas,
            shift=Shift(
                CodeDeploy(aws.client("codedeploy"), name),
                lambdas,
                alias=ALIAS,
                poll_s=poll_seconds(environ),
                clock_factor=factor,
            ),
            shield=Shield(api, lambdas, place.say, lambda seconds: time.sleep(seconds / factor)),
            autoscaling=Autoscaling(aws.client("application-autoscaling")),
            api=api,
            traffic=traffic,
            rollouts=Rollouts(bucket, service.stage, traffic, clock),
            tell_ended=partial(send_event, aws.client("events"), place.say),
            who=who,
            clock=clock,
            say=place.say,
            ask=fault_of,
            time_limit_s=60 * _number(environ, TIME_LIMIT, math.inf, "a number of minutes", least=1, most=math.inf),
            permissions=StackPermissions(aws.client("iam"), role) if (role := core.cloudformation_role_arn) else None,
        )
        yield AwsStage(service, core, cloud, aws, stacks)


def core_of(stacks: Stacks, service: str, stage: str, region: str) -> CoreOutputs:
    """The outputs of a stage's core stack. UsageError if there is none."""
    name = f"{service}-core-{stage}"
    if (found := stacks.find(name)) is None:
        raise UsageError(
            f"there is no stack {name} in {region}", hint=f"create it with `hitless aws bootstrap --stage {stage}`"
        )
    return CoreOutputs.of(found.outputs, name)


def poll_seconds(environ: Mapping[str, str]) -> float:
    """Seconds between two polls of work in progress on AWS: 3, or $HITLESS_AWS_POLL_SECONDS."""
    return _number(environ, POLL_VARIABLE, 3, "a number of seconds up to 60", least=0.001, most=60)


def clock_factor(environ: Mapping[str, str]) -> float:
    """How much faster than real time our own waits for AWS pass: 1, or $HITLESS_AWS_CLOCK_FACTOR for emulators."""
    return _number(environ, CLOCK_VARIABLE, 1, "a number from 1 to 1000", least=1, most=1000)


def _number(
    environ: Mapping[str, str], variable: str, default: float, wanted: str, *, least: float, most: float
) -> float:
    text = environ.get(variable, str(default))
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not least <= number <= most:
        raise UsageError(f"{variable}: {text!r} is not {wanted}", hint="unset it")
    return number


def template_folder(place: Workplace) -> Path:
    """The folder into which dry runs of the stage write their templates."""
    return place.data_dir / "aws" / place.stage


def write_template(path: Path, template: Template) -> Path:
    """Write a template as indented JSON, by one rename."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, dump_template(template, indent=2) + "\n")
    return path
