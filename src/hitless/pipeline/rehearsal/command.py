"""The rehearsal as the pipeline's step: `hitless rehearse` in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.pipeline.states import StepFailed
from hitless.rollout.release import ReleaseDocument


@dataclass(frozen=True, slots=True)
class RehearsalCommand:
    """Rehearses with the artifacts of an engine's data folder."""

    data: Path

    async def __call__(self, live: ReleaseDocument, candidate: ReleaseDocument, *, log: Path) -> dict[str, Any]:
        """Raises StepFailed where nothing could be found out."""
        with tempfile.TemporaryDirectory(prefix="hitless-rehearsal-") as folder, log.open("ab") as progress:
            plan = Path(folder) / "plan.json"
            plan.touch(mode=0o600)
            plan.write_text(json.dumps({"live": live.to_json(), "candidate": candidate.to_json()}))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hitless", "rehearse", "--json", "--plan", str(plan)),
                *("--stage", candidate.settings.name, "--data-dir", str(self.data)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=progress,
                cwd="/",
                start_new_session=True,
            )
            try:
                out, _ = await process.communicate()
            except BaseException:
                process.terminate()
                await process.wait()
                raise
        document: dict[str, Any] = json.loads(out) if out.strip() else {}
        if "may_ship" not in document:
            raise StepFailed(str(document.get("error", {}).get("message", "the rehearsal could not be held")))
        return document
