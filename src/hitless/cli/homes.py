"""A stage's home. A verb without `aws` works on this machine's engine; a stage whose home is AWS is refused by name."""

from __future__ import annotations

import os

from hitless.cli.common import Context
from hitless.errors import HitlessError, UsageError
from hitless.service.load import load_service
from hitless.service.model import Home, Service


def refuse_aws(service: Service, verb: str) -> None:
    """UsageError that names the verb on AWS, where that is the stage's home."""
    if service.settings.home is Home.AWS:
        raise UsageError(
            f"{service.file.name}: the home of stage {service.stage} is AWS, not this machine's engine",
            hint=f"`hitless aws {verb} --stage {service.stage}`; or set `home: engine` for the stage",
        )


def check_home(ctx: Context, verb: str) -> None:
    """`refuse_aws` for a verb that needs no file: one that is missing or cannot be read says nothing of a home."""
    try:
        service = load_service(ctx.service_dir, stage=ctx.stage, options={"stage": ctx.stage}, environ=os.environ)
    except HitlessError:
        return
    refuse_aws(service, verb)
