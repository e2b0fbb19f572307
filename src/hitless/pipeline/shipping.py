"""The end of a run: how its candidate is shipped, verified and taken back, at the home of its stage."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hitless.errors import HitlessError
from hitless.pipeline.course import Course
from hitless.pipeline.errands import Place
from hitless.pipeline.states import StepFailed
from hitless.pipeline.verification import reachable, verify_live
from hitless.rollout.release import ReleaseDocument
from hitless.rollout.rollout import Rollout
from hitless.rollout.states import Outcome
from hitless.rollout.who import Who
from hitless.service.model import Home

KEPT = "service"
LEFT_OUT = shutil.ignore_patterns(
    ".hitless", ".git", ".venv", "venv", "node_modules", ".serverless", "__pycache__", ".pytest_cache", ".mypy_cache"
)
"""Of a service's folder that is kept for a run: what no configuration is read from."""


class StageHome(Protocol):
    """Where a run's candidate goes. `tells_all`: whether a release there is nothing but what its document says.
    `carries_on`: whether a release that was cut off stays where it is, and is carried on by whoever ships it again.
    """

    tells_all: bool
    carries_on: bool

    async def live(self, course: Course) -> ReleaseDocument | str:
        """What is live in the stage, its artifacts at hand; or a sentence on why nothing can be compared with it."""
        ...

    async def ship(self, course: Course) -> Mapping[str, Any]:
        """The candidate by the stage's strategy; the rollout's document, as `deploy` gives it."""
        ...

    async def faults(self, course: Course, release: int) -> tuple[str, ...] | None:
        """What is wrong with it, now that it is live; None where another release is live by now."""
        ...

    async def take_back(self, course: Course, why: str) -> str:
        """Ship the release before again; what came of it, in words for the run's reason."""
        ...


def home_of(course: Course) -> StageHome:
    """The one place that picks, by what the candidate says of its stage."""
    return HOMES[course.candidate.settings.home]


class EngineHome:
    """This engine."""

    tells_all = True
    carries_on = False

    async def live(self, course: Course) -> ReleaseDocument | str:
        return course.live() or "nothing is live in the stage"

    async def ship(self, course: Course) -> Mapping[str, Any]:
        engine, records, run = course.parts.engine, course.parts.records, course.row.run
        verb = "promote" if course.row.options.get("from") else "deploy"
        started = await engine.deploy(
            course.stage, course.candidate, strategy=None, force=False, verb=verb, who=_who(course)
        )
        if isinstance(started, Rollout):
            records.set_release(run, started.candidate.number)
        return await _followed(course, started)

    async def faults(self, course: Course, release: int) -> tuple[str, ...] | None:
        live = course.parts.engine.store.live(course.stage)
        if live is None or live[0] != release:
            return None
        url = course.parts.urls()[course.stage]
        faults = tuple(await asyncio.to_thread(verify_live, url, course.candidate.settings, release))
        live = course.parts.engine.store.live(course.stage)  # another release's answers are no fault of this one
        return faults if live is not None and live[0] == release else None

    async def take_back(self, course: Course, why: str) -> str:
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
    """The stage's stacks on AWS, by errands. The bytes are the candidate's; nothing is built for them.

    A release there has more than a document tells: whatever serverless.yml asks of CloudFormation.
    """

    tells_all = False
    carries_on = True

    async def live(self, course: Course) -> ReleaseDocument | str:
        return await course.parts.on_aws.copy(await service_place(course, course.stage), log=_log(course))

    async def ship(self, course: Course) -> Mapping[str, Any]:
        if local := sorted(name for name, one in course.candidate.artifacts.items() if one.local):
            raise StepFailed(f"the artifacts of {', '.join(local)} were built for this machine alone: not for AWS")
        place = await service_place(course, course.stage)
        return await course.parts.on_aws.ship(place, course.candidate, _who(course), log=_log(course))

    async def faults(self, course: Course, release: int) -> tuple[str, ...] | None:
        place = await service_place(course, course.stage)
        found = await course.parts.on_aws.verify(place, course.candidate, release, log=_log(course))
        if found.superseded:
            return None
        return (*found.faults, *await self._at_its_address(course))

    async def take_back(self, course: Course, why: str) -> str:
        course.say(f"taken back: {why}")
        try:
            place, said = await service_place(course, course.stage), f"run {course.row.run}: {why}"
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


HOMES: Mapping[Home, StageHome] = {Home.ENGINE: EngineHome(), Home.AWS: AwsHome()}


async def is_kept(course: Course) -> bool:
    """Whether the repository holds the run's commit."""
    repository, commit = course.parts.repository, course.row.commit
    return bool(commit) and repository.exists() and await repository.has(commit)


async def service_place(course: Course, stage: str) -> Place:
    """Where serverless.yml tells of the stage: the commit's files, else the folder as it was when the run began."""
    if await is_kept(course):
        checkout = course.parts.workshop.work_of(course.row.run) / "service"
        if not checkout.exists():
            course.parts.workshop.make(checkout, for_builds=False)
            await course.parts.repository.extract(course.row.commit, checkout)
        return Place(checkout / course.path, stage)
    return Place(await asyncio.to_thread(_keep_folder, course), stage)


async def forget_folder(course: Course) -> None:
    """The run has arrived: nothing will ask for its folder again."""
    await asyncio.to_thread(shutil.rmtree, course.parts.workshop.of_run(course.row.run) / KEPT, ignore_errors=True)


def _keep_folder(course: Course) -> Path:
    """A private copy of the folder that was named: what is approved is what ships, whatever becomes of the folder."""
    kept = course.parts.workshop.of_run(course.row.run) / KEPT
    named = course.row.options.get("folder")
    if not kept.exists():
        if not named:
            raise StepFailed("neither the repository nor a folder tells of the stage's configuration: push its commit")
        fresh, data = kept.with_suffix(".new"), course.parts.workshop.data.parent.resolve()

        def ignore(folder: str, names: list[str]) -> set[str]:
            own = {name for name in names if (Path(folder) / name).resolve() == data}
            return LEFT_OUT(folder, names) | own

        shutil.rmtree(fresh, ignore_errors=True)
        try:
            shutil.copytree(named, fresh, symlinks=True, ignore=ignore)
        except (OSError, shutil.Error) as error:
            raise StepFailed(f"{named} cannot be copied: {error}") from error
        if (modules := Path(named) / "node_modules").is_dir():
            (fresh / "node_modules").symlink_to(modules)  # plugins of the service, and its own osls
        fresh.chmod(0o700)
        fresh.rename(kept)
    return kept


async def _followed(course: Course, started: Rollout | Mapping[str, Any]) -> Mapping[str, Any]:
    """The end of what the engine began, each step on the way said in the run's log."""
    if not isinstance(started, Rollout):
        return started
    result: Mapping[str, Any] = {}
    async for line in course.parts.engine.follow(started):
        if step := line.get("step"):
            course.say(f"{step['state']:<12} {step['weight_percent']:>3} %{_note(step)}")
        result = line.get("result") or result
    return result


def _who(course: Course) -> Who:
    return Who(ci="hitless pipeline", actor=course.row.actor, run=str(course.row.run))


def _log(course: Course) -> Path:
    return course.parts.workshop.log(course.row.run)


def _note(step: Mapping[str, Any]) -> str:
    return f" ({step['note']})" if step.get("note") else ""
