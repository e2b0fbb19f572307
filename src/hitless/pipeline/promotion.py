"""Promotions: the run that ships another stage's live release, and the release whose artifacts a run ships."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hitless.clock import timestamp
from hitless.documents import to_plain
from hitless.errors import ConflictError, HitlessError, UsageError
from hitless.homes.errands import TellOrigin
from hitless.pipeline.definition import Definition
from hitless.pipeline.orders import Promotion
from hitless.pipeline.parts import Parts
from hitless.pipeline.runs import RunOptions, RunState, options_of
from hitless.release.document import Origin
from hitless.release.result import Outcome
from hitless.service.model import Home
from hitless.store.runs import RUNS_KEPT, NewRun, RunRow


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
    entry = definition.stage(parts.in_file(order.target)) if definition else None
    branch = entry.branch if entry else parts.in_file(order.target)
    new = NewRun(
        stage=parts.at_engine(order.target),
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
    source, target = parts.at_engine(order.source), parts.at_engine(order.target)
    if (order.document or {}).get("settings", {}).get("home", Home.ENGINE) == Home.ENGINE:
        _check_exists(parts, target, order)
    if source == target:
        raise UsageError(f"{order.source} cannot be promoted to itself", hint="`hitless promote dev staging`")
    if order.source_home is Home.AWS:
        if order.folder is None:
            raise UsageError(
                f"{order.source} is on AWS, and no folder with its serverless.yml was given", hint="pass --service-dir"
            )
        return await parts.on_aws(TellOrigin(stage=parts.in_file(source), folder=order.folder), Origin)
    if not parts.workshop.service:
        parts.engine.turn_of(source)
    live = parts.engine.live_release(source)
    if live is None:
        raise ConflictError(f"{source} has no live release to promote", hint="deploy or push to it first")
    return Origin.of(live.stage, live.number, live.document)


def _check_exists(parts: Parts, target: str, order: Promotion) -> None:
    """Raise UsageError for an unknown stage. A promotion may add one to an engine that several services share."""
    if not parts.workshop.service:
        parts.engine.turn_of(target)
    elif target not in parts.stages and order.document is None:
        hint = "add it to serverless.yml, then run `hitless pipeline url`"
        raise UsageError(f"{parts.service} has no stage {parts.in_file(target)}", hint=hint)


def origin_of(parts: Parts, row: RunRow) -> Origin | None:
    """The release whose bytes the run ships: the one given to `promote`, or one of the previous stage with its commit.

    None if there is none, so the run must build its commit.
    """
    options, engine, definition = options_of(row), parts.engine, parts.definition()
    if options.origin:
        return options.origin
    before = definition.previous_stage(parts.in_file(row.stage)) if definition and row.stage else None
    for kept in reversed(engine.store.releases(parts.at_engine(before))) if before else ():
        if kept.commit == row.commit:
            release = engine.release(kept.stage, kept.release)
            return Origin.of(release.stage, release.number, release.document)
    return None


def was_live(parts: Parts, stage: str, commit: str) -> bool:
    """Whether a kept release of that commit was ever live in the stage; on AWS, only this pipeline's runs are known."""
    stage, store = parts.at_engine(stage), parts.engine.store
    runs = parts.records.runs(stage, limit=RUNS_KEPT)
    if any(run.commit == commit and run.state == RunState.SUCCEEDED for run in runs):
        return True
    numbers = {row.release for row in store.releases(stage) if row.commit == commit}
    return any(
        rollout.outcome == Outcome.LIVE for number in numbers for rollout in store.rollouts(stage, release=number)
    )
