"""Whose bytes a run ships: a release of another stage, at whichever home that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hitless.engine.engine import Engine
from hitless.pipeline.definition import Definition
from hitless.pipeline.states import RunState
from hitless.release.document import ArtifactRef
from hitless.release.result import Outcome
from hitless.rollout.release import Release
from hitless.service.model import Home
from hitless.store.runs import RUNS_KEPT, RunRecords, RunRow


@dataclass(frozen=True, slots=True)
class Origin:
    """A release that is promoted. `artifacts`: by function."""

    home: Home
    stage: str
    release: int
    artifacts: Mapping[str, ArtifactRef]
    commit: str | None = None
    message: str | None = None

    def __str__(self) -> str:
        return f"release {self.release} of {self.stage}" + (" on AWS" if self.home is Home.AWS else "")

    @property
    def told(self) -> dict[str, Any]:
        """What the receipts say of it."""
        return {"home": str(self.home), "stage": self.stage, "release": self.release}

    def to_json(self) -> dict[str, Any]:
        return {
            **self.told,
            "artifacts": {name: one.digest for name, one in self.artifacts.items()},
            "commit": self.commit,
            "message": self.message,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """As a run's record keeps it, or as an errand tells of AWS. Only portable artifacts are promoted."""
        return cls(
            home=Home(document.get("home", Home.AWS)),
            stage=str(document["stage"]),
            release=int(document["release"]),
            artifacts={name: ArtifactRef(str(digest), False) for name, digest in document["artifacts"].items()},
            commit=document.get("commit"),
            message=document.get("message"),
        )

    @classmethod
    def of(cls, release: Release) -> Self:
        """A release of the engine."""
        document = release.document
        return cls(Home.ENGINE, release.stage, release.number, document.artifacts, document.commit, document.message)


def origin_of(engine: Engine, row: RunRow, definition: Definition | None) -> Origin | None:
    """The release whose bytes the run ships: the one that `promote` named, or one of the stage before with its commit.

    None where the commit is built here for the first time.
    """
    if row.options.get("origin"):
        return Origin.from_json(row.options["origin"])
    if "from" in row.options:  # recorded by an earlier version
        return Origin.of(engine.release(str(row.options["from"]), int(row.options["release"])))
    before = definition.before(row.stage) if definition and row.stage else None
    for kept in reversed(engine.store.releases(before)) if before else ():
        if kept.commit == row.commit:
            return Origin.of(engine.release(before or "", kept.release))
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
