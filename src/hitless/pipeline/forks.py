"""Pull requests of forks: tested once a maintainer has read and approved them, never shipped.

The approval is for one commit. Its build gets no parameters, shares no cache or environment with other builds, and runs
as a user of its own. What the fork's author wrote (titles, names of branches) names no branch, file or message here.
"""

from __future__ import annotations

from hitless.forge.forge import Fork
from hitless.pipeline.approvals import Question, QuestionCommit
from hitless.pipeline.course import Course, WaitsForApproval
from hitless.pipeline.runs import StepEnd, StepFailed
from hitless.pipeline.steps import ask_person, supersede_waiting

MAX_FILES = 200


async def ask_maintainer(course: Course) -> StepEnd:
    """Ask a maintainer before any of the fork's code runs."""
    run, fork = course.row.run, course.options.fork
    assert fork is not None
    if course.parts.workshop.user is None:
        raise StepFailed(
            "a fork's code would run as the engine's own user, who can read its secrets: only an engine of root's,"
            " which can run builds as somebody else, tests it"
        )
    supersede_waiting(course)
    expires = ask_person(course, await _question(course, fork))
    course.say(f"{fork.sentence}: run {run} waits until {expires} for who has read it: hitless approve {run}")
    raise WaitsForApproval


async def _question(course: Course, fork: Fork) -> Question:
    """The commits and files that a maintainer has to read."""
    repository, commit = course.parts.repository, course.row.commit
    base = await repository.head_of(fork.base) if fork.base else None
    return Question(
        run=course.row.run,
        stage=None,
        fork=fork,
        commit=commit,
        commits=QuestionCommit.of(await repository.commits_between(base, commit)),
        files=tuple(await repository.changed_files(base, commit, limit=MAX_FILES)) if base else None,
    )
