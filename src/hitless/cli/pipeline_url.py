"""`hitless pipeline url`: the git URL of the engine's own repository, made where there is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import typer

from hitless.cli.common import Context, command
from hitless.cli.shipping import folders_of, load
from hitless.pipeline.definition import Definition
from hitless.pipeline.repository import Repository, hook_command
from hitless.pipeline.workshop import Workshop


def register(app: typer.Typer) -> None:
    @command(app, "url", example='git push "$(hitless pipeline url)" dev')
    def url(ctx: Context) -> None:
        """Print the git URL that takes pushes. Of the engine's own repository, which is made where there is none.

        Over SSH it is the same path on this machine, for whoever may log in as the engine's owner.
        """
        service = load(ctx)
        folders = folders_of(ctx)
        folders.create()
        workshop = Workshop.of(folders.data, os.environ)
        workshop.create()
        definition = Definition(service.name, path_in_repository(ctx.service_dir), service.stages, service.builds)
        repository = Repository(workshop.repository)
        repository.create(hook_command(folders.data), head=definition.stages[0].branch)
        definition.write(workshop.definition)
        branches = {stage.name: stage.branch for stage in definition.stages}
        ctx.show({"url": str(workshop.repository), "branches": branches}, lambda: str(workshop.repository))


def path_in_repository(folder: Path) -> str:
    """Where a service's folder lies in its git repository: "" for the root, and outside of git."""
    done = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--show-prefix"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip().rstrip("/") if done.returncode == 0 else ""
