"""The stages that the engine does not serve, as `hitless status` shows them beside the engine's."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hitless.cli.common import Context
from hitless.cli.homes import MODULES, try_load
from hitless.service.model import Home, Service


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The stages of a service that the engine does not serve. `order`: all stages, as the file has them."""

    service: str
    order: tuple[str, ...]
    ctx: Context
    stages: tuple[Service, ...]

    def entries(self) -> list[dict[str, Any]]:
        """Each as `status` shows it; all are asked at once."""
        aws = importlib.import_module(MODULES[Home.AWS])
        with ThreadPoolExecutor(max_workers=len(self.stages)) as pool:
            return list(pool.map(lambda service: aws.entry_or_error(self.ctx, service), self.stages))


def stages_elsewhere(ctx: Context) -> Elsewhere | None:
    """The stages on AWS of the folder's service; None where there is none, or no file to say so."""
    service = try_load(ctx, ctx.stage)
    if service is None:
        return None
    names = [stage.name for stage in service.stages if stage.home is Home.AWS]
    stages = tuple(one for name in names if (one := _loaded(ctx, service, name)) is not None)
    order = tuple(stage.name for stage in service.stages)
    return Elsewhere(service.name, order, ctx, stages) if stages else None


def _loaded(ctx: Context, service: Service, stage: str) -> Service | None:
    found = service if stage == service.stage else try_load(ctx, stage)
    if found is None:
        ctx.say(f"warning: {stage} on AWS is not shown: {service.file.name} cannot be read for it")
    return found
