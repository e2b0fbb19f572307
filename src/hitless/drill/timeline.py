"""The events of a drill on its time axis: releases and faults with their states, and numbers of workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hitless.drill.shipper import Shipper, stage_of
from hitless.errors import HitlessError

MICROSECONDS = 1_000_000
BUILDING = "building"


@dataclass(frozen=True, slots=True)
class RolloutPhase:
    """A state of the rollout and the candidate's weight, from `start_us` on."""

    start_us: int
    state: str
    weight_percent: float = 0.0


@dataclass(slots=True)
class Window:
    """The time span of one rollout or fault in a drill. Open while `end_us` is None.

    `phases` are known once the rollout has ended.
    """

    label: str
    number: int  # from 1, in the order of their start
    start_us: int
    end_us: int | None = None
    failed: int = 0
    failed_without_release: int = 0  # of `failed`, those whose response (if any) named no release
    shielded: int = 0
    fault: bool = False
    interrupts: bool = False  # a rollout that this fault strikes may end in any way
    recovered_ms: float | None = None  # of a fault; None: not by the deadline
    gateway_ends: list[tuple[int, int]] = field(default_factory=list)
    """When the drill killed the gateway: the times of the signal, and when the process was seen to be gone, in µs."""
    phases: list[RolloutPhase] = field(default_factory=list)

    def state_at(self, at_us: int) -> str | None:
        """The rollout's state then; `building` before its first step, None if there is no rollout."""
        if not self.phases:
            return None
        return next((phase.state for phase in reversed(self.phases) if phase.start_us <= at_us), BUILDING)


class Timeline:
    """The windows of a drill in the order of their start. Rollouts never overlap, nor do faults; a fault may overlap a
    rollout, but it ends before the next one starts.
    """

    def __init__(self) -> None:
        self.windows: list[Window] = []

    def open(self, label: str, now_us: int, *, fault: bool = False, interrupts: bool = False) -> Window:
        self.windows.append(Window(label, len(self.windows) + 1, now_us, fault=fault, interrupts=interrupts))
        return self.windows[-1]

    def epoch(self, at_us: int) -> int:
        """The number of the latest window that had begun by then; 0 before the first."""
        return next((window.number for window in reversed(self.windows) if window.start_us <= at_us), 0)

    def find(self, from_us: int, until_us: int) -> Window | None:
        """The latest window that overlaps with a request that was under way in that time."""
        for window in reversed(self.windows):
            if window.start_us <= until_us and (window.end_us is None or from_us < window.end_us):
                return window
            if window.end_us is not None and window.end_us <= from_us and not window.fault:
                return None
        return None


PERIOD_S = 0.1
MAX_SAMPLES = 4_000


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """Workers of the live release at one moment, and how many of them were busy."""

    at_s: float
    workers: int
    busy: int


class WorkerWatch:
    """Samples the workers until it is cancelled. When there are too many samples, every second one is dropped."""

    def __init__(self, shipper: Shipper, stage: str, elapsed_us: Callable[[], int]) -> None:
        self._shipper, self._stage, self._elapsed_us = shipper, stage, elapsed_us
        self._period_s = PERIOD_S
        self.samples: list[WorkerSample] = []

    async def run(self) -> None:
        while True:
            with contextlib.suppress(HitlessError, OSError):
                self.take(await self._shipper.status())
            await asyncio.sleep(self._period_s)

    def take(self, status: Mapping[str, Any]) -> None:
        functions: Sequence[Mapping[str, Any]] = stage_of(status, self._stage).get("functions") or ()
        workers = [worker for one in functions for worker in one["workers"] if worker["pid"]]
        busy = sum(bool(worker.get("busy")) for worker in workers)
        self.samples.append(WorkerSample(round(self._elapsed_us() / MICROSECONDS, 3), len(workers), busy))
        if len(self.samples) >= MAX_SAMPLES:
            self.samples = self.samples[::2]
            self._period_s *= 2
