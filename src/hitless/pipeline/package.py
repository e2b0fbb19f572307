"""Turns a checkout into a candidate, in a process of its own (`hitless.processes.packaging`): a build takes processor
time that the engine's daemon needs for others, and may be ended. Progress goes to standard error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hitless.artifact.build import build
from hitless.artifact.store import ArtifactStore
from hitless.errors import BuildError, HitlessError
from hitless.homes.folder import candidate
from hitless.pipeline.definition import Definition
from hitless.release.document import ArtifactRef
from hitless.service.closed import check_served
from hitless.service.load import load_service
from hitless.service.model import Home


def package(plan: dict[str, Any]) -> dict[str, Any]:
    """The candidate of the plan's folder, and its definition. Raises HitlessError."""
    try:
        return _package(plan)
    except HitlessError as error:
        _say(f"hint: {error.hint}")
        raise


def _package(plan: dict[str, Any]) -> dict[str, Any]:
    folder, stage = Path(plan["folder"]), plan["stage"]
    service = load_service(folder, stage=stage, options={"stage": stage}, environ=os.environ)
    check_served(service)  # before a build that would be for nothing
    definition = Definition(service.name, plan["path"], service.stages, service.builds)
    given = plan["artifacts"]
    if given is not None:
        artifacts = {name: ArtifactRef(one["digest"], one["local"]) for name, one in given.items()}
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "uv")
        os.environ.setdefault("UV_CACHE_DIR", str(cache))  # uv's own default, whatever the commit's uv.toml says
        built = build(service, ArtifactStore(Path(plan["store"])), say=_say)
        for warning in built.warnings:
            _say(f"warning: {warning}")
        # AWS takes what was built for the declared platform, this machine what runs on it
        chosen = built.portable if service.settings.home is Home.AWS else built.by_function
        artifacts = {name: ArtifactRef(one.digest, one.local) for name, one in chosen.items()}
        if missing := [function.name for function in service.functions if function.name not in artifacts]:
            raise BuildError(
                f"functions.{missing[0]}: there is no artifact for the platform that it declares",
                hint="the build's warnings above say why",
            )
    document = candidate(service, artifacts, commit=plan["commit"], message=plan["message"])
    return {"document": document.to_json(), "definition": definition.to_json()}


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
