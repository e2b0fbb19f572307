"""One run, readable from top to bottom in `Course.run`: its steps in order, each recorded before it starts and when it
ends.

A run that is resumed (after an approval, a retry, or the end of a daemon) continues at its first step that has not
succeeded. The candidate of its build step is in its folder.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hitless.clock import timestamp
from hitless.documents import to_plain, to_text
from hitless.pipeline.approvals import approval_link
from hitless.pipeline.builds import BUILD_FILE, BuildOrder, add_artifacts, service_folder
from hitless.pipeline.buildspec.run import BuildResult
from hitless.pipeline.definition import Definition
from hitless.pipeline.packaging import PackageOrder
from hitless.pipeline.parts import Parts
from hitless.pipeline.runs import (
    RunDocument,
    RunState,
    StepDetail,
    StepEnd,
    StepFailed,
    StepName,
    StepState,
    options_of,
)
from hitless.release.document import ArtifactRef, ReleaseDocument
from hitless.service.model import Notify
from hitless.store.runs import ApprovalRow, RunRow

APPROVED, REJECTED = "approved", "rejected"
Step = Callable[["Course"], Awaitable[StepEnd]]
DONE = (StepState.SUCCEEDED, StepState.SKIPPED)


class Answer(msgspec.Struct, frozen=True):
    """The detail of an approved step: who decided, and why."""

    decision: str | None
    by: str | None
    why: str | None


class WaitsForApproval(Exception):
    """The step waits for a person's answer; then the run continues."""


