"""The build step's process: a checkout becomes a candidate (`hitless.pipeline.package` does the work)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.pipeline.children import converse, hang_up
from hitless.pipeline.definition import Definition
from hitless.pipeline.states import StepFailed
from hitless.rollout.release import ArtifactRef, ReleaseDocument


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
        artifacts = order.artifacts
        plan = {
            "folder": str(order.folder),
            "path": order.path,
            "stage": order.stage,
            "store": str(self.store),
            "commit": order.commit,
            "message": order.message,
            "artifacts": {name: {"digest": a.digest, "local": a.local} for name, a in artifacts.items()}
            if artifacts is not None
            else None,
        }
        answer = await _ask(plan, log)
        if "error" in answer:
            raise StepFailed(str(answer["error"]["message"]), exit_code=int(answer["error"].get("exit_code", 1)))
        return ReleaseDocument.from_json(answer["document"]), Definition.from_json(answer["definition"])


async def _ask(plan: dict[str, Any], log: Path) -> dict[str, Any]:
    words = [sys.executable, "-m", "hitless.pipeline.package"]
    line = json.dumps(plan).encode() + b"\n"
    _, out, _ = await converse(words, line=line, hold_input=True, errors=log, end=hang_up)
    answer: dict[str, Any] = json.loads(out) if out.strip() else {"error": {"message": "the build's process failed"}}
    return answer
