"""The preview step: ships a branch's commit to a stage of its own, with the configuration of another stage."""

from __future__ import annotations

from hitless.engine.previews import Previews
from hitless.errors import ConflictError
from hitless.pipeline.course import Course
from hitless.pipeline.runs import StepDetail, StepEnd, StepFailed, skipped
from hitless.pipeline.shipping import check_outcome, follow, who_of
from hitless.release.document import ReleaseDocument
from hitless.release.result import Result
from hitless.rollout.rollout import Rollout
from hitless.service.model import Approval, StageSettings, with_pools

GONE = "the branch was deleted or has moved"


async def preview(course: Course) -> StepEnd:
    """Ship the branch to its own host. Skipped if there is no room for a preview."""
    previews, settings, branch = course.parts.previews, course.parts.preview_settings, course.row.branch
    if previews is None or settings is None:
        return skipped("the service has no previews")
    if not await _is_current(course):
        return skipped(GONE)
    if (known := course.parts.in_force(settings.from_stage)) and known.approval is Approval.MANUAL:
        return skipped(f"a person approves what ships to {known.name}: name another from_stage for previews")
    if why := previews.refusal(branch, 0, known):  # before a useless build
        return skipped(why)
    document, _ = await course.package(settings.from_stage, None)  # not by the commit's own list of stages
    if why := previews.refusal(branch, len(with_pools(document.functions)), known):
        return skipped(why)
    result = await _ship(course, previews, document, known)
    url, bare = previews.url(branch), previews.without_certificate(branch)
    if not await _is_current(course) and await course.parts.repository.head_of(branch) is None:
        previews.close(branch, "its branch was deleted")
        return skipped(GONE)
    return StepEnd(
        detail=StepDetail(url=url, release=result.release, outcome=result.outcome, note=bare),
        sentence=f"preview at {url}/" + (f"\nnote: {bare}" if bare else ""),
    )


async def _is_current(course: Course) -> bool:
    """Whether the branch is still at the run's commit, because an older one is of no use."""
    return await course.parts.repository.head_of(course.row.branch) == course.row.commit


async def _ship(course: Course, previews: Previews, document: ReleaseDocument, known: StageSettings | None) -> Result:
    """The result of a rollout that went live. Else raises StepFailed, and removes a preview that was never live."""
    engine, branch = course.parts.engine, course.row.branch
    try:
        started = await previews.ship(branch, document, who=who_of(course), base=known)
    except ConflictError as error:
        raise StepFailed(error.message) from error
    result = await follow(course, started)
    try:
        check_outcome(result)
    except StepFailed:
        if isinstance(started, Rollout) and engine.store.live(started.candidate.stage) is None:
            previews.close(branch, "its first release did not come up")
        raise
    return result
