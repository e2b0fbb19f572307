"""How many workers serve while the load changes: samples of the engine's status, in bounded memory.

An engine that does not answer (its daemon may just have been killed) leaves a gap and stops nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hitless.drill.shipper import Shipper, stage_of
from hitless.drill.timeline import MICROSECONDS
from hitless.errors import HitlessError

PERIOD_S = 0.1
MAX_SAMPLES = 4_000


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """Workers of the live release at one moment, and how many of them were at work."""

    at_s: float
    workers: int
    busy: int


class Watch:
    """Takes samples until it is cancelled. Where they grow too many, every second one goes, and so on."""

    def __init__(self, shipper: Shipper, stage: str, elapsed_us: Callable[[], int]) -> None:
        self._shipper, self._stage, self._elapsed_us = shipper, stage, elapsed_us
        self._period_s = PERIOD_S
        self.samples: list[WorkerSample] = []

    async def run(self) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(HitlessError, OSError):
                self.take(await self._shipper.status())
            await asyncio.sleep(self._period_s)

    def take(self, status: Mapping[str, Any]) -> None:
        """One sample."""
        functions: Sequence[Mapping[str, Any]] = stage_of(status, self._stage).get("functions") or ()
        workers = [worker for one in functions for worker in one["workers"] if worker["pid"]]
        busy = sum(bool(worker.get("busy")) for worker in workers)
        self.samples.append(WorkerSample(round(self._elapsed_us() / MICROSECONDS, 3), len(workers), busy))
        if len(self.samples) >= MAX_SAMPLES:
            self.samples = self.samples[::2]
            self._period_s *= 2
