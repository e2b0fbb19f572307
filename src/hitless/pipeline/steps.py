"""The steps of a run. Each is a function of the run's course that returns, raises StepFailed, or waits for a person."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, replace

from hitless.artifact.model import Host, Platform
from hitless.clock import timestamp
from hitless.documents import to_text
from hitless.homes.errands import FetchArtifacts
from hitless.pipeline.approvals import EXPIRES_DAYS, Question, question
from hitless.pipeline.builds import TEST_FILE
from hitless.pipeline.buildspec.files import remove
from hitless.pipeline.buildspec.run import BuildResult
from hitless.pipeline.course import Course, Step, WaitsForApproval
from hitless.pipeline.promotion import origin_of
from hitless.pipeline.runs import RunState, StepDetail, StepEnd, StepFailed, StepName, StepState, lane_of, skipped
from hitless.pipeline.shipping import check_outcome, home_of, protection
from hitless.release.document import Origin, ReleaseDocument
from hitless.release.result import Outcome, Result
from hitless.service.model import Approval, Home

MAX_FILES = 200
"""Changed files of a fork that a question lists."""
LEFT_OUT = "the stage's steps leave it out"


class SourceDetail(msgspec.Struct, frozen=True):
    """The commit."""

    subject: str
    author: str
    committed_at: str


class BuildDetail(msgspec.Struct, frozen=True, rename={"source": "from"}):
    """The candidate's artifacts (function → digest), how its own files were built, and the release that it promotes."""

    artifacts: Mapping[str, str]
    source: str | UnsetType = UNSET
    home: Home | UnsetType = UNSET
    release: int | UnsetType = UNSET
    built: BuildResult | UnsetType = UNSET


class DeployDetail(Result, frozen=True, kw_only=True):
    """The rollout's result, and whether the stage's settings want it verified."""

    verify: bool


async def source(course: Course) -> StepEnd:
    """Check that the commit exists, and describe it."""
    repository = course.parts.repository
    if not await course.parts.holds(course.row.commit):
        if course.options.document:
            return skipped(
                "the repository does not contain the commit: the configuration is that of the service's folder"
            )
        raise StepFailed(f"the repository does not contain the commit {course.row.commit[:12]}")
    info, committed_at = await repository.describe(course.row.commit), await repository.committed_at(course.row.commit)
    return StepEnd(
        detail=SourceDetail(info.subject, info.author, committed_at),
        sentence=f"{info.commit[:12]} {info.subject} ({info.author})",
    )


async def test(course: Course) -> StepEnd:
    """Run buildspec-test.yml in a clean checkout."""
    if origin := course.options.source:
        return skipped(f"a promotion ships the bytes of {origin} and does not test them again")
    known = course.parts.in_force(course.row.stage) if course.row.stage else None
    if known and not known.test:
        return skipped(LEFT_OUT)
    return await _tested(course)


async def _tested(course: Course) -> StepEnd:
    result = await course.parts.run_build(course.order(StepName.TEST))
    if result is None:
        return skipped(f"there is no {TEST_FILE}")
    return StepEnd(detail=result, sentence="; ".join(report.sentence for report in result.reports))


async def build(course: Course) -> StepEnd:
    """Make the candidate from the commit, or from the artifacts of the release that is promoted."""
    origin = origin_of(course.parts, course.row)
    if origin and origin.home is Home.AWS:
        digests = tuple(origin.artifacts.values())
        errand = FetchArtifacts(stage=origin.stage, folder=await course.folder_for_aws(), digests=digests)
        fetched = await course.parts.on_aws(errand, dict[str, int], course.log)
        course.say(f"{fetched['fetched']} artifacts fetched from the bucket of {origin.stage}, their digests checked")
    if origin and not await course.parts.holds(course.row.commit):
        return _candidate_of_folder(course, origin)
    document, definition = await course.package(course.stage_in_file, origin.refs if origin else None)
    if known := course.parts.definition():
        known.merged_with(definition).write(course.parts.workshop.definition)
    if origin and course.options.source:
        document = replace(document, promoted_from=origin.promoted_from)
    course.set_candidate(document)
    await _test_after_all(course)
    if origin:
        return _check_same_artifacts(document, origin)
    return StepEnd(detail=BuildDetail(document.digests, built=course.built or UNSET))


