"""An engine of its own for one rehearsal: own data folder, free ports, the real artifacts' bytes, gone afterwards."""

from __future__ import annotations

import http.client
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from hitless.artifact.store import ArtifactStore
from hitless.drill.requests import DrillRequest
from hitless.errors import EngineError
from hitless.pipeline.rehearsal.compare import Sample
from hitless.release.document import ReleaseDocument

DEADLINE_S = 15.0


class SandboxEngine(Protocol):
    """The verbs of a running engine, as its API has them; each blocks."""

    def deploy(self, stage: str, document: ReleaseDocument, strategy: str) -> dict[str, Any]: ...
    def status(self) -> dict[str, Any]: ...


def stock(source: Path, target: Path, *documents: ReleaseDocument) -> None:
    """Copy the artifacts that the documents name. Raises EngineError where one is not there."""
    have, want = ArtifactStore(source), ArtifactStore(target)
    for digest in {one.digest for document in documents for one in document.artifacts.values()}:
        zipped = have.zip_path(digest)
        if not zipped.is_file():
            raise EngineError(f"the artifact {digest} is not in {source}", hint="deploy it anew from its commit")
        with want.working() as workspace:
            copy = workspace.folder / "artifact.zip"
            shutil.copyfile(zipped, copy)
            want.add(copy, None, 0)
        want.unpack(digest)  # so that neither start-up has to


def ask(url: str, request: DrillRequest) -> Sample:
    """One request, its answer; status 0 where none came. Blocking."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port, timeout=DEADLINE_S)
    headers = {"user-agent": "hitless-rehearsal", "accept": "*/*", **dict(request.headers)}
    try:
        connection.request(request.method, request.path, request.body or None, headers)
        answer = connection.getresponse()
        return Sample.of(answer.status, answer.read())
    except (OSError, http.client.HTTPException):
        return Sample(0)
    finally:
        connection.close()


def memory_mb(status: Mapping[str, Any], stage: str) -> float:
    """What the stage's workers hold for themselves alone, in MiB."""
    found = next(one for one in status["stages"] if one["stage"] == stage)
    pids = [worker["pid"] for function in found["functions"] for worker in function["workers"]]
    return sum(map(_private_kb, pids)) / 1024


def _private_kb(pid: int) -> int:
    """0 for a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))
