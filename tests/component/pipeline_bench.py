"""A pipeline over real git and a real state file, with fakes for the engine's parts, the builds and the rehearsal."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from msgspec import structs

from hitless.clock import SystemClock
from hitless.documents import convert, to_plain
from hitless.engine.engine import Engine
from hitless.engine.recovery import recover
from hitless.engine.retention import Retention
from hitless.errors import ConflictError
from hitless.gateway.state import GatewayState
from hitless.homes.errands import CopyLive, Errand, FetchArtifacts, RollBack, Ship, TellOrigin, Verify
from hitless.pipeline.builds import TEST_FILE, BuildOrder
from hitless.pipeline.buildspec.run import BuildResult
from hitless.pipeline.definition import Definition
from hitless.pipeline.errands import AwsErrands
from hitless.pipeline.orders import NOTHING, Promotion, RefUpdate
from hitless.pipeline.packaging import PackageOrder
from hitless.pipeline.parts import Parts
from hitless.pipeline.pipeline import Pipeline
from hitless.pipeline.pipelines import Pipelines
from hitless.pipeline.rehearsal.report import RehearsalReport
from hitless.pipeline.repository import Repository
from hitless.pipeline.runs import RunDocument, StepFailed, StepName
from hitless.pipeline.workshop import Workshop
from hitless.release.document import ArtifactRef, Origin, ReleaseDocument
from hitless.release.result import Outcome, Result, Verified
from hitless.rollout.pools import ReleasePools
from hitless.service.model import AlarmSettings, Approval, Notify, RehearsalSettings, StageSettings
from hitless.store.runs import PushRecords, RunRecords, RunRow
from hitless.store.secrets import SecretStore
from hitless.store.store import Store
from tests.fakes import FakeArtifacts, FakeGateway, FakeHooks, FakeWorkers, release_document

T = TypeVar("T")
STAGES = ("dev", "staging", "prod")
DEFINITION = Definition("shop", "", tuple(StageSettings(name, name) for name in STAGES))
"""As `hitless pipeline url` found it."""


class ShiftedClock(SystemClock):
    """The machine's clock, put forward by hand."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


@dataclass
class FakeBuilds:
    """Tests that pass, fail for the commits in `failing`, and wait if `hold` is set. There is no other buildspec."""

    diary: list[str]
    failing: set[str] = field(default_factory=set)
    hold: asyncio.Event | None = None
    orders: list[BuildOrder] = field(default_factory=list)

    async def run(self, order: BuildOrder) -> BuildResult | None:
        if order.step is StepName.BUILD:
            return None
        self.diary.append(f"test run {order.run}")
        self.orders.append(order)
        if self.hold is not None:
            await self.hold.wait()
        if order.commit in self.failing:
            raise StepFailed(f"{TEST_FILE}: phase build failed")
        return BuildResult(succeeded=True, phases={"build": 0})


@dataclass
class FakePackaging:
    """Each commit's artifact is its own, unless `instead` has others; settings by stage."""

    diary: list[str]
    settings: dict[str, StageSettings]
    hold: asyncio.Event | None = None
    instead: dict[str, ArtifactRef] | None = None
    service: str = "shop"
    stages: tuple[StageSettings, ...] | None = None
    """The commit's list of stages, where it is not the usual one."""
    orders: list[PackageOrder] = field(default_factory=list)

    async def __call__(self, order: PackageOrder, log: Path) -> tuple[ReleaseDocument, Definition]:
        self.orders.append(order)
        self.diary.append(f"{'reuse' if order.artifacts else 'build'} for {order.stage}")
        if self.hold is not None:
            await self.hold.wait()
        tree = (order.folder / "code").read_text()
        made = release_document("api", digest=f"sha256:{tree.strip()}", service=self.service)
        artifacts = self.instead or (order.artifacts if order.artifacts is not None else made.artifacts)
        document = structs.replace(
            made,
            artifacts=artifacts,
            settings=self.settings[order.stage],
            commit=order.commit,
            message=order.message,
        )
        return document, replace(DEFINITION, service=self.service, stages=self.stages or tuple(self.settings.values()))


@dataclass
class FakeRehearsal:
    """Has the given objections and doubts, none by default; waits if `hold` is set."""

    diary: list[str]
    objections: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    hold: asyncio.Event | None = None
    paces: list[RehearsalSettings | None] = field(default_factory=list)
    """The settings of each rehearsal."""

    async def __call__(self, live: ReleaseDocument, candidate: ReleaseDocument, log: Path) -> RehearsalReport:
        self.diary.append("rehearse")
        self.paces.append(candidate.settings.rehearsal)
        if self.hold is not None:
            await self.hold.wait()
        may_ship = not self.objections and not self.doubts
        return RehearsalReport(
            may_ship=may_ship,
            objections=tuple(self.objections),
            undecided=tuple(self.doubts),
            sentence="undecided" if self.doubts else "as it was",
        )


