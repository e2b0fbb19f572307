"""A rehearsal from start to end, readable from top to bottom in `Rehearsal.run`.

First live's copy and the candidate run side by side, each at its own address: do both come up, do they respond alike,
do they bear the same load alike? Then the candidate rolls out over live's copy by the stage's own strategy and alarms,
at higher speed, under load. The stage itself is not touched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from hitless.documents import convert
from hitless.drill.requests import DrillRequest
from hitless.errors import HitlessError
from hitless.pipeline.rehearsal import judge, plan
from hitless.pipeline.rehearsal.beside import Beside
from hitless.pipeline.rehearsal.compare import SampledResponse, differences
from hitless.pipeline.rehearsal.judge import Measured
from hitless.pipeline.rehearsal.load import Driven
from hitless.pipeline.rehearsal.recorded import Routes
from hitless.pipeline.rehearsal.report import ChangedRoute, LoadReport, RehearsalReport, RolloutReport
from hitless.pipeline.rehearsal.sandbox import SandboxEngine, ask
from hitless.release.document import ReleaseDocument
from hitless.service.model import Approval, Hooks, RehearsalSettings

SAMPLES = 4
CANDIDATE_STAGE = "candidate"
MAX_WORKERS = 2
MAX_OBJECTIONS = 20


@dataclass(slots=True)
class Rehearsal:
    """One rehearsal in an engine of its own that has the stage and `CANDIDATE_STAGE`."""

    engine: SandboxEngine
    live: ReleaseDocument
    candidate: ReleaseDocument
    pace: RehearsalSettings
    say: Callable[[str], None]
    planned: plan.PlannedLoad
    objections: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    coverage: str = ""
    changed: list[ChangedRoute] = field(default_factory=list)
    costs: list[plan.Cost] = field(default_factory=list)
    measured: tuple[Measured, Measured] | None = None
    rollout: RolloutReport | None = None
    routes: Routes = field(init=False)

    def __post_init__(self) -> None:
        self.routes = Routes(self.live)

    async def run(self) -> RehearsalReport:
        """Raises HitlessError if live's own copy does not come up, because then nothing is known."""
        stage = self.live.settings.name
        live_start = await self._ship(stage, self.live)
        self.say(f"live's copy is up in {live_start:.2f} s")
        try:
            candidate_start = await self._ship(CANDIDATE_STAGE, self.candidate)
        except HitlessError as error:
            self.objections.append(f"it does not come up: {error.message}")
            return self._report()
        self.say(f"the candidate is up in {candidate_start:.2f} s")
        self.objections += plan.removed_routes(self.live, self.candidate)
        await self._compare(self._urls())
        self.costs = plan.as_load(self.planned, self.costs, self.routes)
        if self.doubts:
            return self._report()
        if not self.costs:
            (self.doubts if self.routes.any else self.notes).append(judge.NO_LOAD)
            return self._report()
        as_load = tuple(one.request for one in self.costs)
        await self._beside((live_start, candidate_start))
        if not self.doubts:
            await self._roll_out(as_load)
        return self._report()

    async def _ship(self, stage: str, document: ReleaseDocument) -> float:
        """Bring a release up in a stage of the sandbox; seconds until its workers were ready."""
        functions = tuple(
            replace(one, workers=max(1, min(one.workers, MAX_WORKERS)), max_workers=None, schedules=())
            for one in document.functions
        )
        settings = replace(document.settings, approval=Approval.NONE, hooks=Hooks())
        alone = replace(settings, alarms=replace(settings.alarms, guard_s=0))
        sent = replace(document, functions=functions, settings=alone)
        result = await asyncio.to_thread(self.engine.deploy, stage, sent, "AllAtOnce")
        if result["outcome"] != "live":
            raise HitlessError(str(result["reason"]))
        return float(result["duration_s"])

    def _urls(self) -> tuple[str, str]:
        urls = {one["stage"]: str(one["url"]) for one in self.engine.status()["stages"]}
        return urls[self.live.settings.name], urls[CANDIDATE_STAGE]

    async def _compare(self, urls: tuple[str, str]) -> None:
        """Compare responses side by side. Keeps the cost of each request to which live responds well."""
        unanswered = 0
        for request in self.planned.compared:
            name = self.routes.name_of(request)
            began_s = time.monotonic()
            live = [await asyncio.to_thread(ask, urls[0], request) for _ in range(SAMPLES)]
            took_s = (time.monotonic() - began_s) / SAMPLES
            candidate = [await asyncio.to_thread(ask, urls[1], request) for _ in range(SAMPLES)]
            heard = _heard(live)
            unanswered += not heard
            bad = next((one.status for one in heard or live if not 200 <= one.status < 300), None)
            if bad is not None:
                self.left_out.append(f"{name}: live responds with {bad or 'nothing'}")
                continue
            self.costs.append(plan.Cost(request, self.routes.function_of(request), took_s))
            if found := differences(heard, _heard(candidate) or candidate):
                self.objections += [f"{name}: {one}" for one in found if one.breaks]
                self.notes += [f"{name}: {one}" for one in found if not one.breaks]
                self.changed.append(ChangedRoute(name, tuple(map(str, found))))
        self.say(f"{len(self.costs)} requests compared, {len(self.changed)} with different responses")
        for one in self.changed:
            self.say(f"  {one.route}: {', '.join(one.differences)}")
        self.coverage = plan.coverage(self.live, self.costs, self.left_out)
        self.say(self.coverage)
        self._doubt(judge.unheard(len(self.planned.compared), unanswered))

    def _doubt(self, why: str) -> None:
        self.doubts += [why] if why else []

    async def _beside(self, startup_s: tuple[float, float]) -> None:
        """The same load on both at the same time, then crowds."""
        alarms = self.candidate.settings.alarms
        beside = Beside(
            self.engine.status,
            (self.live.settings.name, CANDIDATE_STAGE),
            self._urls(),
            self.costs,
            self.routes,
            self._workers(),
            self._rate(self.pace.rate_per_s),
            startup_s,
        )
        rounds = await beside.rounds(self.pace.beside_s, alarms)
        self.measured = live, candidate = judge.totals(rounds)
        found = judge.of_load(rounds, alarms)
        self.say(
            f"side by side: p99 {candidate.latency_ms.p99} ms, live's {live.latency_ms.p99} ms ({len(rounds)} rounds)"
        )
        self._doubt(judge.too_little(live, candidate))
        if self.doubts:
            self.notes += found
            return
        self.objections += found
        self.objections += await beside.crowds(self.pace.beside_s)

    async def _roll_out(self, requests: tuple[DrillRequest, ...]) -> None:
        """Roll out by the stage's strategy and alarms, at higher speed."""
        strategy = plan.faster(self.candidate.settings.strategy, self.pace.shift_s)
        alarms = self.candidate.settings.alarms
        rate = self._rate(plan.rate_for(strategy, alarms.minimum_requests, self.pace.rate_per_s))
        self.say(f"rolling out by {strategy} at {rate:.0f} requests a second")
        load = Driven(self._urls()[0], requests, rate)
        await load.start()
        try:
            settings = replace(self.candidate.settings, approval=Approval.NONE)
            document = replace(self.candidate, settings=settings)
            stage = self.live.settings.name
            result = await asyncio.to_thread(self.engine.deploy, stage, document, str(strategy))
        except BaseException:
            await load.stop()
            raise
        await load.finish()
        self.rollout = rollout = convert(
            {**result, "strategy": str(strategy), "requests": load.requests, "failed": load.failed.total()},
            RolloutReport,
            "the rollout's result",
        )
        seen = rollout.candidate.requests if rollout.candidate else 0
        if seen < alarms.minimum_requests:
            self.notes.append(f"the alarms saw {seen} requests, and judge from {alarms.minimum_requests} on")
        objection, doubt = judge.of_rollout(rollout.outcome, rollout.reason, rollout.live, alarms)
        self.objections += [objection] if objection else []
        self._doubt(doubt)

    def _rate(self, asked_per_s: float) -> float:
        """The rate, or a lower one that does not overrun live's workers in the sandbox."""
        return plan.bearable_rate(asked_per_s, self.costs, self._workers())

    def _workers(self) -> dict[str, int]:
        return {one.name: max(1, min(one.workers, MAX_WORKERS)) for one in self.live.functions}

    def _report(self) -> RehearsalReport:
        live, candidate = self.measured or (None, None)
        objections = self.objections[:MAX_OBJECTIONS]
        load = None
        if self.measured:
            routes = {self.routes.route_of(one.request) for one in self.costs}
            load = LoadReport(self.planned.source, len(self.costs), len(routes), self.planned.lines)
        return RehearsalReport(
            stage=self.live.settings.name,
            may_ship=not objections and not self.doubts,
            objections=tuple(objections),
            undecided=tuple(self.doubts),
            notes=tuple(self.notes[:MAX_OBJECTIONS]),
            sentence=judge.sentence(live, candidate, objections, self.doubts),
            answers=tuple(self.changed),
            left_out=tuple(self.left_out),
            coverage=self.coverage,
            live=live and live.rounded(),
            candidate=candidate and candidate.rounded(),
            load=load,
            rollout=self.rollout,
        )


def _heard(samples: list[SampledResponse]) -> list[SampledResponse]:
    return [one for one in samples if one.was_heard]
