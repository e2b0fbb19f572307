"""Removes old releases, artifacts and logs after each rollout. Rollouts and their receipts are kept far longer.

The live release and the one that `rollback` would ship are kept whatever their age.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from hitless.artifact.store import ArtifactStore
from hitless.clock import Clock, timestamp
from hitless.store.store import Store

RELEASES_KEPT = 20
ROLLOUTS_KEPT = 1000
"""Rollouts kept per stage, with their receipts; they are kept longer than their releases."""
RECENT = timedelta(hours=1)
"""Releases that a rollout of the last hour shipped or replaced are kept for a rollback."""


class Retention:
    """Forgets old releases of a stage, and removes the artifacts and logs that no release uses."""

    def __init__(self, store: Store, artifacts: ArtifactStore, logs: Path, clock: Clock) -> None:
        self._store, self._artifacts, self._logs, self._clock = store, artifacts, logs, clock

    async def apply(self, stage: str) -> list[int]:
        """Forget the stage's old releases; returns their numbers."""
        self._store.forget_rollouts(stage, kept=ROLLOUTS_KEPT)
        needed = self.needed(stage)
        gone = [number for number in self._store.release_numbers(stage)[:-RELEASES_KEPT] if number not in needed]
        if gone:
            await self.forget(stage, gone)
        return gone

    def needed(self, stage: str) -> set[int]:
        """The releases that run, ship, or were shipped or replaced in the last hour."""
        needed = {row.release for row in self._store.pools(stage)}
        if live := self._store.live(stage):
            needed.add(live[0])
        for rollout in self._store.unfinished_rollouts():  # recovery needs both
            if rollout.stage == stage:
                needed |= {rollout.release, rollout.previous_release or rollout.release}
        return needed | self._store.released_since(stage, timestamp(self._clock.now() - RECENT))

    async def forget(self, stage: str, gone: Sequence[int]) -> None:
        """Forget these releases; remove their logs, and the artifacts that no release uses."""
        for number in gone:
            self._store.forget_release(stage, number)
        await asyncio.to_thread(self._remove_files, stage, gone, self._store.artifacts_in_use())

    async def remove_logs(self, stage: str) -> None:
        """Remove the logs of a stage that is being removed."""
        await asyncio.to_thread(shutil.rmtree, self._logs / stage, ignore_errors=True)

    async def prune(self) -> None:
        await asyncio.to_thread(self._artifacts.prune, self._store.artifacts_in_use())

    def _remove_files(self, stage: str, gone: Sequence[int], in_use: set[str]) -> None:
        for number in gone:
            shutil.rmtree(self._logs / stage / f"r{number}", ignore_errors=True)
        self._artifacts.prune(in_use)