async def _test_after_all(course: Course) -> None:
    """Run the tests if the commit's own settings require them and the live settings do not."""
    steps = {step.name: step for step in course.parts.records.steps(course.row.run)}
    taken = steps.get(StepName.TEST)
    if taken is not None and StepDetail.of(taken.detail).why == LEFT_OUT and (await protection(course)).test:
        course.say("this commit's steps have test again:")
        end = await _tested(course)
        course.parts.records.set_step(course.row.run, StepName.TEST, end.state, detail=end.detail)


async def rehearse(course: Course) -> StepEnd:
    """Roll the candidate out over a copy of the live release in a sandbox, under load."""
    if course.options.skip_rehearsal:
        return skipped(f"asked for by {course.row.actor}")
    asked = (await protection(course)).rehearsal
    if not asked:
        return skipped("the stage has rehearsal: false")
    live = await home_of(course).live(course)
    if isinstance(live, str):
        return skipped(live)
    if live.fingerprint() == course.candidate.fingerprint():
        return skipped("nothing has changed")
    parts = course.parts
    candidate = replace(course.candidate, settings=replace(course.candidate.settings, rehearsal=asked))
    report = await parts.rehearse(live, candidate, course.log)
    if report.objections:
        raise StepFailed("; ".join(report.objections), exit_code=3, detail=report)
    if not report.may_ship:
        how = f"`hitless pipeline retry {course.row.run}` when the machine has less to do, or -o skip-rehearsal"
        raise StepFailed(f"{report.sentence}: {how}", detail=report)
    return StepEnd(detail=report, sentence=report.sentence)


async def approve(course: Course) -> StepEnd:
    """Ask a person, and wait for the answer."""
    obeyed = await protection(course)
    if course.changed:
        course.say(course.changed)
    if obeyed.approval is not Approval.MANUAL:
        return skipped("the stage has approval: none")
    parts, run, home = course.parts, course.row.run, home_of(course)
    found = await home.live(course)
    live = found if isinstance(found, ReleaseDocument) else None
    if live is not None and home.settings_are_all and live.fingerprint() == course.candidate.fingerprint():
        return skipped("nothing has changed")
    supersede_waiting(course)
    expires = ask_person(course, await question(parts, course.row, live, course.candidate, course.changed))
    course.say(f"run {run} waits for approval until {expires}: hitless approve {run}, or hitless reject {run}")
    raise WaitsForApproval


async def deploy(course: Course) -> StepEnd:
    """Roll the candidate out by the stage's strategy, at the stage's home."""
    supersede_waiting(course)
    asked = await protection(course)  # afterwards the candidate's settings are live
    result = await home_of(course).ship(course)
    course.parts.records.set_release(course.row.run, result.release)
    check_outcome(result)
    sentence = f"release {result.release} is live in {course.stage}"
    if result.outcome is Outcome.UNCHANGED:
        sentence = f"nothing has changed: {sentence} already"
    if known := course.parts.definition():
        known.with_live(course.candidate.settings).write(course.parts.workshop.definition)
    return StepEnd(detail=DeployDetail(**asdict(result), verify=asked.verify), sentence=sentence)


async def verify(course: Course) -> StepEnd:
    """Check that the live release is the shipped one and responds correctly; if not, ship the previous one again."""
    row = course.parts.records.run(course.row.run)
    assert row is not None
    home = home_of(course)
    shipped = next(one.detail for one in course.parts.records.steps(row.run) if one.name == StepName.DEPLOY)
    if not StepDetail.of(shipped).verify:
        await _finish_promotion(course)
        return skipped(LEFT_OUT)
    faults = await home.verify(course, row.release) if row.release is not None else None
    if faults is None:
        return skipped("another release is live by now")
    if not faults:
        await _finish_promotion(course)
        url = course.parts.urls().get(course.stage) if course.candidate.settings.home is Home.ENGINE else None
        return StepEnd(sentence=f"{course.stage} responds as it should" + (f" at {url}" if url else ""))
    why = "; ".join(faults)
    detail = StepDetail(reason=f"taken back: {why}", exit_code=3)
    course.parts.records.set_step(row.run, StepName.DEPLOY, StepState.FAILED, detail=detail)  # a retry deploys again
    raise StepFailed(f"{why}: {await home.rollback(course, why)}", exit_code=3, detail=StepDetail(faults=faults))


