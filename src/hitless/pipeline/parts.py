"""The objects that all runs of a pipeline share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hitless.clock import Clock, timestamp
from hitless.engine.engine import Engine
from hitless.engine.folders import site_name
from hitless.engine.previews import Previews
from hitless.pipeline.builds import BuildOrder
from hitless.pipeline.buildspec.run import BuildResult
from hitless.pipeline.definition import Definition
from hitless.pipeline.errands import AwsErrands
from hitless.pipeline.packaging import PackageOrder
from hitless.pipeline.rehearsal.report import RehearsalReport
from hitless.pipeline.repository import Repository
from hitless.pipeline.runs import RunDocument, RunState
from hitless.pipeline.workshop import Workshop
from hitless.release.document import ReleaseDocument
from hitless.service.model import Home, Notify, PreviewSettings, StageSettings
from hitless.store.runs import NewRun, PushRecords, RunRecords, RunRow

RunBuild = Callable[[BuildOrder], Awaitable[BuildResult | None]]
"""Runs a run's tests; None if the commit has no buildspec for them. Raises StepFailed."""
Package = Callable[[PackageOrder, Path], Awaitable[tuple[ReleaseDocument, Definition]]]
"""Turns a checkout into a candidate, and reads the stages of its commit. Raises StepFailed."""
Rehearse = Callable[[ReleaseDocument, ReleaseDocument, Path], Awaitable[RehearsalReport]]
"""Rolls a candidate (the second) out over a copy of the live release, in a sandbox."""
NotifyOf = Callable[[tuple[Notify, ...], RunDocument], None]
"""Notifies of the state of a run. Returns at once."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Put together by `hitless.cli.wire`. `urls` gives each stage's address for clients."""

    engine: Engine
    workshop: Workshop
    repository: Repository
    records: RunRecords
    pushes: PushRecords
    run_build: RunBuild
    package: Package
    clock: Clock
    urls: Callable[[], Mapping[str, str]]
    rehearse: Rehearse
    notify: NotifyOf
    on_aws: AwsErrands
    previews: Previews | None = None
    """The service's previews; None if the engine has no listener for any."""
    reach: Callable[[str], tuple[str, int] | None] = lambda _: None
    """Where this machine reaches a stage whose URL has a domain; None if the URL's own host is right."""

    @property
    def preview_settings(self) -> PreviewSettings | None:
        """None if the service has no previews."""
        return self.previews.settings if self.previews is not None else None

    @property
    def service(self) -> str:
        """The pipeline's service."""
        return self.workshop.service or self.engine.service

    @property
    def stages(self) -> tuple[str, ...]:
        """The service's stages by their names at the engine."""
        if not self.workshop.service:
            return self.engine.stages
        found = Definition.read(self.workshop.definition)
        return tuple(self.at_engine(one.name) for one in found.stages) if found else ()

    def at_engine(self, stage: str) -> str:
        """A stage's name at the engine and in a run's record: on one that several services share, with its service."""
        service = self.workshop.service
        return site_name(service, self.in_file(stage)) if service else stage

    def in_file(self, stage: str) -> str:
        """A stage's name in serverless.yml and in the definition, by either of its names."""
        return stage.removeprefix(site_name(self.workshop.service, "")) if self.workshop.service else stage

    def record(self, new: NewRun) -> RunRow:
        """Record a run without queueing it."""
        return self.records.add(new, state=RunState.QUEUED, at=timestamp(self.clock.now()))

    async def holds(self, commit: str | None) -> bool:
        """Whether the repository has the commit."""
        return bool(commit) and self.repository.exists() and await self.repository.has(str(commit))

    def definition(self) -> Definition | None:
        """The stages with their protection in force; None if `hitless pipeline url` never ran."""
        found = Definition.read(self.workshop.definition)
        return found and replace(found, stages=tuple(self.in_force(one.name) or one for one in found.stages))

    def in_force(self, stage: str) -> StageSettings | None:
        """The stage's settings in force: its live release's, or if none is live here, as on AWS, the last ones read."""
        found = Definition.read(self.workshop.definition)
        known = found.stage(self.in_file(stage)) if found else None
        live = self.engine.live_release(self.at_engine(stage)) if known is None or known.home is Home.ENGINE else None
        return live.document.settings if live else known
