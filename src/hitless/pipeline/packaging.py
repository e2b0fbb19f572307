"""The build step's process: a checkout becomes a candidate (`hitless.pipeline.package` does the work)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hitless.pipeline.children import call_process
from hitless.pipeline.definition import Definition
from hitless.pipeline.runs import StepFailed
from hitless.release.document import ArtifactRef, ReleaseDocument


@dataclass(frozen=True, slots=True)
class PackageOrder:
    """`path` is the service's folder in the repository; with `artifacts` nothing is built."""

    folder: Path
    path: str
    stage: str
    commit: str
    message: str | None
    artifacts: Mapping[str, ArtifactRef] | None


@dataclass(frozen=True, slots=True)
class PackagingProcess:
    """Builds into an artifact store, in a process that ends when nobody waits for it any more."""

    store: Path

    async def __call__(self, order: PackageOrder, *, log: Path) -> tuple[ReleaseDocument, Definition]:
        """The candidate, and the stages as its commit has them. Raises StepFailed where it cannot be built."""
        plan = {**asdict(order), "store": self.store}
        answer = await call_process("hitless.processes.packaging", plan=plan, log=log)
        error = answer.get("error") if answer else {"message": "the build's process failed"}
        if error:
            raise StepFailed(str(error["message"]), exit_code=int(error.get("exit_code", 1)))
        return ReleaseDocument.from_json(answer["document"]), Definition.from_json(answer["definition"])
