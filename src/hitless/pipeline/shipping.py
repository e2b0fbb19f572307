"""Ships a pipeline run's candidate to its stage, on this machine or on AWS; verifies it, and rolls it back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import reduce
from typing import Any

from hitless.drill.target import fault_of
from hitless.errors import HitlessError
from hitless.homes.errands import CopyLive, GivenArtifacts, RollBack, Ship, Verify
from hitless.pipeline.approvals import changes_of
from hitless.pipeline.course import Course
from hitless.pipeline.definition import stricter
from hitless.pipeline.runs import StepFailed
from hitless.release.document import ReleaseDocument, environment_changes
from hitless.release.result import Result, Verified
from hitless.release.who import Who
from hitless.rollout.rollout import Rollout
from hitless.service.model import Home, StageSettings


def home_of(course: Course) -> OwnEngine | AwsByErrands:
    """The home of the candidate's stage."""
    return HOMES[course.candidate.settings.home]


async def protection(course: Course) -> StageSettings:
    """The settings for the run: the strictest of those in force, here and on AWS, and those of its commit."""
    wanted = course.candidate.settings
    there = await HOMES[Home.AWS].live(course) if wanted.home is Home.AWS else None
    found = (course.parts.in_force(course.stage), there.settings if isinstance(there, ReleaseDocument) else None)
    known = [one for one in found if one]
    course.changed = changes_of(known, wanted)
    return reduce(stricter, [*known, wanted])


class OwnEngine:
    """The engine that runs the pipeline. `AwsByErrands` has the same verbs."""

    settings_are_all = True
    """Whether a release's document is complete; on AWS, serverless.yml may contain more resources."""
    continues = False
    """Whether a release that was cut off keeps its state until the next ship continues it."""

    async def live(self, course: Course) -> ReleaseDocument | str:
        """The live release, its artifacts in the engine's store; or the reason why there is none to compare with."""
        return course.live() or "nothing is live in the stage"

    async def ship(self, course: Course) -> Result:
        """Ship the candidate by the stage's strategy."""
        engine, records, run = course.parts.engine, course.parts.records, course.row.run
        verb = "promote" if course.options.source else "deploy"
        if (live := course.live()) and (changed := environment_changes(live, course.candidate.functions)):
            course.say(f"the values of {', '.join(changed)} change")
        force = _has_no_commit(course.live()) and not _has_no_commit(course.candidate)
        started = await engine.deploy(
            course.stage, course.candidate, strategy=None, force=force, verb=verb, who=who_of(course)
        )
        if isinstance(started, Rollout):
            records.set_release(run, started.candidate.number)
        return await follow(course, started)

    async def verify(self, course: Course, release: int) -> tuple[str, ...] | None:
        """The problems of the release after it went live; None if another one is live by now."""
        if live_number(course) != release:
            return None
        url = course.parts.urls()[course.stage]
        at = course.parts.reach(course.stage)
        asked = [await asyncio.to_thread(fault_of, url, one, release, at) for one in course.candidate.settings.smoke]
        faults = tuple(filter(None, asked))
        return faults if live_number(course) == release else None  # otherwise another release responded

    async def rollback(self, course: Course, why: str) -> str:
        """Ship the previous release again. Returns the result as text, for the run's reason."""
        why = f"run {course.row.run}: {why}"
        try:
            started = await course.parts.engine.rollback(course.stage, None, who=who_of(course), why=why)
        except HitlessError as error:
            return f"it stays live, because no release can replace it: {error.message}"
        result = await follow(course, started)
        if result.outcome.exit_code:
            return f"release {result.release} could not replace it: {result.reason}"
        return f"rolled back to release {result.release}"


class AwsByErrands:
    """The stage's stacks on AWS. The bytes are the candidate's; nothing is built for them."""

    settings_are_all = False
    continues = True

    async def live(self, course: Course) -> ReleaseDocument | str:
        if course.copied is None:
            errand = CopyLive(stage=course.stage_in_file, folder=await course.folder_for_aws())
            found = await course.parts.on_aws(errand, dict[str, Any], course.log)
            course.copied = ReleaseDocument.from_json(found["document"]) if found["document"] else str(found["why"])
        return course.copied

    async def ship(self, course: Course) -> Result:
        if local := sorted(name for name, one in course.candidate.artifacts.items() if one.local):
            raise StepFailed(f"the artifacts of {', '.join(local)} were built for this machine only, not for AWS")
        document = course.candidate
        given = GivenArtifacts(
            document.digests, document.commit, document.message, document.promoted_from, who_of(course)
        )
        errand = Ship(stage=course.stage_in_file, folder=await course.folder_for_aws(), given=given)
        return await course.parts.on_aws(errand, Result, course.log)

    async def verify(self, course: Course, release: int) -> tuple[str, ...] | None:
        folder, digests = await course.folder_for_aws(), course.candidate.digests
        errand = Verify(stage=course.stage_in_file, folder=folder, release=release, digests=digests)
        found = await course.parts.on_aws(errand, Verified, course.log)
        return None if found.superseded else found.faults

    async def rollback(self, course: Course, why: str) -> str:
        course.say(f"rolling back: {why}")
        try:
            folder, said = await course.folder_for_aws(), f"run {course.row.run}: {why}"
            errand = RollBack(stage=course.stage_in_file, folder=folder, why=said)
            result = await course.parts.on_aws(errand, Result, course.log)
        except HitlessError as error:
            return f"it stays live, because no release can replace it: {error.message}"
        return f"rolled back to release {result.release}"


HOMES: Mapping[Home, OwnEngine | AwsByErrands] = {Home.ENGINE: OwnEngine(), Home.AWS: AwsByErrands()}


def live_number(course: Course) -> int | None:
    """The live release of the run's stage."""
    live = course.parts.engine.store.live(course.stage)
    return live[0] if live else None


def _has_no_commit(release: ReleaseDocument | None) -> bool:
    """Whether it cannot be compared by commit: it was built outside git, or its files differed from the commit."""
    return release is not None and (release.commit is None or release.commit.endswith("-dirty"))


def check_outcome(result: Result) -> None:
    """Raise StepFailed for a rollout that did not succeed."""
    if code := result.outcome.exit_code:
        what = f"release {result.release} was {result.outcome.replace('_', ' ')}: {result.reason}"
        raise StepFailed(what, exit_code=code, detail=result)


async def follow(course: Course, started: Rollout | Result) -> Result:
    """The result of the engine's rollout; its steps go into the run's log."""
    async for line in course.parts.engine.follow(started):
        if step := line.get("step"):
            note = f" ({step['note']})" if step.get("note") else ""
            course.say(f"{step['state']:<12} {step['weight_percent']:>3} %{note}")
    result = started if isinstance(started, Result) else started.result
    assert result is not None
    return result


def who_of(course: Course) -> Who:
    return Who(ci="hitless pipeline", actor=course.row.actor, run=str(course.row.run))
