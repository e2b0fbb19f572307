"""How a promotion becomes a run: what is live in one stage, at whichever home, is to ship to another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.clock import timestamp
from hitless.documents import to_plain
from hitless.errors import ConflictError, HitlessError, UsageError
from hitless.pipeline.definition import Definition
from hitless.pipeline.errands import Place
from hitless.pipeline.parts import Parts
from hitless.pipeline.runs import RunState
from hitless.release.document import Origin
from hitless.service.model import Home
from hitless.store.runs import RunRow


@dataclass(frozen=True, slots=True)
class Promotion:
    """What `promote` asks for. `document` is the target's configuration as the service's folder has it: the commit's
    own goes before it where the repository holds the commit. `folder` tells of stages on AWS.
    """

    source: str
    target: str
    source_home: Home = Home.ENGINE
    document: Mapping[str, Any] | None = None
    folder: Path | None = None
    skip_rehearsal: bool = False

    @property
    def target_home(self) -> Home:
        """As the folder's configuration says."""
        return Home((self.document or {}).get("settings", {}).get("home", Home.ENGINE))


async def begin_promotion(parts: Parts, definition: Definition | None, order: Promotion, actor: str) -> RunRow:
    """The recorded run, not yet queued. Raises HitlessError, and leaves no run, where nothing can be promoted; a failed
    one where the folder cannot be kept.
    """
    origin = await _origin(parts, order)
    if origin.local:
        raise ConflictError(
            f"the artifacts of {', '.join(sorted(origin.local))} were built for this machine alone",
            hint="their runtime or architecture is not this machine's: build where they agree",
        )
    options: dict[str, Any] = {"from": origin.stage, "release": origin.release, "origin": to_plain(origin)}
    options |= {"document": order.document, "folder": str(order.folder) if order.folder else None}
    if order.skip_rehearsal:
        options["skip_rehearsal"] = True
    entry = definition.stage(order.target) if definition else None
    row = parts.records.add(
        stage=order.target,
        branch=entry.branch if entry else order.target,
        commit=origin.commit or "",
        message=origin.message,
        overridden=None,
        options=options,
        verb="promote",
        actor=actor,
        state=RunState.QUEUED,
        at=timestamp(parts.clock.now()),
    )
    if order.folder is not None and not await parts.holds(origin.commit):
        try:
            parts.workshop.create()
            await asyncio.to_thread(parts.workshop.keep_service, row.run, order.folder)
        except HitlessError as error:
            parts.records.set_state(row.run, RunState.FAILED, error.message, timestamp(parts.clock.now()))
            raise
    return row


async def _origin(parts: Parts, order: Promotion) -> Origin:
    """What is live in the stage that is promoted, at its home."""
    if order.target_home is Home.ENGINE:
        parts.engine.rollout_of(order.target)  # refuses a stage that there is not
    if order.source == order.target:
        raise UsageError(f"{order.source} cannot be promoted to itself", hint="`hitless promote dev staging`")
    if order.source_home is Home.AWS:
        if order.folder is None:
            raise UsageError(f"{order.source} is on AWS, and no folder tells where", hint="name --service-dir")
        return await parts.on_aws.live(Place(order.folder, order.source))
    parts.engine.rollout_of(order.source)
    live = parts.engine.live_release(order.source)
    if live is None:
        raise ConflictError(f"{order.source} has no live release to promote", hint="deploy or push to it first")
    return Origin.of(live.stage, live.number, live.document)
