"""A stage's home: `custom.hitless.stages.STAGE.home` decides where the plain verbs work. This is the place that picks.

Each home is a module that is imported only where a stage lives there: a deploy on the engine does not load boto3.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from hitless.cli.common import Context, read_service
from hitless.errors import HitlessError, UsageError
from hitless.service.model import Home, Service

MODULES = {Home.ENGINE: "hitless.cli.engine_home", Home.AWS: "hitless.cli.aws_home"}
"""Each has `HOME`, a StageHome."""


@dataclass(frozen=True, slots=True)
class DeployOrder:
    """What `hitless deploy` was asked for. `strategy` as it was typed; None is the stage's own."""

    strategy: str | None = None
    no_wait: bool = False
    dry_run: bool = False
    force: bool = False
    message: str | None = None


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines. `limit`: so many of the past, the newest; None is all that the home shows at once."""

    function: str | None
    follow: bool
    release: int | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Drilled:
    """What a drill asks the stage's home besides the verbs. `on_engine`: whether there are workers to watch, and
    processes to kill.
    """

    status: Callable[[], dict[str, Any]]
    release: Callable[[int], dict[str, Any]]
    on_engine: bool


class StageHome(Protocol):
    """The plain verbs for the stage of the context. Each shows its document, in the contract's shape, or raises."""

    def deploy(self, ctx: Context, service: Service, order: DeployOrder) -> None: ...
    def rollback(self, ctx: Context, release: int | None, message: str | None) -> None: ...
    def abort(self, ctx: Context) -> None: ...
    def logs(self, ctx: Context, query: LogQuery) -> None: ...

    def releases(self, ctx: Context) -> list[dict[str, Any]]:
        """Newest first."""
        ...

    def release(self, ctx: Context, number: int) -> dict[str, Any]:
        """One release with the receipts of its rollouts. UsageError where there is none of that number."""
        ...

    def drilled(self, ctx: Context) -> Drilled: ...


def home_of(ctx: Context) -> StageHome:
    """The home of the context's stage. Where no file can be read nothing says otherwise than the engine."""
    service = try_load(ctx, ctx.stage)
    return home_at(service.settings.home if service is not None else Home.ENGINE)


def home_at(home: Home) -> StageHome:
    """The verbs there."""
    return cast(StageHome, importlib.import_module(MODULES[home]).HOME)


def read(ctx: Context) -> Service:
    """The service of the folder, read for the context's stage. ServiceFileError where it cannot be read."""
    service = read_service(ctx)
    if service.settings.home is Home.AWS:  # where osls is always given the stage
        return read_service(replace(ctx, options={"stage": ctx.stage}))
    return service


def try_load(ctx: Context, stage: str) -> Service | None:
    """The service of the folder, read for the stage; None where it is missing or cannot be read."""
    try:
        return read_service(replace(ctx, stage=stage, options={"stage": stage}))
    except HitlessError:
        return None


def refuse_aws(service: Service, verb: str) -> None:
    """UsageError that names the verb on AWS: for what is the engine's alone."""
    if service.settings.home is Home.AWS:
        raise UsageError(
            f"{service.file.name}: the home of stage {service.stage} is AWS, not this machine's engine",
            hint=f"`hitless {verb} --stage {service.stage}`; or set `home: engine` for the stage",
        )
