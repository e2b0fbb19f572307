"""Promotions: the run that ships another stage's live release, and the release whose artifacts a run ships."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hitless.clock import timestamp
from hitless.documents import to_plain
from hitless.engine.engine import Engine
from hitless.errors import ConflictError, HitlessError, UsageError
from hitless.homes.errands import TellOrigin
from hitless.pipeline.definition import Definition
from hitless.pipeline.orders import Promotion
from hitless.pipeline.parts import Parts
from hitless.pipeline.runs import RunOptions, RunState, options_of
from hitless.release.document import Origin
from hitless.release.result import Outcome
from hitless.service.model import Home
from hitless.store.runs import RUNS_KEPT, NewRun, RunRecords, RunRow


async def begin_promotion(parts: Parts, definition: Definition | None, order: Promotion, actor: str) -> RunRow:
    """Record the run without queueing it. Raises HitlessError if nothing can be promoted (no run is recorded), or if
    the folder cannot be copied (the run is recorded as failed).
    """
    origin = await _origin(parts, order)
    if origin.local:
        raise ConflictError(
            f"the artifacts of {', '.join(sorted(origin.local))} were built for this machine only: cannot promote",
            hint="build on a machine with the runtime and architecture that serverless.yml declares",
        )
    options = RunOptions(
        skip_rehearsal=order.skip_rehearsal,
        source=origin.stage,
        release=origin.release,
        origin=origin,
        document=order.document,
    )
    entry = definition.stage(order.target) if definition else None
    branch = entry.branch if entry else order.target
    new = NewRun(
        stage=order.target,
        branch=branch,
        commit=origin.commit or "",
        message=origin.message,
        options=to_plain(options),
        verb="promote",
        actor=actor,
    )
    row = parts.record(new)
    if order.folder is not None and not await parts.holds(origin.commit):
        try:
            parts.workshop.create()
            await asyncio.to_thread(parts.workshop.keep_service, row.run, Path(order.folder))
        except HitlessError as error:
            parts.records.set_state(row.run, RunState.FAILED, error.message, timestamp(parts.clock.now()))
            raise
    return row


async def _origin(parts: Parts, order: Promotion) -> Origin:
    """The live release of the source stage, read at that stage's home."""
    if (order.document or {}).get("settings", {}).get("home", Home.ENGINE) == Home.ENGINE:
        parts.engine.turn_of(order.target)  # UsageError for an unknown stage
    if order.source == order.target:
        raise UsageError(f"{order.source} cannot be promoted to itself", hint="`hitless promote dev staging`")
    if order.source_home is Home.AWS:
        if order.folder is None:
            raise UsageError(
                f"{order.source} is on AWS, and no folder with its serverless.yml was given", hint="pass --service-dir"
            )
        return await parts.on_aws(TellOrigin(stage=order.source, folder=order.folder), Origin)
    parts.engine.turn_of(order.source)
    live = parts.engine.live_release(order.source)
    if live is None:
        raise ConflictError(f"{order.source} has no live release to promote", hint="deploy or push to it first")
    return Origin.of(live.stage, live.number, live.document)


def origin_of(engine: Engine, row: RunRow, definition: Definition | None) -> Origin | None:
    """The release whose bytes the run ships: the one given to `promote`, or one of the previous stage with its commit.

    None if there is none, so the run must build its commit.
    """
    options = options_of(row)
    if options.origin:
        return options.origin
    if options.source and options.release:  # recorded by an earlier version
        release = engine.release(options.source, options.release)
        return Origin.of(release.stage, release.number, release.document)
    before = definition.previous_stage(row.stage) if definition and row.stage else None
    for kept in reversed(engine.store.releases(before)) if before else ():
        if kept.commit == row.commit:
            release = engine.release(kept.stage, kept.release)
            return Origin.of(release.stage, release.number, release.document)
    return None


def was_live(engine: Engine, records: RunRecords, stage: str, commit: str) -> bool:
    """Whether a kept release of that commit was ever live in the stage; on AWS, only this pipeline's runs are known."""
    if any(run.commit == commit and run.state == RunState.SUCCEEDED for run in records.runs(stage, limit=RUNS_KEPT)):
        return True
    numbers = {row.release for row in engine.store.releases(stage) if row.commit == commit}
    return any(
        rollout.outcome == Outcome.LIVE
        for number in numbers
        for rollout in engine.store.rollouts(stage, release=number)
    )