@dataclass
class FakeErrands(AwsErrands):
    """AWS by errands: `live_there` is live on its stages; a release there waits for `hold` and ends as `outcome`."""

    diary: list[str]
    live_there: dict[str, Origin] = field(default_factory=dict)
    copies: dict[str, ReleaseDocument] = field(default_factory=dict)
    url: str | None = None
    hold: asyncio.Event | None = None
    faults: tuple[str, ...] = ()
    superseded: bool = False
    outcome: str = "live"
    shipped: list[Ship] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)
    """The files in each folder that was shipped: name → content."""

    async def __call__(self, errand: Errand, answer: type[T], log: Path = Path()) -> T:
        return convert(await self._done(errand, errand.stage), answer, "the errand")

    async def _done(self, errand: Errand, stage: str) -> object:
        match errand:
            case TellOrigin():
                if stage not in self.live_there:
                    raise ConflictError(f"{stage} has no live release to promote")
                return to_plain(self.live_there[stage])
            case FetchArtifacts(digests=digests):
                self.diary.append(f"fetch release {self.live_there[stage].release} of {stage}")
                return {"fetched": len(digests)}
            case CopyLive():
                why = f"{stage} has no live release on AWS to rehearse against"
                copy = self.copies.get(stage)
                return {"document": copy.to_json() if copy else None, "why": why}
            case Ship():
                return await self._ship(errand)
            case Verify():
                self.diary.append(f"verify {stage} on AWS")
                return to_plain(Verified(self.faults, self.superseded))
            case RollBack(why=why):
                self.diary.append(f"roll {stage} back on AWS: {why}")
                if len(self.shipped) < 2:
                    raise ConflictError("no release was live before this one")
                return to_plain(Result(stage, len(self.shipped) - 1, Outcome.LIVE, "AllAtOnce"))
        raise AssertionError(errand)

    async def _ship(self, errand: Ship) -> dict[str, Any]:
        self.diary.append(f"ship {errand.stage} on AWS")
        if self.hold is not None:
            await self.hold.wait()
        self.shipped.append(errand)
        self.seen.append(_files(errand.folder))
        ended = {"stage": errand.stage, "release": len(self.shipped), "outcome": self.outcome, "strategy": "AllAtOnce"}
        nothing = {"duration_s": 0.0, "steps": [], "candidate": None, "live": None, "url": self.url}
        return {**ended, "reason": "an alarm" if self.outcome != "live" else None, **nothing}


def _files(folder: str) -> dict[str, str]:
    return {one.name: one.read_text() if one.is_file() else "a link" for one in Path(folder).iterdir()}


def stage_settings(name: str, **options: Any) -> StageSettings:
    return StageSettings(name, name, alarms=AlarmSettings(1, 20, guard_s=0), **options)


