"""Turns a service's folder into a release: builds artifacts, describes the configuration. For commands and builds."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from hitless.artifact.build import build
from hitless.artifact.model import Artifact, BuiltArtifacts
from hitless.artifact.store import ArtifactStore
from hitless.engine.folders import Folders
from hitless.errors import UsageError
from hitless.homes.home import Workplace
from hitless.release.document import ArtifactRef, ReleaseDocument
from hitless.service.closed import check_served
from hitless.service.model import Service
from hitless.store.store import ReleaseRow, Store


def folders_of(place: Workplace) -> Folders:
    """The folders of the engine that the data folder belongs to."""
    return Folders.of(place.data_dir, os.environ)


def store_of(place: Workplace) -> ArtifactStore:
    """The artifact store of the data folder."""
    return ArtifactStore(place.data_dir / "artifacts")


def load(place: Workplace, *, served: bool = True) -> Service:
    """The service of the folder for the engine, with its notices shown. ServiceFileError."""
    service = place.load()
    tell_notices(place, service, served=served)
    return service


def tell_notices(place: Workplace, service: Service, *, served: bool = True) -> None:
    """Show the file's notices. With `served`, raises ServiceFileError if the engine cannot serve it safely."""
    for notice in service.notices:
        place.say(f"note: {notice}")
    if served:
        check_served(service)


def build_document(place: Workplace, service: Service, *, message: str | None = None) -> ReleaseDocument:
    """Build the artifacts for this machine and describe the release. BuildError or MachineError."""
    folders_of(place).create()
    built = _build(place, service)
    artifacts = {name: ArtifactRef(artifact.digest, artifact.local) for name, artifact in built.by_function.items()}
    return replace(configuration(service), artifacts=artifacts, commit=commit_of(service.folder), message=message)


def build_portable(place: Workplace, service: Service) -> dict[str, Artifact]:
    """Build the artifacts for the platform that the functions declare. BuildError or MachineError."""
    place.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return dict(_build(place, service).portable)


def _build(place: Workplace, service: Service) -> BuiltArtifacts:
    built = build(service, store_of(place), say=place.say)
    for warning in built.warnings:
        place.say(f"warning: {warning}")
    return built


def configuration(service: Service) -> ReleaseDocument:
    """A release of the service's stage without its artifacts."""
    return ReleaseDocument(
        service=service.name,
        region=service.region,
        functions=service.functions,
        artifacts={},
        settings=service.settings,
        memory_mb=service.memory_mb,
        total_workers=service.total_workers,
        cpu_weight=service.cpu_weight,
    )


def candidate(
    service: Service, artifacts: dict[str, ArtifactRef], *, commit: str | None, message: str | None
) -> ReleaseDocument:
    """A release of the service with these artifacts. UsageError if a function has none."""
    if missing := [function.name for function in service.functions if function.name not in artifacts]:
        raise UsageError(
            f"the release to promote has no artifact for {', '.join(missing)}",
            hint="this serverless.yml has functions that the release does not have: deploy or push instead",
        )
    chosen = {function.name: artifacts[function.name] for function in service.functions}
    return replace(configuration(service), artifacts=chosen, commit=commit, message=message)


def commit_of(folder: Path) -> str | None:
    """The git commit of the folder, with `-dirty` if files differ from it; None outside git.

    $HITLESS_COMMIT names it for a copy without .git, such as CodePipeline's checkout.
    """
    if given := os.environ.get("HITLESS_COMMIT"):
        return given
    return ask_git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None


def ask_git(folder: Path, *words: str) -> str:
    """git's output for the folder; "" outside a repository, and without git."""
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def recorded(place: Workplace, release: int | None = None) -> ReleaseRow | None:
    """A release of the stage from the state file, by default the live one; None without one. Needs no engine."""
    file = folders_of(place).state_file
    if not file.exists():
        return None
    with closing(Store(file, read_only=True)) as store:
        number = release if release is not None else next(iter(store.live(place.engine_stage) or ()), None)
        return store.release(place.engine_stage, int(number)) if number is not None else None
