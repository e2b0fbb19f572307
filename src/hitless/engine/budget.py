"""Keeps the data folder below `HITLESS_DISK_BUDGET`: removes the oldest releases, runs and rotated logs.

It removes nothing that is live, ships, could be the target of `hitless rollback`, or was shipped in the last hour, and
no run that has not ended an hour ago. The state file, with its receipts, and the present log files stay: their number
or size is limited elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hitless.artifact.store import ArtifactStore
from hitless.clock import Clock, timestamp
from hitless.engine.releases import previous_live
from hitless.engine.retention import RECENT, Retention
from hitless.errors import MachineError
from hitless.rollout.record import Say
from hitless.store.store import Store

VARIABLE = "HITLESS_DISK_BUDGET"
EVERY_S = 60.0
_SIZE = re.compile(r"([1-9]\d{0,11})([KMGT]?)")
ROTATED = "*.log.[0-9]"


class Old(NamedTuple):
    """Something that may be removed, and since when it exists. `remove` returns whether its files are gone."""

    since: str
    title: str
    remove: Callable[[], Awaitable[bool]]


def budget_bytes(environ: Mapping[str, str]) -> int | None:
    """The budget, such as `20G`: bytes, or with K, M, G, T their binary multiples. None if unset; or MachineError."""
    if not (text := environ.get(VARIABLE)):
        return None
    if (size := _SIZE.fullmatch(text)) is None:
        raise MachineError(f"{VARIABLE}={text} is not a size", hint="write bytes, or a number with K, M, G or T: 20G")
    return int(size[1]) << (10 * " KMGT".index(size[2] or " "))


class DiskBudget:
    """Watches the size of a data folder."""

    def __init__(
        self, data: Path, store: Store, artifacts: ArtifactStore, retention: Retention, clock: Clock, say: Say
    ) -> None:
        self._data, self._store, self._artifacts, self._retention = data, store, artifacts, retention
        self._clock, self._say = clock, say
        self._told = False

    async def watch(self, budget: int) -> None:
        """Apply the budget forever."""
        while True:
            await self.apply(budget)
            await self._clock.sleep(EVERY_S)

    async def apply(self, budget: int) -> None:
        """Remove the oldest until the folder is small enough. An event says what was removed or why it is large."""
        removed = list[str]()
        while (used := await asyncio.to_thread(used_bytes, self._data)) > budget:
            # listed again each time: a rollout may have started meanwhile
            if (oldest := min(self._removable(), key=lambda one: one.since, default=None)) is None:
                break
            gone = await oldest.remove()
            removed.append(oldest.title)
            if not gone:
                break
        limit = f"{VARIABLE} is {budget / 2**20:.0f} MiB"
        if removed:
            self._say(f"{limit}: removed {', '.join(removed)}", None)
        if used > budget and not self._told and not removed:
            self._say(
                f"{limit}, and the data folder has {used / 2**20:.0f} MiB of releases that are live, or needed for a"
                " rollback, and of the last hour: raise the budget",
                None,
            )
        self._told = used > budget and not removed

    def _removable(self) -> Iterator[Old]:
        stages = {row["stage"] for row in self._store.read("SELECT DISTINCT stage FROM releases")}
        for stage in sorted(stages):
            needed = {*self._retention.needed(stage), previous_live(self._store, stage)}
            query = "SELECT release, created_at FROM releases WHERE stage = ?"
            for number, since in self._store.read(query, (stage,)):
                if number not in needed:
                    yield Old(since, f"release {number} of {stage}", partial(self._forget, stage, number))
        ended = "SELECT run, ended_at FROM pipeline_runs WHERE ended_at < ?"
        for run, since in self._store.read(ended, (timestamp(self._clock.now() - RECENT),)):
            yield Old(since, f"run {run}", partial(self._forget_run, run))
        for file in (self._data / "logs").rglob(ROTATED):
            since = timestamp(datetime.fromtimestamp(file.stat().st_mtime, UTC))
            yield Old(since, str(file.relative_to(self._data)), partial(self._unlink, file))

    async def _forget(self, stage: str, number: int) -> bool:
        """False if artifacts stay for now, because a build runs or because they are new."""
        row = self._store.release(stage, number)
        digests = {one["digest"] for one in row.document["artifacts"].values()} if row else set[str]()
        await self._retention.forget(stage, [number])
        unused = digests - self._store.artifacts_in_use()
        return not any(self._artifacts.zip_path(digest).exists() for digest in unused)

    async def _forget_run(self, run: int) -> bool:
        self._store.write("DELETE FROM pipeline_runs WHERE run = ?", (run,))
        folder = self._data / "pipeline" / "runs" / str(run)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return not folder.exists()

    async def _unlink(self, file: Path) -> bool:
        await asyncio.to_thread(file.unlink, missing_ok=True)
        return True


def used_bytes(folder: Path) -> int:
    """The disk space of a folder. A file with several names counts once."""
    seen, total = set[tuple[int, int]](), 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(base, name))
            except FileNotFoundError:
                continue
            if found.st_nlink > 1:
                if (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * 512
    return total