class Course:
    """One run in progress."""

    def __init__(self, parts: Parts, row: RunRow) -> None:
        self.parts, self.row = parts, row
        self.log = parts.workshop.log(row.run)
        self.options = options_of(row)
        self.copied: ReleaseDocument | str | None = None  # the live release on AWS, once it was read
        self.changed: str | None = None  # a sentence on what the commit changes in the protection of its stage
        self.built: BuildResult | None = None  # the run of buildspec-build.yml
        self._candidate: ReleaseDocument | None = None

    @property
    def path(self) -> str:
        """The service's folder in the repository."""
        definition = Definition.read(self.parts.workshop.definition)
        return definition.path if definition else ""

    async def run(self, steps: Mapping[StepName, Step]) -> None:
        """Run the remaining steps. Afterwards the run has ended, or is waiting for an approval."""
        row = self.row
        self.parts.workshop.of_run(row.run).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.set_state(RunState.RUNNING, None)
        if not self.ended_well(StepName.SOURCE):
            self.say(f"run {row.run}: {self._about()}")
        try:
            await asyncio.to_thread(self.parts.workshop.clean, row.run)
            self.parts.workshop.make(self.parts.workshop.work_of(row.run)).chmod(0o711)
            for name, step in steps.items():
                if not self.ended_well(name):
                    await self._run_step(name, step)
        except WaitsForApproval:
            self.set_state(RunState.WAITING, None)
            waits = f"{row.title} waits for approval: hitless approve {row.run}"
            self.parts.engine.say(waits, row.stage)
            self.notify()
            return
        except StepFailed as failed:
            self.end(RunState.FAILED, failed.reason)
            return
        finally:
            await asyncio.to_thread(self.parts.workshop.clean, row.run)
        self.end(RunState.SUCCEEDED, None)

    def _about(self) -> str:
        """The commit or release, and where it goes, for people who follow the run."""
        row, options = self.row, self.options
        if options.source:
            return f"release {options.release} of {options.source} to {row.stage}"
        what = f"{row.branch} at {row.commit[:12]}"
        if row.stage:
            return f"{what} to {row.stage}"
        definition = self.parts.definition()
        feeding = ", ".join(dict.fromkeys(entry.branch for entry in definition.stages)) if definition else "none"
        return f"{what}, which feeds no stage: those are fed by {feeding}"

    async def _run_step(self, name: StepName, step: Step) -> None:
        clock = self.parts.clock
        started, since_s = timestamp(clock.now()), clock.monotonic()
        record = partial(self.parts.records.set_step, self.row.run, name, started_at=started)
        record(StepState.RUNNING)
        self.say(f"== {name}")
        try:
            end = await step(self)
        except WaitsForApproval:
            record(StepState.WAITING)
            raise
        except Exception as error:
            failed = StepFailed.of(error)
            detail = {**to_plain(failed.detail), "reason": failed.reason, "exit_code": failed.exit_code}
            record(StepState.FAILED, detail=detail, duration_s=round(clock.monotonic() - since_s, 3))
            raise StepFailed(f"{name}: {failed.reason}", exit_code=failed.exit_code) from error
        record(end.state, detail=end.detail, duration_s=round(clock.monotonic() - since_s, 3))
        if end.sentence:
            self.say(end.sentence)

    @property
    def stage(self) -> str:
        """The stage of a run that has one, by its name at the engine."""
        assert self.row.stage is not None
        return self.row.stage

    @property
    def stage_in_file(self) -> str:
        """The same stage by its name in serverless.yml and on AWS."""
        return self.parts.in_file(self.stage)

    @property
    def candidate(self) -> ReleaseDocument:
        """The release that the build step made. Raises StepFailed if a resumed run cannot read it."""
        if self._candidate is None:
            try:
                self._candidate = ReleaseDocument.from_json(json.loads(self._candidate_file.read_text()))
            except (OSError, ValueError) as error:
                raise StepFailed(f"the candidate of run {self.row.run} cannot be read: push a new commit") from error
        return self._candidate

    def set_candidate(self, document: ReleaseDocument) -> None:
        """Keep the release in a private file, because its environment may hold secrets."""
        self._candidate_file.touch(mode=0o600)
        self._candidate_file.write_text(to_text(document.to_json()))
        self._candidate = document

    async def checkout(self, name: str) -> Path:
        """The service's folder in the commit's files, in a private folder of that name. Raises StepFailed."""
        workshop = self.parts.workshop
        root = workshop.work_of(self.row.run) / name
        if not root.exists():
            workshop.make(root)
            await self.parts.repository.extract(self.row.commit, root)
            (root / ".git").mkdir(exist_ok=True)  # marks the root: no service file is read above it
        return service_folder(root, self.path)

    def order(self, step: StepName) -> BuildOrder:
        """The step's buildspec. A fork's gets no pipeline variables and runs under the pull request's name."""
        row, fork = self.row, self.options.fork
        return BuildOrder(
            run=row.run,
            commit=row.commit,
            branch=row.branch,
            path=self.path,
            actor=fork.description if fork else row.actor or "hitless",
            stage=row.stage and self.stage_in_file,
            fork=fork.number if fork else None,
            step=step,
        )

    async def package(
        self, stage: str, artifacts: Mapping[str, ArtifactRef] | None
    ) -> tuple[ReleaseDocument, Definition]:
        """The commit's candidate, of given artifacts or with what its buildspec for builds made.

        Raises StepFailed, also if it is of another service, whose user, share and stacks on AWS it would get.
        """
        folder, workshop, run = await self.checkout("package"), self.parts.workshop, self.row.run
        if artifacts is None and (built := await self.parts.run_build(self.order(StepName.BUILD))) is not None:
            self.built = built
            added = await asyncio.to_thread(add_artifacts, workshop.artifacts_of(run, StepName.BUILD), folder)
            self.say(f"{BUILD_FILE}: added to the package's files: {', '.join(added) or 'nothing'}")
        row, at_engine = self.row, self.parts.at_engine(stage)
        order = PackageOrder(folder, self.path, stage, row.commit, row.message, artifacts, at_engine)
        document, definition = await self.parts.package(order, self.log)
        if document.service != self.parts.service:
            raise StepFailed(f"this commit is of service {document.service}, not {self.parts.service}")
        return document, definition

    async def folder_for_aws(self) -> str:
        """The folder with the serverless.yml of stages on AWS: the commit's, else the copy that a promotion kept, so
        that what is approved is what ships. Raises StepFailed if there is neither.
        """
        if await self.parts.holds(self.row.commit):
            return str(await self.checkout("service"))
        kept = self.parts.workshop.service_of(self.row.run)
        if not kept.exists():
            raise StepFailed("neither the repository nor a folder has the stage's configuration: push its commit")
        return str(kept)

    def live(self) -> ReleaseDocument | None:
        """The live release of the run's stage."""
        release = self.parts.engine.live_release(self.stage)
        return release.document if release else None

    def ended_well(self, name: StepName) -> bool:
        return any(step.name == name and step.state in DONE for step in self.parts.records.steps(self.row.run))

    def say(self, text: str) -> None:
        """Append a line to the run's log. A full disk loses the line, but does not end the run."""
        with suppress(OSError):
            self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.log.touch(mode=0o600)
            with self.log.open("ab") as file:
                file.write(text.encode() + b"\n")

    def set_state(self, state: RunState, reason: str | None) -> None:
        ended_at = timestamp(self.parts.clock.now()) if state.has_ended else None
        self.parts.records.set_state(self.row.run, state, reason, ended_at)

    def end_unfinished(self, reason: str) -> None:
        """End, as failed, a run whose own end could not be recorded. Raises errors of disk and state file."""
        detail = StepDetail(reason=reason, exit_code=1)
        for step in self.parts.records.steps(self.row.run):
            if step.state == StepState.RUNNING:
                self.parts.records.set_step(
                    self.row.run, step.name, StepState.FAILED, detail=detail, started_at=step.started_at
                )
        self.end(RunState.FAILED, reason)

    def apply_answer(self, answer: ApprovalRow) -> None:
        """Queue the run again if the recorded answer approves it; else end it as rejected."""
        records, run, approved = self.parts.records, self.row.run, answer.decision == APPROVED
        said = f"{answer.decision} by {answer.decided_by}" + (f": {answer.why}" if answer.why else "")
        if not approved:
            detail = StepDetail(reason=said, exit_code=4)
            records.set_step(run, StepName.APPROVE, StepState.FAILED, detail=detail)
            self.end(RunState.REJECTED, said)
            return
        given = Answer(answer.decision, answer.decided_by, answer.why)
        records.set_step(run, StepName.APPROVE, StepState.SUCCEEDED, detail=given)
        self.set_state(RunState.QUEUED, None)
        self.say(said)
        who = f"{answer.decision} by {answer.decided_by}"
        self.parts.engine.say(f"{self.row.title} was {who}", self.row.stage)

    def end(self, state: RunState, reason: str | None) -> None:
        """End the run: record it, log it, add an event, notify."""
        what = f"{self.row.title} {state}"
        self.say(f"{what}: {reason}" if reason else what)
        self.set_state(state, reason)
        self.parts.engine.say(f"{what}{f' ({reason})' if reason else ''}", self.row.stage)
        self.notify()

    def notify(self) -> None:
        """Send the run's state to the receivers in its stage's `notify`."""
        row = self.parts.records.run(self.row.run)
        if row is not None:
            document = RunDocument.of(self.parts.records, row)
            asked = self.parts.records.approval(row.run)
            if row.state == RunState.WAITING and asked:
                link = approval_link(self.parts.workshop.own, row.run, asked.asked_at)
                document = replace(document, link=link, protection=self.changed)
            self.parts.notify(self._notified(), document)

    def _notified(self) -> tuple[Notify, ...]:
        """The receivers of notifications, by the settings in force: a push does not choose who gets approval links."""
        stage = self.row.stage or next(iter(self.parts.stages), None)
        settings = self.parts.in_force(stage) if stage else None
        if settings is None and self._candidate_file.exists():
            settings = self.candidate.settings  # of a folder, which its owner promotes: they are trusted
        return settings.notify if settings else ()

    @property
    def _candidate_file(self) -> Path:
        return self.parts.workshop.of_run(self.row.run) / "candidate.json"