class PipelineBench:
    """A pipeline, a developer's clone of its repository, and a diary of what was done."""

    def __init__(self, folder: Path, *, world: PipelineBench | None = None) -> None:
        self.folder = folder
        self.diary: list[str] = world.diary if world else []
        self.store = Store(folder / "state.sqlite")
        self.workers: FakeWorkers = world.workers if world else FakeWorkers(self.diary)
        self.gateway: FakeGateway = (
            world.gateway if world else FakeGateway(self.diary, GatewayState.initial(list(STAGES), 9))
        )
        self.clock = ShiftedClock()
        self.builds = FakeBuilds(self.diary)
        self.rehearsal = FakeRehearsal(self.diary)
        settings = {name: stage_settings(name) for name in STAGES}
        settings["prod"] = stage_settings("prod", approval=Approval.MANUAL, rehearsal=RehearsalSettings())
        self.packaging = FakePackaging(self.diary, settings)
        self.on_aws = FakeErrands(folder, self.diary)
        self.told: list[tuple[str, int]] = []
        self.heard: list[tuple[tuple[Notify, ...], RunDocument]] = []
        """Each notification: its targets and the run."""
        artifacts = cast(Any, FakeArtifacts())
        pools = ReleasePools(cast(Any, self.workers), cast(Any, self.gateway), artifacts, self.store, folder / "logs")
        self.engine = Engine(
            service="shop",
            stages=STAGES,
            store=self.store,
            pools=pools,
            retention=Retention(self.store, artifacts, folder / "logs", self.clock),
            hooks=cast(Any, FakeHooks(self.diary)),
            clock=self.clock,
            secrets=SecretStore(folder),
        )
        workshop = replace(Workshop.of(folder, os.environ), work=folder / "work", user=None)
        workshop.create()
        self.repository = Repository(workshop.repository)
        self.records = RunRecords(self.store)
        self.pipeline = Pipeline(
            Parts(
                engine=self.engine,
                workshop=workshop,
                repository=self.repository,
                records=self.records,
                pushes=PushRecords(self.store),
                run_build=self.builds.run,
                package=self.packaging,
                clock=self.clock,
                urls=lambda: dict.fromkeys(STAGES, "http://127.0.0.1:1"),
                rehearse=self.rehearsal,
                notify=self._notify,
                on_aws=self.on_aws,
            )
        )
        self.pipelines = Pipelines(self.engine, workshop, lambda _: self.pipeline, shared=False, close=self._close)
        """All of the engine: this one."""
        self.clone = folder / "clone"
        if world is None:
            self.repository.create(["false"], head="dev")
            for hook in (self.repository.folder / "hooks").iterdir():
                hook.unlink()
            DEFINITION.write(workshop.definition)
            subprocess.run(["git", "init", "-q", "-b", "dev", str(self.clone)], check=True)

    def replace_parts(self, **parts: Any) -> None:
        """Before the bench starts."""
        self.pipeline = Pipeline(replace(self.pipeline.parts, **parts))

    def pipeline_url(self) -> None:
        """`hitless pipeline url` in a folder with the present settings."""
        stages = tuple(self.packaging.settings.values())
        replace(DEFINITION, stages=stages).write(self.pipeline.parts.workshop.definition)

    async def _close(self) -> None:
        """Nothing is left to close."""

    def _notify(self, who: tuple[Notify, ...], run: RunDocument) -> None:
        self.told.append((run.state, run.run))
        self.heard.append((who, run))

    def again(self) -> PipelineBench:
        """A daemon after the first was killed, over the same world."""
        self.store.close()
        successor = PipelineBench(self.folder, world=self)
        successor.engine.pools.living.update(cast(Any, self.workers.running))
        return successor

    async def start(self) -> None:
        """As the daemon does: the engine recovers, then the pipeline."""
        await recover(self.engine)
        await self.pipelines.start()

    def git(self, *words: str) -> str:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *words]
        return subprocess.run(
            command, cwd=self.clone, env=environ, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, code: str) -> str:
        (self.clone / "code").write_text(code)
        self.git("add", ".")
        self.git("commit", "-q", "--allow-empty", "-m", f"code {code}")
        return self.git("rev-parse", "HEAD")

    async def push(self, branch: str = "dev", *, to: str | None = None, options: dict[str, str] | None = None) -> Any:
        """What a hook does on a push of the clone's `branch`: a refusal's sentences, or the first run's number."""
        target = to or branch
        old = await self.repository.head_of(target) or NOTHING
        new = self.git("rev-parse", branch)
        update = RefUpdate(old, new, f"refs/heads/{target}")
        lineage = {new: self.git("rev-list", "--no-walk", "--parents", new).split()[1:]}
        if refusals := await self.pipeline.check([update], options or {}, "ada@laptop", lineage):
            return refusals
        self.git("push", "-q", "--force", str(self.repository.folder), f"{branch}:{target}")
        started = await self.pipeline.push([update], options or {}, "ada@laptop")
        return next((one for one in started if isinstance(one, int)), started)

    async def end_of(self, run: int) -> dict[str, Any]:
        """The run's document when it has ended or waits for a person."""
        async for line in self.pipeline.follow(run):
            if "run" in line:
                found = to_plain(self.pipeline.document(run, full=True))
                return {**found, "states": {step["name"]: step["state"] for step in found["steps"]}}
        raise AssertionError("a run without an end")

    def candidate_of(self, run: int) -> ReleaseDocument:
        file = self.pipeline.parts.workshop.of_run(run) / "candidate.json"
        return ReleaseDocument.from_json(json.loads(file.read_text()))

    def log(self, run: int) -> str:
        return self.pipeline.parts.workshop.log(run).read_text()


def tell_story(
    folder: Path,
    story: Callable[[PipelineBench], Coroutine[Any, Any, None]],
    *,
    prepare: Callable[[PipelineBench], None] = lambda bench: None,
) -> None:
    """Run a story on a fresh bench that has started."""
    bench = PipelineBench(folder)
    prepare(bench)

    async def told() -> None:
        async with asyncio.timeout(60):
            await bench.start()
            try:
                await story(bench)
            finally:
                await bench.pipeline.stop()
                await bench.engine.wait_until_idle()

    asyncio.run(told())


async def until(true: Callable[[], bool]) -> None:
    """Wait until it holds, by the story's time-out."""
    while not true():  # noqa: ASYNC110 - several parts move, and a test asks for their common state
        await asyncio.sleep(0.005)


async def shipped_to_staging(bench: PipelineBench) -> str:
    """A commit that is live in dev and staging."""
    commit = bench.commit("1")
    await bench.end_of(await bench.push())
    run = await bench.end_of((await promote(bench, "dev", "staging")).run)
    assert run["state"] == "succeeded"
    return commit


async def promote(bench: PipelineBench, source: str, target: str, *, skip: bool = False) -> RunRow:
    """A promotion's run, queued."""
    return await bench.pipeline.promote(Promotion(source, target, skip_rehearsal=skip), actor="ada")
