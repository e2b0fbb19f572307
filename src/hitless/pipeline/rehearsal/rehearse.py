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
from hitless.pipeline.rehearsal.compare import Sample, differences
from hitless.pipeline.rehearsal.judge import Measured
from hitless.pipeline.rehearsal.load import Driven, drive_both
from hitless.pipeline.rehearsal.sandbox import SandboxEngine, ask, memory_mb
from hitless.rollout.release import ReleaseDocument
from hitless.service.model import Approval, Hooks, RehearsalSettings

SAMPLES = 4
CANDIDATE_STAGE = "candidate"
WORKERS_AT_MOST = 2
WARM_UP_S = 1.0
MOST_OBJECTIONS = 20


@dataclass(slots=True)
class Rehearsal:
    """One rehearsal in an engine of its own that has the stage and `CANDIDATE_STAGE`."""

    engine: SandboxEngine
    live: ReleaseDocument
    candidate: ReleaseDocument
    pace: RehearsalSettings
    say: Callable[[str], None]
    recorded: tuple[DrillRequest, ...] = ()
    objections: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    took_s: list[tuple[DrillRequest, float]] = field(default_factory=list)
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
        requests = await self._compare(self._urls())
        as_load = tuple(one for one in requests if plan.may_repeat(one, self.live))
        if not as_load:
            self.notes.append("no request may be sent as load: no safe or idempotent one answers 2xx")
            return self._findings()
        await self._beside(as_load, live_start, candidate_start)
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

    async def _compare(self, urls: tuple[str, str]) -> list[DrillRequest]:
        """Answers side by side; the requests that live answers well."""
        kept = []
        for request in self.recorded or plan.requests_of(self.live, self.candidate):
            name = plan.name_of(request, self.live)
            sides: list[list[Sample]] = [[], []]
            began_s = time.monotonic()
            sides[0] += [await asyncio.to_thread(ask, urls[0], request) for _ in range(SAMPLES)]
            took_s = (time.monotonic() - began_s) / SAMPLES
            sides[1] += [await asyncio.to_thread(ask, urls[1], request) for _ in range(SAMPLES)]
            if not all(200 <= sample.status < 300 for sample in sides[0]):
                self.left_out.append(f"{name}: live answers {sides[0][0].status or 'nothing'}")
                continue
            kept.append(request)
            self.took_s.append((request, took_s))
            found = differences(*sides)
            objections, notes = judge.of_answers(name, found)
            self.objections += objections
            self.notes += notes
            if found:
                self.answers.append({"route": name, "differences": [str(one) for one in found]})
        self.say(f"{len(kept)} requests compared, {len(self.answers)} answered otherwise")
        return kept

    async def _beside(self, requests: tuple[DrillRequest, ...], *startup_s: float) -> None:
        """The same load on both at the same time."""
        stages = (self.live.settings.name, CANDIDATE_STAGE)
        urls = self._urls()
        rate = self._rate(requests, self.pace.rate_per_s)
        warm = [Driven(url, requests, rate) for url in urls]
        await drive_both(WARM_UP_S, *warm)
        before = [memory_mb(self.engine.status(), stage) for stage in stages]
        driven = [Driven(url, requests, rate) for url in urls]
        await drive_both(self.pace.beside_s, *driven)
        status = self.engine.status()
        names = [plan.name_of(one, self.live) for one in requests]
        both = [
            Measured(
                startup_s=round(start, 3),
                requests=load.requests,
                failed=load.failed.total(),
                p50_ms=load.percentile_ms(50),
                p99_ms=load.percentile_ms(99),
                memory_mb=(now := memory_mb(status, stage)),
                growth_mb=now - was,
                failures={names[index]: count for index, count in load.failed.items() if count and index >= 0},
            )
            for start, load, stage, was in zip(startup_s, driven, stages, before, strict=True)
        ]
        self.measured = both[0], both[1]
        self.objections += judge.of_load(*self.measured, self.candidate.settings.alarms)
        self.say(f"side by side: p99 {both[1].p99_ms} ms, live's {both[0].p99_ms} ms")

    async def _roll_out(self, requests: tuple[DrillRequest, ...]) -> None:
        """By the stage's strategy and alarms, at higher speed."""
        strategy = plan.faster(self.candidate.settings.strategy, self.pace.shift_s)
        alarms = self.candidate.settings.alarms
        wanted = plan.rate_for(strategy, alarms.minimum_requests, self.pace.rate_per_s)
        rate = self._rate(requests, wanted)
        if rate < wanted / 2:
            self.notes.append(
                f"at the {rate:.0f} requests a second that live bears the alarms may see too few requests"
            )
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
        if result["outcome"] not in ("live", "unchanged"):
            self.objections.append(
                f"the rollout would have been {result['outcome'].replace('_', ' ')}: {result['reason']}"
            )

    def _rate(self, requests: tuple[DrillRequest, ...], asked_per_s: float) -> float:
        """So many requests a second that live's workers in the sandbox are not overrun."""
        workers = {one.name: max(1, min(one.workers, WORKERS_AT_MOST)) for one in self.live.functions}
        took = [(plan.function_of(one, self.live), seconds) for one, seconds in self.took_s if one in requests]
        return plan.bearable_rate(asked_per_s, [(name, seconds) for name, seconds in took if name], workers)

    def _findings(self) -> dict[str, Any]:
        live, candidate = self.measured or (None, None)
        objections = self.objections[:MOST_OBJECTIONS]
        return {
            "stage": self.live.settings.name,
            "may_ship": not objections,
            "objections": objections,
            "notes": self.notes[:MOST_OBJECTIONS],
            "sentence": judge.sentence(live, candidate, objections),
            "answers": self.answers,
            "left_out": self.left_out,
            "live": live.to_json() if live else None,
            "candidate": candidate.to_json() if candidate else None,
            "rollout": self.rollout,
        }
