"""`hitless init DIR`: a new service from a scaffold that ships with the package (templates/, one folder each).

Invariants: no file of the user is ever overwritten, and no half-written folder stays: the files are written to a hidden
folder first and moved into place by renaming. A file dot-NAME in a scaffold becomes .NAME, because packagers give
meaning to real ones.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shlex
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from hitless.cli.common import Context, command
from hitless.errors import MachineError, UsageError

TEMPLATES = files("hitless") / "templates"
KNOWN = sorted(entry.name for entry in TEMPLATES.iterdir() if (entry / "serverless.yml").is_file())
LONGEST_NAME = 40  # Lambda allows 64 characters for SERVICE-STAGE-FUNCTION
PLACEHOLDER = b"{{service}}"
SHOWN = 5


@command("init", example="hitless init hello && cd hello && hitless up --detach")
def init(
    ctx: Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to create; the service gets its name.")],
    template: Annotated[
        str, typer.Option("--template", "-t", help=f"The scaffold to use: {' or '.join(KNOWN)}.")
    ] = "service",
    github: Annotated[
        bool, typer.Option("--github", help="Add a GitHub Actions workflow that tests, and releases on AWS.")
    ] = False,
) -> None:
    """Create a service that runs here and deploys to AWS unchanged."""
    folder = folder.expanduser().resolve()
    service = service_name(folder.name)
    try:
        written = scaffold(folder, service, template, github=github)
    except PermissionError as error:
        raise MachineError(
            f"{folder} cannot be created: {error.strerror}", hint="choose a folder that you may write to"
        ) from error
    ctx.show(
        {"service": service, "folder": str(folder), "files": written},
        lambda: _next_steps(folder, service, written),
    )


def service_name(folder_name: str) -> str:
    """A name that CloudFormation and Lambda accept: `My API_2` → `my-api-2`. UsageError if there is no such name."""
    plain = unicodedata.normalize("NFKD", folder_name).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
        raise UsageError(
            f"{folder_name!r} cannot be a service's name: it must begin with a letter and have two characters or more",
            hint="choose a folder name of letters, digits and hyphens that begins with a letter, such as hello",
        )
    if len(name) > LONGEST_NAME:
        raise UsageError(
            f"{name!r} is too long for a service's name: {len(name)} characters, {LONGEST_NAME} at most",
            hint="choose a shorter folder name",
        )
    return name


def scaffold(folder: Path, service: str, template: str, *, github: bool = False) -> list[str]:
    """Write a scaffold's files into a new or empty folder (`.git` may be there); their names, sorted.

    Raises UsageError for an unknown template or a folder that has files; OSError leaves nothing behind.
    """
    tools = TEMPLATES / "service" / "deploy"  # locks the tools of the deploy step
    sources = [(tools, PurePosixPath("deploy")), (_template(template), PurePosixPath())]
    if github and template != "service":
        raise UsageError(
            f"--github: the template {template} has no workflow",
            hint="leave out --github, or write a workflow yourself",
        )
    if github:
        sources.append((TEMPLATES / "github", PurePosixPath()))
    in_the_way = _entries(folder)
    if in_the_way:
        listed = ", ".join(in_the_way[:SHOWN]) + (f" and {len(in_the_way) - SHOWN} more" if in_the_way[SHOWN:] else "")
        raise UsageError(
            f"{folder} is not empty: {listed}",
            hint="choose a new folder, or move these files elsewhere",
            details={"files": in_the_way},
        )
    contents = {
        name: data.replace(PLACEHOLDER, service.encode())
        for source, prefix in sources
        for name, data in _contents(source, prefix)
    }
    with _staging(folder) as staging:
        for name, data in contents.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        _move_into_place(staging, folder)
    return sorted(contents)


def _template(name: str) -> Traversable:
    if name not in KNOWN:
        raise UsageError(f"--template: there is no template {name!r}", hint=f"known templates: {', '.join(KNOWN)}")
    return TEMPLATES / name


def _contents(folder: Traversable, prefix: PurePosixPath) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        name = prefix / re.sub(r"^dot-", ".", entry.name)
        if entry.is_file():
            yield str(name), entry.read_bytes()
        elif entry.name not in ("__pycache__", ".pytest_cache"):
            yield from _contents(entry, name)


def _entries(folder: Path) -> list[str]:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", hint="choose a new folder")
    return sorted(entry.name for entry in folder.iterdir() if entry.name != ".git") if folder.exists() else []


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A hidden folder on the target's file system; gone afterwards, with the parents made for it if the work failed."""
    home = folder if folder.exists() else folder.parent
    made = [parent for parent in (home, *home.parents) if not parent.exists()]
    staging = home / f".hitless-init-{secrets.token_hex(4)}"
    try:
        staging.mkdir(parents=True)
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # other files were added to it in the meantime
                parent.rmdir()
        raise
    shutil.rmtree(staging, ignore_errors=True)


def _move_into_place(staging: Path, folder: Path) -> None:
    """Rename a new folder; fill one that exists, because it may be a shell's current folder."""
    if not folder.exists():
        staging.rename(folder)
        return
    moved: list[Path] = []
    try:
        for entry in sorted(staging.iterdir()):
            target = folder / entry.name
            if target.exists():
                raise FileExistsError(errno.EEXIST, "was created in the meantime", str(target))
            entry.rename(target)
            moved.append(target)
    except BaseException:
        for target in moved:
            target.rename(staging / target.name)
        raise


def _next_steps(folder: Path, service: str, written: list[str]) -> str:
    here = Path.cwd()
    if folder == here:
        step_in = ""
    else:
        target = os.path.relpath(folder, here) if folder.is_relative_to(here) else str(folder)
        step_in = f"  cd {shlex.quote(target)}\n"
    build = "  sh build.sh\n" if "build.sh" in written else ""
    return f"""created the service {service} in {folder} ({len(written)} files)

next:
{step_in}{build}  hitless up --detach
  curl http://127.0.0.1:8080/hello/world
  hitless deploy    # after a change

once the folder is a git repository, each release names its commit, and a push of dev ships:
  git init -b dev && git add . && git commit -m first && git push "$(hitless pipeline url)" dev
"""
