"""Which steps a run takes, and whose turn it waits for. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from hitless.pipeline.course import Course
from hitless.pipeline.previewing import preview
from hitless.pipeline.states import StepEnd, StepName
from hitless.pipeline.steps import STEPS, source, test
from hitless.store.runs import RunRow

Steps = Mapping[StepName, Callable[[Course], Awaitable[StepEnd]]]

BRANCH: Steps = {StepName.SOURCE: source, StepName.TEST: test}
PREVIEWED: Steps = {**BRANCH, StepName.PREVIEW: preview}


def steps_of(row: RunRow) -> Steps:
    """In their order: all of them for a stage; for a branch its tests, and its preview where one was asked for."""
    if row.stage is not None:
        return STEPS
    return PREVIEWED if row.options.get("preview") else BRANCH


def lane_of(row: RunRow) -> str:
    """Runs of one lane come one after the other, and the newest of those that wait supersedes the others."""
    return f"stage {row.stage}" if row.stage else f"branch {row.branch}"
