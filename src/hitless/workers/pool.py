"""A pool as the engine sees it: its workers' sockets, its figures, and its events."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from hitless.worker.layout import SlotField, StatsPage
from hitless.worker.paths import GenerationPaths
from hitless.worker.spec import PoolSpec
from hitless.workers.stats import PoolStats, Pulse, read_pulse, read_stats


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """A worker's socket. `name` is unique among a pool's generations: `w0`, later `w0g2`."""

    index: int
    name: str
    socket: Path


@dataclass(frozen=True, slots=True)
class Pool:
    """One generation of a pool at one size. A replaced zygote gives a new Pool with new sockets and the same counts."""

    spec: PoolSpec
    generation: int
    workers: tuple[WorkerAddress, ...]
    zygote_pid: int
    fresh: bool
    """Its workers are fresh processes, because forking after the handler's import is unsafe."""
    old_generations: tuple[int, ...] = ()
    """Earlier ones that still run, for `stop_old_generation`."""
    door: WorkerAddress = field(kw_only=True)
    """The socket of a pool without workers: its zygote starts one for the first connection."""
    page: StatsPage = field(repr=False, kw_only=True)

    @property
    def key(self) -> str:
        return self.spec.key

    @property
    def size(self) -> int:
        """How many workers the zygote keeps now; `workers` are those at the time this object was made."""
        return self.page.size(self.generation)

    def pulse(self) -> Pulse:
        """Its workers' activity, over all generations."""
        return read_pulse(self.page, time.monotonic_ns())

    @property
    def large_responses(self) -> int:
        """How many responses its workers have sent that are large, so that clients may still be reading them."""
        return sum(self.page.column(SlotField.LARGE))

    def at_rest(self, worker: WorkerAddress) -> int | None:
        """How many requests that worker has ended, if it is idle; else None."""
        fields = self.page.slot(self.page.slot_index(self.generation, worker.index))
        return None if fields[SlotField.BUSY_SINCE] else fields[SlotField.REQUESTS]

    def stats(self) -> PoolStats:
        """Counts over all generations, workers of this one."""
        return read_stats(self.page, self.generation)


def addresses(paths: GenerationPaths, size: int) -> tuple[WorkerAddress, ...]:
    return tuple(WorkerAddress(index, f"w{index}{_suffix(paths)}", paths.socket(index)) for index in range(size))


def door_of(paths: GenerationPaths) -> WorkerAddress:
    """The first worker's socket under a name of its own, for a server without checks: a check would wake the pool."""
    return WorkerAddress(0, f"z0{_suffix(paths)}", paths.socket(0))


def _suffix(paths: GenerationPaths) -> str:
    return "" if paths.generation == 1 else f"g{paths.generation}"


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """One event. `sentence` is for the operator; `key` is empty for the root zygote."""

    key: str
    sentence: str
    zygote_died: bool = False
