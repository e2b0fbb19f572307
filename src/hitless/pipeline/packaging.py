"""The build step: turns a checkout into a candidate, in a process of its own.

A build would take CPU time that the engine's daemon needs, and it can be cancelled this way. Its progress goes into the
run's log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hitless.artifact.build import build
from hitless.artifact.store import ArtifactStore
from hitless.documents import convert, to_plain
from hitless.errors import BuildError, HitlessError
from hitless.homes.folder import candidate
from hitless.pipeline.children import call_process
from hitless.pipeline.definition import Definition
from hitless.pipeline.runs import StepFailed
from hitless.release.document import ArtifactRef, ReleaseDocument
from hitless.service.closed import check_served
from hitless.service.load import load_service
from hitless.service.model import Home
from hitless.store.secrets import SecretStore


@dataclass(frozen=True, slots=True)
class PackageOrder:
    """`path` is the service's folder in the repository; if `artifacts` are given, nothing is built. `at_engine` is the
    stage's name at the engine, if it differs.
    """

    folder: Path
    path: str
    stage: str
    commit: str
    message: str | None
    artifacts: Mapping[str, ArtifactRef] | None
    at_engine: str | None = None


async def package_in_process(store: Path, order: PackageOrder, log: Path) -> tuple[ReleaseDocument, Definition]:
    """The candidate and the stages of its commit. It is built into an artifact store, in a process that ends if the
    awaiting task is cancelled. StepFailed if it cannot be built.
    """
    secrets = SecretStore(store.parent).sealed(order.at_engine or order.stage)
    plan = {**asdict(order), "artifacts": to_plain(order.artifacts), "store": store, "secrets": secrets}
    answer = await call_process("hitless.processes.packaging", plan=plan, log=log)
    error = answer.get("error") if answer else {"message": "the build's process failed"}
    if error:
        raise StepFailed(str(error["message"]), exit_code=int(error.get("exit_code", 1)))
    definition = convert(answer["definition"], Definition, "the pipeline's definition")
    return ReleaseDocument.from_json(answer["document"]), definition


def package(plan: dict[str, Any]) -> dict[str, Any]:
    """The process's side: the candidate of the plan's folder, and its definition. Raises HitlessError."""
    try:
        return _package(plan)
    except HitlessError as error:
        _say(f"hint: {error.hint}")
        raise


def _package(plan: dict[str, Any]) -> dict[str, Any]:
    folder, stage = Path(plan["folder"]), plan["stage"]
    options = {"stage": stage}
    service = load_service(folder, stage=stage, options=options, environ=os.environ, on_aws=True)
    if service.settings.home is Home.ENGINE or service.settings.rehearsal:  # it runs on this machine
        service = load_service(folder, stage=stage, options=options, environ=os.environ, secrets=plan["secrets"])
    check_served(service)  # before time is spent on a build
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
        # for AWS, artifacts for the declared platform; for this machine, ones that run on it
        chosen = built.portable if service.settings.home is Home.AWS else built.by_function
        artifacts = {name: ArtifactRef(one.digest, one.local) for name, one in chosen.items()}
        if missing := [function.name for function in service.functions if function.name not in artifacts]:
            raise BuildError(
                f"functions.{missing[0]}: there is no artifact for the platform that it declares",
                hint="see the build's warnings above",
            )
    document = candidate(service, artifacts, commit=plan["commit"], message=plan["message"])
    return {"document": document.to_json(), "definition": to_plain(definition)}


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
