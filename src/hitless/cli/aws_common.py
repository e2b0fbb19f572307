"""What the verbs on AWS share: the service read for AWS, a proved session, templates written out, a typed answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hitless.aws.session import Aws, aws_errors, connect
from hitless.aws.stacks import Stacks, StackSpec
from hitless.aws.template import Template, dump_template, parse_template
from hitless.cli.common import Context, read_service
from hitless.cloud.stage.core_outputs import CoreOutputs
from hitless.errors import MachineError, UsageError
from hitless.service.model import Service

POLL_VARIABLE = "HITLESS_AWS_POLL_SECONDS"
CLOCK_VARIABLE = "HITLESS_AWS_CLOCK_FACTOR"


@dataclass(frozen=True, slots=True)
class Connected:
    """A proved session, and the stacks of its account and region."""

    aws: Aws
    stacks: Stacks
    poll_s: float


def load_for_aws(ctx: Context, region: str | None = None) -> Service:
    """The service of the folder. What differs on the engine is no concern here, so notices stay unsaid."""
    options = {"stage": ctx.stage} | ({"region": region} if region else {})
    service = read_service(replace(ctx, options=options))
    return replace(service, region=region) if region else service


@contextmanager
def connected(
    ctx: Context, service: Service, *, environ: Mapping[str, str] = os.environ, profile: str | None = None
) -> Iterator[Connected]:
    """A session in the service's region; botocore's errors inside become ours. Credentials are proved first."""
    poll_s = poll_seconds(environ)
    aws = connect(service.region, environ, profile=profile)
    with aws_errors():
        yield Connected(aws, Stacks(aws.client("cloudformation"), say=ctx.say, poll_s=poll_s), poll_s)


def core_of(stacks: Stacks, service: str, stage: str, region: str) -> CoreOutputs:
    """The outputs of a stage's core stack. Raises UsageError where there is none."""
    name = f"{service}-core-{stage}"
    if (found := stacks.find(name)) is None:
        raise UsageError(
            f"there is no stack {name} in {region}", hint=f"make it by `hitless aws bootstrap --stage {stage}`"
        )
    return CoreOutputs.of(found.outputs, name)


def poll_seconds(environ: Mapping[str, str]) -> float:
    """How often AWS is asked while something goes on there: 3 s, or what $HITLESS_AWS_POLL_SECONDS says."""
    return _number(environ, POLL_VARIABLE, 3, "a number of seconds up to 60", least=0.001, most=60)


def clock_factor(environ: Mapping[str, str]) -> float:
    """How much faster than AWS's the tool's own watches and waits pass: $HITLESS_AWS_CLOCK_FACTOR, for emulators; 1."""
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


def write_templates(ctx: Context, specs: Iterable[StackSpec]) -> list[dict[str, Any]]:
    """The stacks as a dry run shows them: each template in a file of the data folder, by its absolute path."""
    folder = template_folder(ctx)
    return [
        {
            "name": spec.name,
            "template": str(write_template(folder / f"{spec.name}.json", parse_template(spec.template))),
            "parameters": {key: value for key, value in sorted(spec.parameters.items()) if value is not None},
        }
        for spec in specs
    ]


def template_folder(ctx: Context) -> Path:
    """Where dry runs of the stage write their templates."""
    return ctx.data_dir / "aws" / ctx.stage


def write_template(path: Path, template: Template) -> Path:
    """A template as a dry run shows it: indented JSON, there as a whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(dump_template(template, indent=2) + "\n", "utf-8")
    temporary.replace(path)
    return path


def typed(ctx: Context, question: str, wanted: str) -> bool:
    """Whether a person at the terminal types `wanted`. MachineError where nobody can."""
    if not sys.stdin.isatty():
        raise MachineError(
            "this must be confirmed, and there is no terminal to ask at", hint=f"give --confirm {wanted}"
        )
    ctx.say(question)
    return sys.stdin.readline().strip() == wanted
