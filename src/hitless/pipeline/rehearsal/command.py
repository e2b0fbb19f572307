"""The rehearsal as the pipeline's step: `hitless rehearse` in a process of its own, which ends with the daemon.

What it rehearses comes on its standard input: the releases' environment may hold secrets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.pipeline.children import answer_of
from hitless.pipeline.runs import StepFailed
from hitless.release.document import ReleaseDocument


@dataclass(frozen=True, slots=True)
class RehearsalCommand:
    """Rehearses with the artifacts of an engine's data folder."""

    data: Path

    async def __call__(self, live: ReleaseDocument, candidate: ReleaseDocument, *, log: Path) -> dict[str, Any]:
        """Raises StepFailed where nothing could be found out."""
        plan = {"live": live.to_json(), "candidate": candidate.to_json()}
        place = ("--stage", candidate.settings.name, "--data-dir", str(self.data))
        document = await answer_of("hitless", "rehearse", "--json", "--plan", *place, plan=plan, log=log)
        if "may_ship" not in document:
            raise StepFailed(str(document.get("error", {}).get("message", "the rehearsal could not be held")))
        return document
