"""The end of a run: how its candidate is shipped, verified and taken back, at the home of its stage."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from hitless.errors import HitlessError
from hitless.pipeline.approvals import changes_of
from hitless.pipeline.course import Course
from hitless.pipeline.definition import stricter
from hitless.pipeline.runs import StepFailed
from hitless.pipeline.verification import reachable, verify_live
from hitless.release.document import ReleaseDocument
from hitless.release.result import Outcome, Result
from hitless.release.who import Who
from hitless.rollout.rollout import Rollout
from hitless.service.model import Home, StageSettings


def home_of(course: Course) -> EngineHome | AwsHome:
    """The one place that picks, by what the candidate says of its stage."""
    return HOMES[course.candidate.settings.home]


async def protection(course: Course) -> StageSettings:
    """What the run obeys: what is known to protect its stage, here or on AWS, and what its commit asks for besides."""
    wanted = course.candidate.settings
    there = await HOMES[Home.AWS].live(course) if wanted.home is Home.AWS else None
    found = (course.parts.in_force(course.stage), there.settings if isinstance(there, ReleaseDocument) else None)
    known = [one for one in found if one]
    course.changed = changes_of(known, wanted)
    return reduce(stricter, [*known, wanted])


class EngineHome:
    """This engine."""

    tells_all = True
    """Whether a release there is nothing but what its document says."""
    carries_on = False
    """Whether a release that was cut off stays where it is, and is carried on by whoever ships it again."""

    async def live(self, course: Course) -> ReleaseDocument | str:
        """What is live in the stage, its artifacts at hand; or a sentence on why nothing can be compared with it."""
        return course.live() or "nothing is live in the stage"

    async def ship(self, course: Course) -> Mapping[str, Any]:
        """The candidate by the stage's strategy; the rollout's document, as `deploy` gives it."""
        engine, records, run = course.parts.engine, course.parts.records, course.row.run
        verb = "promote" if course.options.source else "deploy"
        force = _has_no_commit(course.live()) and not _has_no_commit(course.candidate)
        started = await engine.deploy(
            course.stage, course.candidate, strategy=None, force=force, verb=verb, who=_who(course)
        )
        if isinstance(started, Rollout):
            records.set_release(run, started.candidate.number)
        return await _followed(course, started)

    async def faults(self, course: Course, release: int) -> tuple[str, ...] | None:
        """What is wrong with it, now that it is live; None where another release is live by now."""
        live = course.parts.engine.store.live(course.stage)
        if live is None or live[0] != release:
            return None
        url = course.parts.urls()[course.stage]
        faults = tuple(await asyncio.to_thread(verify_live, url, course.candidate.settings, release))
        live = course.parts.engine.store.live(course.stage)  # another release's answers are no fault of this one
        return faults if live is not None and live[0] == release else None

    async def take_back(self, course: Course, why: str) -> str:
        """Ship the release before again; what came of it, in words for the run's reason."""
        why = f"run {course.row.run}: {why}"
        try:
            started = await course.parts.engine.rollback(course.stage, None, who=_who(course), why=why)
        except HitlessError as error:
            return f"it stays live, for nothing can take over: {error.message}"
        result = await _followed(course, started)
        if Outcome(result["outcome"]).exit_code:
            return f"release {result['release']} could not take over: {result['reason']}"
        return f"rolled back to release {result['release']}"


class AwsHome:
    """As `EngineHome`: the stage's stacks on AWS, by errands. The bytes are the candidate's; nothing is built for them.

    A release there has more than a document tells: whatever serverless.yml asks of CloudFormation.
    """

    tells_all = False
    carries_on = True

    async def live(self, course: Course) -> ReleaseDocument | str:
        if course.copied is None:
            place = await course.service_place(course.stage)
            course.copied = await course.parts.on_aws.copy(place, log=_log(course))
        return course.copied

    async def ship(self, course: Course) -> Mapping[str, Any]:
        if local := sorted(name for name, one in course.candidate.artifacts.items() if one.local):
            raise StepFailed(f"the artifacts of {', '.join(local)} were built for this machine alone: not for AWS")
        place = await course.service_place(course.stage)
        return await course.parts.on_aws.ship(place, course.candidate, _who(course), log=_log(course))

    async def faults(self, course: Course, release: int) -> tuple[str, ...] | None:
        place = await course.service_place(course.stage)
        found = await course.parts.on_aws.verify(place, course.candidate, release, log=_log(course))
        if found.superseded:
            return None
        return (*found.faults, *await self._at_its_address(course))

    async def take_back(self, course: Course, why: str) -> str:
        course.say(f"taken back: {why}")
        try:
            place, said = await course.service_place(course.stage), f"run {course.row.run}: {why}"
            result = await course.parts.on_aws.rollback(place, said, log=_log(course))
        except HitlessError as error:
            return f"it stays live, for nothing can take over: {error.message}"
        return f"rolled back to release {result['release']}"

    async def _at_its_address(self, course: Course) -> list[str]:
        """The smoke requests as a client sends them, where the address can be reached from here."""
        step = next(one for one in course.parts.records.steps(course.row.run) if one.name == "deploy")
        url = (step.detail or {}).get("url")
        if not url or os.environ.get("AWS_ENDPOINT_URL"):
            return []  # what stands for AWS at another endpoint does not serve at AWS's addresses
        if not await asyncio.to_thread(reachable, url):
            course.say(f"{url} cannot be reached from this machine: asked through Lambda alone")
            return []
        return await asyncio.to_thread(verify_live, url, course.candidate.settings, None)


HOMES: Mapping[Home, EngineHome | AwsHome] = {Home.ENGINE: EngineHome(), Home.AWS: AwsHome()}


def _has_no_commit(release: ReleaseDocument | None) -> bool:
    """What was shipped from a folder outside git, or beside its commit: nothing later could be told to be the same."""
    return release is not None and (release.commit is None or release.commit.endswith("-dirty"))


async def _followed(course: Course, started: Rollout | Result) -> Mapping[str, Any]:
    """The end of what the engine began, each step on the way said in the run's log."""
    result: Mapping[str, Any] = {}
    async for line in course.parts.engine.follow(started):
        if step := line.get("step"):
            note = f" ({step['note']})" if step.get("note") else ""
            course.say(f"{step['state']:<12} {step['weight_percent']:>3} %{note}")
        result = line.get("result") or result
    return result


def _who(course: Course) -> Who:
    return Who(ci="hitless pipeline", actor=course.row.actor, run=str(course.row.run))


def _log(course: Course) -> Path:
    return course.parts.workshop.log(course.row.run)
