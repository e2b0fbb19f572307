"""A pool as the engine sees it: where its workers listen, and how they do."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from hitless.worker.layout import StatsPage
from hitless.worker.paths import GenerationPaths
from hitless.worker.spec import PoolSpec
from hitless.workers.stats import PoolStats, read_stats


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """Where one worker listens. `name` is unique among a pool's generations: `w0`, later `w0g2`."""

    index: int
    name: str
    socket: Path


@dataclass(frozen=True, slots=True)
class Pool:
    """One generation of a pool. A replaced zygote gives a new Pool, with new sockets and the same counts."""

    spec: PoolSpec
    generation: int
    workers: tuple[WorkerAddress, ...]
    zygote_pid: int
    fresh: bool
    """Its workers are fresh processes, because forking after the handler's import is unsafe."""
    old_generations: tuple[int, ...] = ()
    """Earlier ones that still run, for `stop_old_generation`."""
    page: StatsPage = field(repr=False, kw_only=True)

    @property
    def key(self) -> str:
        """The pool's name for ever."""
        return self.spec.key

    def stats(self) -> PoolStats:
        """Counts over all generations, workers of this one."""
        return read_stats(self.page, self.generation, time.monotonic_ns())


def addresses(spec: PoolSpec, paths: GenerationPaths) -> tuple[WorkerAddress, ...]:
    """Where the workers of a generation listen."""
    suffix = "" if paths.generation == 1 else f"g{paths.generation}"
    return tuple(WorkerAddress(index, f"w{index}{suffix}", paths.socket(index)) for index in range(spec.workers))
