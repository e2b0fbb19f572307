"""Pull requests of forks: a stranger's code, tested once a maintainer has seen it and said so, and never shipped.

The approval is for one commit. Its build gets no parameters, keeps nothing for other builds, takes nothing that they
left, and runs as a user that nothing else here runs as. What the stranger wrote (titles, names of branches) names
nothing here: no branch, no file, no message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hitless.clock import timestamp
from hitless.errors import UsageError
from hitless.pipeline.approvals import EXPIRES_DAYS
from hitless.pipeline.builds import BuildOrder
from hitless.pipeline.course import Course, Waits
from hitless.pipeline.github import MAX_NUMBER, REPOSITORY
from hitless.pipeline.lanes import FORK
from hitless.pipeline.states import StepEnd, StepFailed, StepName, skipped
from hitless.pipeline.steps import TEST_FILE, supersede_waiting
from hitless.store.runs import RunRow

MOST_FILES = 200
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Fork:
    """A pull request of the repository `origin` (owner/name; None where it is gone) into the branch `base`."""

    number: int
    origin: str | None
    base: str | None

    @property
    def branch(self) -> str:
        """What people know it by."""
        return f"pull/{self.number}"

    @property
    def sentence(self) -> str:
        return f"pull request {self.number} of {self.origin or 'a repository that is gone'}"

    @classmethod
    def from_json(cls, document: Any) -> Fork:
        """Raises UsageError where it is none."""
        if not isinstance(document, Mapping):
            raise UsageError("not a fork's pull request", hint="see the receiver's log")
        number, origin, base = document.get("number"), document.get("origin"), document.get("base")
        if (
            type(number) is not int  # True is one, too
            or not 1 <= number <= MAX_NUMBER
            or not (origin is None or (isinstance(origin, str) and REPOSITORY.fullmatch(origin)))
            or not (base is None or isinstance(base, str))
        ):
            raise UsageError("not a fork's pull request: its number or repository", hint="see the receiver's log")
        return cls(number, origin, base)

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "origin": self.origin, "base": self.base}


def fork_of(row: RunRow) -> Fork | None:
    """Whose code the run tests, where it is a stranger's."""
    return Fork.from_json(row.options[FORK]) if FORK in row.options else None


def commit_of(text: object) -> str:
    """A whole commit's name. Raises UsageError."""
    if not isinstance(text, str) or not _COMMIT.fullmatch(text):
        raise UsageError("not a commit", hint="give all its digits")
    return text


async def admit(course: Course) -> StepEnd:
    """Ask a maintainer before anything of the stranger's is run."""
    parts, run = course.parts, course.row.run
    fork = fork_of(course.row)
    assert fork is not None
    if parts.workshop.user is None:
        raise StepFailed(
            "a fork's code would run as the engine's own user, who can read its secrets: only an engine of root's,"
            " which can run builds as somebody else, tests it"
        )
    supersede_waiting(course)
    (parts.workshop.of_run(run) / "question.json").write_text(json.dumps(await _question(course, fork)))
    now = parts.clock.now()
    expires = timestamp(now + timedelta(days=EXPIRES_DAYS))
    parts.records.ask(run, asked_at=timestamp(now), expires_at=expires)
    course.say(f"{fork.sentence}: run {run} waits until {expires} for who has read it: hitless approve {run}")
    raise Waits


async def test(course: Course) -> StepEnd:
    """buildspec-test.yml as the fork has it."""
    row, fork = course.row, fork_of(course.row)
    assert fork is not None
    order = BuildOrder(
        run=row.run,
        step=StepName.TEST,
        file=TEST_FILE,
        commit=row.commit,
        branch=fork.branch,
        path=course.path,
        actor=fork.sentence,
        variables={},
        fork=fork.number,
    )
    result = await course.parts.builds.run(order)
    return skipped(f"there is no {TEST_FILE}") if result is None else StepEnd(detail=result)


async def _question(course: Course, fork: Fork) -> dict[str, Any]:
    """What a maintainer has to have read: whose, which commits, which files."""
    repository, commit = course.parts.repository, course.row.commit
    base = await repository.head_of(fork.base) if fork.base else None
    commits = await repository.commits_between(base, commit)
    return {
        "run": course.row.run,
        "stage": None,
        "fork": fork.to_json(),
        "commit": commit,
        "commits": [{"commit": one.commit, "subject": one.subject, "author": one.author} for one in commits],
        "files": await repository.changed_files(base, commit, limit=MOST_FILES) if base else None,
        "configuration": [],
        "rehearsal": None,
    }
