"""A rehearsal from its start to its end, readable from top to bottom in `Rehearsal.run`.

Live's copy and the candidate first stand side by side, each on an address of its own: do both come up, do they answer
alike, do they bear the same load alike? Then the candidate rolls out over live's copy by the stage's own strategy and
alarms at higher speed, under load. Nothing of it touches the stage.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hitless.drill.requests import DrillRequest
from hitless.errors import HitlessError
from hitless.pipeline.rehearsal import judge, plan
from hitless.pipeline.rehearsal.beside import Beside, Sending
from hitless.pipeline.rehearsal.compare import Sample, differences
from hitless.pipeline.rehearsal.judge import Measured
from hitless.pipeline.rehearsal.load import Driven
from hitless.pipeline.rehearsal.sandbox import SandboxEngine, ask
from hitless.release.document import ReleaseDocument
from hitless.service.model import Approval, Hooks, RehearsalSettings

SAMPLES = 4
CANDIDATE_STAGE = "candidate"
WORKERS_AT_MOST = 2
MOST_OBJECTIONS = 20


@dataclass(slots=True)
class Rehearsal:
    """One rehearsal in an engine of its own that has the stage and `CANDIDATE_STAGE`."""

    engine: SandboxEngine
    live: ReleaseDocument
    candidate: ReleaseDocument
    pace: RehearsalSettings
    say: Callable[[str], None]
    sent: plan.Sent
    objections: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    costs: list[plan.Cost] = field(default_factory=list)
    measured: tuple[Measured, Measured] | None = None
    rollout: dict[str, Any] | None = None

    async def run(self) -> dict[str, Any]:
        """The findings. Raises HitlessError where live's own copy does not come up: then nothing is known."""
        stage = self.live.settings.name
        live_start = await self._ship(stage, self.live)
        self.say(f"live's copy is up in {live_start:.2f} s")
        try:
            candidate_start = await self._ship(CANDIDATE_STAGE, self.candidate)
        except HitlessError as error:
            self.objections.append(f"it does not come up: {error.message}")
            return self._findings()
        self.say(f"the candidate is up in {candidate_start:.2f} s")
        self.objections += plan.routes_gone(self.live, self.candidate)
        await self._compare(self._urls())
        self.costs = plan.as_load(self.sent, self.costs, self.live)
        if self.doubts:
            return self._findings()
        if not self.costs:
            self.notes.append("no request may be sent as load: no safe or idempotent one answers 2xx")
            return self._findings()
        as_load = tuple(one.request for one in self.costs)
        await self._beside(live_start, candidate_start)
        if not self.doubts:
            await self._roll_out(as_load)
        return self._findings()

    async def _ship(self, stage: str, document: ReleaseDocument) -> float:
        """Bring a release up in a stage of the sandbox; seconds until its workers were ready."""
        functions = tuple(
            replace(one, workers=max(1, min(one.workers, WORKERS_AT_MOST)), max_workers=None)
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
        """Answers side by side; keeps the requests that live answers well, and what they cost."""
        unanswered = 0
        for request in self.sent.compared:
            name = plan.name_of(request, self.live)
            sides: list[list[Sample]] = [[], []]
            began_s = time.monotonic()
            sides[0] += [await asyncio.to_thread(ask, urls[0], request) for _ in range(SAMPLES)]
            took_s = (time.monotonic() - began_s) / SAMPLES
            sides[1] += [await asyncio.to_thread(ask, urls[1], request) for _ in range(SAMPLES)]
            heard = [sample for sample in sides[0] if sample.was_heard]
            unanswered += not heard
            amiss = next((one.status for one in heard or sides[0] if not 200 <= one.status < 300), None)
            if amiss is not None:
                self.left_out.append(f"{name}: live answers {amiss or 'nothing'}")
                continue
            self.costs.append(plan.Cost(request, plan.function_of(request, self.live), took_s))
            found = differences(heard, [sample for sample in sides[1] if sample.was_heard] or sides[1])
            objections, notes = judge.of_answers(name, found)
            self.objections += objections
            self.notes += notes
            if found:
                self.answers.append({"route": name, "differences": [str(one) for one in found]})
        self.say(f"{len(self.costs)} requests compared, {len(self.answers)} answered otherwise")
        for one in self.answers:
            self.say(f"  {one['route']}: {', '.join(one['differences'])}")
        self._doubt(judge.unheard(len(self.sent.compared), unanswered))

    def _doubt(self, why: str) -> None:
        self.doubts += [why] if why else []

    async def _beside(self, *startup_s: float) -> None:
        """The same load on both at the same time, then crowds."""
        alarms = self.candidate.settings.alarms
        workers = self._workers()
        sendings = [
            Sending(
                one.request,
                plan.name_of(one.request, self.live),
                plan.route_name(one.request, self.live),
                workers.get(one.function or "", 1),
                one.took_s * 1000,
            )
            for one in self.costs
        ]
        beside = Beside(
            self.engine.status,
            (self.live.settings.name, CANDIDATE_STAGE),
            sendings,
            self._rate(self.pace.rate_per_s),
            (startup_s[0], startup_s[1]),
        )
        rounds = await beside.rounds(self.pace.beside_s, alarms)
        self.measured = live, candidate = judge.totals(rounds)
        found = judge.of_load(rounds, alarms)
        self.say(f"side by side: p99 {candidate.p99_ms} ms, live's {live.p99_ms} ms ({len(rounds)} rounds)")
        self._doubt(judge.too_little(live, candidate))
        if self.doubts:
            self.notes += found
            return
        self.objections += found
        self.objections += await beside.crowds(self.pace.beside_s)

    async def _roll_out(self, requests: tuple[DrillRequest, ...]) -> None:
        """By the stage's strategy and alarms, at higher speed."""
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
        self.rollout = {
            "strategy": str(strategy),
            "outcome": result["outcome"],
            "reason": result["reason"],
            "requests": load.requests,
            "failed": load.failed.total(),
            "candidate": result["candidate"],
            "live": result["live"],
        }
        seen = (result["candidate"] or {}).get("requests", 0)
        if seen < alarms.minimum_requests:
            self.notes.append(f"the alarms saw {seen} requests, and judge from {alarms.minimum_requests} on")
        objection, doubt = judge.of_rollout(result, alarms)
        self.objections += [objection] if objection else []
        self._doubt(doubt)

    def _rate(self, asked_per_s: float) -> float:
        """So many requests a second that live's workers in the sandbox are not overrun."""
        return plan.bearable_rate(asked_per_s, self.costs, self._workers())

    def _workers(self) -> dict[str, int]:
        return {one.name: max(1, min(one.workers, WORKERS_AT_MOST)) for one in self.live.functions}

    def _findings(self) -> dict[str, Any]:
        live, candidate = self.measured or (None, None)
        objections = self.objections[:MOST_OBJECTIONS]
        return {
            "stage": self.live.settings.name,
            "may_ship": not objections and not self.doubts,
            "objections": objections,
            "undecided": self.doubts,
            "notes": self.notes[:MOST_OBJECTIONS],
            "sentence": judge.sentence(live, candidate, objections, self.doubts),
            "answers": self.answers,
            "left_out": self.left_out,
            "live": live.to_json() if live else None,
            "candidate": candidate.to_json() if candidate else None,
            "load": self.sent.to_json(self.costs, self.live) if self.measured else None,
            "rollout": self.rollout,
        }