async def ask_maintainer(course: Course) -> StepEnd:
    """Ask a maintainer to read a fork's commit before any of its code runs. A fork is tested, never shipped.

    Text by the fork's author (titles, branch names) is never used in a branch name, file name or message here.
    """
    parts, row, fork = course.parts, course.row, course.options.fork
    assert fork is not None
    if parts.workshop.user is None:
        raise StepFailed(
            "a fork's code would run as the engine's own user, who can read its secrets: only an engine of root's,"
            " which can run builds as somebody else, tests it"
        )
    supersede_waiting(course)
    base = await parts.repository.head_of(fork.base) if fork.base else None
    asked = Question(
        run=row.run,
        stage=None,
        fork=fork,
        commit=row.commit,
        commits=await parts.repository.commits_between(base, row.commit),
        files=tuple(await parts.repository.changed_files(base, row.commit, limit=MAX_FILES)) if base else None,
    )
    expires = ask_person(course, asked)
    course.say(
        f"{fork.description}: run {row.run} waits until {expires} for who has read it: hitless approve {row.run}"
    )
    raise WaitsForApproval


STEPS: Mapping[StepName, Step] = {
    StepName.SOURCE: source,
    StepName.TEST: test,
    StepName.BUILD: build,
    StepName.REHEARSE: rehearse,
    StepName.APPROVE: approve,
    StepName.DEPLOY: deploy,
    StepName.VERIFY: verify,
}


def supersede_waiting(course: Course) -> None:
    """End older runs of the lane that wait for approval, because this one is ahead of them."""
    parts, run = course.parts, course.row.run
    for row in parts.records.in_state(RunState.WAITING):
        if lane_of(row) == lane_of(course.row) and row.run < run:
            Course(parts, row).end(RunState.SUPERSEDED, f"run {run} came after it")


def ask_person(course: Course, asked: Question) -> str:
    """Keep the question and record that it was asked. Returns the time until which it can be answered."""
    parts, run, now = course.parts, course.row.run, course.parts.clock.now()
    (parts.workshop.of_run(run) / "question.json").write_text(to_text(asked))
    expires = timestamp(now + timedelta(days=EXPIRES_DAYS))
    parts.records.ask(run, asked_at=timestamp(now), expires_at=expires)
    return expires


def _candidate_of_folder(course: Course, origin: Origin) -> StepEnd:
    """The candidate of a promotion without the commit: the folder's configuration, the release's artifacts."""
    assert course.options.document is not None
    given = ReleaseDocument.from_json(course.options.document)
    if missing := [function.name for function in given.functions if function.name not in origin.artifacts]:
        raise StepFailed(f"{origin} has no artifact for {', '.join(missing)}: deploy or push instead", exit_code=2)
    document = replace(
        given,
        artifacts={function.name: origin.refs[function.name] for function in given.functions},
        commit=origin.commit,
        message=origin.message,
        promoted_from=origin.promoted_from,
    )
    course.set_candidate(document)
    return _check_same_artifacts(document, origin)


def _check_runs_here(document: ReleaseDocument) -> None:
    """Raises StepFailed if artifacts built for Lambda do not run on this machine."""
    host = Host.here()
    for function in document.functions:
        if different := host.differences(Platform(function.runtime, function.architecture)):
            raise StepFailed(
                f"the artifact of {function.name} does not run on this machine: {'; '.join(different)}", exit_code=2
            )


def _check_same_artifacts(document: ReleaseDocument, origin: Origin) -> StepEnd:
    if (origin.home, document.settings.home) == (Home.AWS, Home.ENGINE):
        _check_runs_here(document)
    digests = document.digests
    if digests != origin.artifacts:
        raise StepFailed(f"the artifacts are not those of {origin}")
    detail = BuildDetail(digests, origin.stage, origin.home, origin.release)
    return StepEnd(detail=detail, sentence=f"the artifacts of {origin}, byte for byte")


async def _finish_promotion(course: Course) -> None:
    """Move the stage's branch to the promoted commit, and remove the copy of the folder."""
    branch, commit, repository = course.row.branch, course.row.commit, course.parts.repository
    moves = course.options.source and await course.parts.holds(commit)
    if moves and not await repository.fast_forward(branch, commit):
        course.say(f"the branch {branch} has commits of its own and was not moved")
    await asyncio.to_thread(remove, course.parts.workshop.service_of(course.row.run))
