"""Where serverless.yml tells of a stage on AWS: the commit's files where the repository holds it, else a private copy
of the folder that a promotion named, as it was when it was asked for. What is approved is what ships, whatever
becomes of the folder meanwhile.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from hitless.errors import UsageError
from hitless.pipeline.builds import service_folder
from hitless.pipeline.buildspec.files import remove
from hitless.pipeline.course import Course
from hitless.pipeline.errands import Place
from hitless.pipeline.parts import Parts
from hitless.pipeline.states import StepFailed
from hitless.pipeline.workshop import Workshop

NAME = "service"
MODULES = "node_modules"
LEFT_OUT = shutil.ignore_patterns(
    *(".hitless", ".git", ".venv", "venv", MODULES, ".serverless", "__pycache__", ".pytest_cache", ".mypy_cache")
)
"""What no configuration is read from."""


async def is_kept(parts: Parts, commit: str | None) -> bool:
    """Whether the repository holds the commit."""
    return bool(commit) and parts.repository.exists() and await parts.repository.has(str(commit))


async def checkout(course: Course, name: str) -> Path:
    """The service's folder in the commit's files, which lie in a private folder of that name. Raises StepFailed."""
    workshop, row = course.parts.workshop, course.row
    root = workshop.work_of(row.run) / name
    if not root.exists():
        workshop.make(root)
        await course.parts.repository.extract(row.commit, root)
        (root / ".git").mkdir(exist_ok=True)  # the repository's root, above which a service file reads nothing
    return service_folder(root, course.path)


async def service_place(course: Course, stage: str) -> Place:
    """Raises StepFailed where nothing tells of the stage."""
    if await is_kept(course.parts, course.row.commit):
        return Place(await checkout(course, NAME), stage)
    kept = course.parts.workshop.of_run(course.row.run) / NAME
    if not kept.exists():
        raise StepFailed("neither the repository nor a folder tells of the stage's configuration: push its commit")
    return Place(kept, stage)


async def keep_folder(workshop: Workshop, run: int, named: Path) -> None:
    """Copy the folder for the run. UsageError where it cannot be."""
    await asyncio.to_thread(_copy, named, workshop.of_run(run) / NAME, workshop.data.parent.resolve())


async def forget_folder(course: Course) -> None:
    """The run has arrived: nothing will ask for its folder again."""
    await asyncio.to_thread(remove, course.parts.workshop.of_run(course.row.run) / NAME)


def _copy(named: Path, kept: Path, data: Path) -> None:
    def ignore(folder: str, names: list[str]) -> set[str]:
        own = {name for name in names if (Path(folder) / name).resolve() == data}
        return LEFT_OUT(folder, names) | own

    try:
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copytree(named, kept, symlinks=True, ignore=ignore)
        kept.chmod(0o700)
        if (modules := named / MODULES).is_dir():
            (kept / MODULES).symlink_to(modules)  # plugins of the service, and its own osls
    except (OSError, shutil.Error) as error:
        remove(kept)
        raise UsageError(f"{named} cannot be copied: {error}", hint="is every file in it readable?") from error
