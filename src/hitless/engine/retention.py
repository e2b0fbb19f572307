"""What is kept of the past: the newest releases of each stage with artifacts and logs, and far more rollouts with
their receipts; the rest goes after each rollout.

The live release and the one that `rollback` would ship are kept whatever their age.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from hitless.clock import Clock, timestamp
from hitless.store.store import ReleaseRow, Store

RELEASES_KEPT = 20
ROLLOUTS_KEPT = 1000
"""Of each stage, with their receipts: they outlive the releases that they tell of."""
RECENT = timedelta(hours=1)
"""Whatever a rollout of the last hour shipped or replaced is kept: somebody may be about to roll back to it."""


class PrunableArtifacts(Protocol):
    """Where artifacts are kept."""

    def prune(self, keep: set[str]) -> list[str]: ...


def surplus(releases: Iterable[ReleaseRow], needed: set[int], *, kept: int = RELEASES_KEPT) -> list[int]:
    """The numbers to forget: all but the newest `kept` and those that are needed. Pure."""
    numbers = sorted((row.release for row in releases), reverse=True)
    return [number for number in numbers[kept:] if number not in needed]


class Retention:
    """Forgets old releases of a stage, then the artifacts and logs that nothing names any more."""

    def __init__(self, store: Store, artifacts: PrunableArtifacts, logs: Path, clock: Clock) -> None:
        self._store, self._artifacts, self._logs, self._clock = store, artifacts, logs, clock

    async def apply(self, stage: str) -> list[int]:
        """The numbers of the releases that were forgotten."""
        self._store.forget_rollouts(stage, kept=ROLLOUTS_KEPT)
        needed = {row.release for row in self._store.pools(stage)}
        if live := self._store.live(stage):
            needed.add(live[0])
        for rollout in self._store.unfinished_rollouts():  # the engine's next start reads both
            if rollout.stage == stage:
                needed |= {rollout.release, rollout.previous_release or rollout.release}
        since = timestamp(self._clock.now() - RECENT)
        for index, rollout in enumerate(self._store.rollouts(stage)):
            if index and rollout.started_at < since:
                break
            needed |= {rollout.release, rollout.previous_release or rollout.release}
        gone = surplus(self._store.releases(stage), needed)
        for number in gone:
            self._store.forget_release(stage, number)
        if gone:
            await asyncio.to_thread(self._remove_files, stage, gone, self._store.artifacts_in_use())
        return gone

    async def remove_logs(self, stage: str) -> None:
        """What the handlers of a stage wrote that is going."""
        await asyncio.to_thread(shutil.rmtree, self._logs / stage, ignore_errors=True)

    async def prune(self) -> None:
        """The artifacts that nothing names any more."""
        await asyncio.to_thread(self._artifacts.prune, self._store.artifacts_in_use())

    def _remove_files(self, stage: str, gone: list[int], in_use: set[str]) -> None:
        for number in gone:
            shutil.rmtree(self._logs / stage / f"r{number}", ignore_errors=True)
        self._artifacts.prune(in_use)
