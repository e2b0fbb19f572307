"""Which release's artifacts a run ships, if it does not build them."""

from __future__ import annotations

from hitless.documents import convert
from hitless.engine.engine import Engine
from hitless.pipeline.definition import Definition
from hitless.pipeline.runs import RunState
from hitless.release.document import Origin
from hitless.release.result import Outcome
from hitless.store.runs import RUNS_KEPT, RunRecords, RunRow


def origin_of(engine: Engine, row: RunRow, definition: Definition | None) -> Origin | None:
    """The release whose bytes the run ships: the one that `promote` named, or one of the stage before with its commit.

    None where the commit is built here for the first time.
    """
    if row.options.get("origin"):
        return convert(row.options["origin"], Origin, f"run {row.run}: origin")
    if "from" in row.options:  # recorded by an earlier version
        release = engine.release(str(row.options["from"]), int(row.options["release"]))
        return Origin.of(release.stage, release.number, release.document)
    before = definition.before(row.stage) if definition and row.stage else None
    for kept in reversed(engine.store.releases(before)) if before else ():
        if kept.commit == row.commit:
            release = engine.release(kept.stage, kept.release)
            return Origin.of(release.stage, release.number, release.document)
    return None


def was_live(engine: Engine, records: RunRecords, stage: str, commit: str) -> bool:
    """Whether a release of that commit ever was live in the stage, as far back as releases are kept; on AWS as far as
    runs of this pipeline shipped it.
    """
    if any(run.commit == commit and run.state == RunState.SUCCEEDED for run in records.runs(stage, limit=RUNS_KEPT)):
        return True
    numbers = {row.release for row in engine.store.releases(stage) if row.commit == commit}
    return any(
        rollout.outcome == Outcome.LIVE
        for number in numbers
        for rollout in engine.store.rollouts(stage, release=number)
    )
