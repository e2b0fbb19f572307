"""Inside a rehearsal's sandbox: its engine, its artifacts, requests to it, and its workers' memory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hitless.artifact.store import ArtifactStore
from hitless.drill import target
from hitless.drill.requests import DrillRequest
from hitless.errors import EngineError
from hitless.pipeline.rehearsal.compare import SampledResponse
from hitless.release.document import ReleaseDocument
from hitless.worker.memory import kib

DEADLINE_S = 15.0


class SandboxEngine(Protocol):
    """The verbs of the sandbox's running engine; each blocks."""

    def deploy(self, stage: str, document: ReleaseDocument, strategy: str) -> dict[str, Any]: ...
    def status(self) -> dict[str, Any]: ...


def stock(source: Path, into: Path, *documents: ReleaseDocument) -> None:
    """Copy the artifacts that the documents name. Raises EngineError if one is missing."""
    have, want = ArtifactStore(source), ArtifactStore(into)
    for digest in {one.digest for document in documents for one in document.artifacts.values()}:
        zipped = have.zip_path(digest)
        if not zipped.is_file():
            raise EngineError(f"the artifact {digest} is not in {source}", hint="deploy its commit again")
        with want.working() as workspace:
            copy = workspace.folder / "artifact.zip"
            shutil.copyfile(zipped, copy)
            want.add(copy, None, 0)
        want.unpack(digest)  # in advance: the start-ups are compared


def ask(url: str, request: DrillRequest) -> SampledResponse:
    """Send one request; status 0 if there is no response. Blocking."""
    response = target.ask(target.parse_target(url), request, deadline_s=DEADLINE_S, agent="hitless-rehearsal")
    return SampledResponse.of(response.status, response.body)


def memory_mb(status: Mapping[str, Any], stage: str) -> float:
    """The private memory of the stage's workers together, in MiB."""
    found = next(one for one in status["stages"] if one["stage"] == stage)
    pids = [worker["pid"] for function in found["functions"] for worker in function["workers"]]
    return sum(kib(f"{pid}/smaps_rollup", "Private_Clean:", "Private_Dirty:") for pid in pids) / 1024
