"""Which steps a run takes. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from hitless.pipeline import forks
from hitless.pipeline.course import Course
from hitless.pipeline.lanes import FORK
from hitless.pipeline.previewing import preview
from hitless.pipeline.states import StepEnd, StepName
from hitless.pipeline.steps import STEPS, source, test
from hitless.store.runs import RunRow

Steps = Mapping[StepName, Callable[[Course], Awaitable[StepEnd]]]

BRANCH: Steps = {StepName.SOURCE: source, StepName.TEST: test}
FORKED: Steps = {StepName.SOURCE: source, StepName.APPROVE: forks.admit, StepName.TEST: forks.test}
PREVIEWED: Steps = {**BRANCH, StepName.PREVIEW: preview}


def steps_of(row: RunRow) -> Steps:
    """In their order: all of them for a stage; for a branch its tests, and its preview where one was asked for; for a
    fork's pull request its tests, once somebody has approved of them.
    """
    if FORK in row.options:
        return FORKED
    if row.stage is not None:
        return STEPS
    return PREVIEWED if row.options.get("preview") else BRANCH
