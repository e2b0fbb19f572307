"""A pool under load on virtual time: the decisions are the engine's, arrivals and workers are computed.

A queue before workers that take one request at a time, as HAProxy and a pool are; workers start and leave as the zygote
does it. Minutes of load pass in seconds, and always in the same way, since chance comes from a seed.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from hitless.scaling.bounds import Bounds
from hitless.scaling.decide import Decision, LoadHistory, PoolLoad, ScaleInPace, decide

TICK_S: Final = 0.05
QUEUE_TIMEOUT_S: Final = 8.0
MOVE_S: Final = 0.03
"""From the decision until new workers serve, besides what each fork takes."""
FORK_S: Final = 0.003

Rate = Callable[[float], float]
"""Requests a second at an instant."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What arrives and how long it takes: `service_s` on average, exactly that where `steady`."""

    rate: Rate
    service_s: float
    duration_s: float
    poisson: bool = True
    steady: bool = False


@dataclass(frozen=True, slots=True)
class PoolSample:
    """The pool at one look."""

    at_s: float
    rate: float
    workers: int
    busy: float
    waiting: int
    reason: str


@dataclass(slots=True)
class SimulatedRun:
    """What came of it."""

    samples: list[PoolSample] = field(default_factory=list)
    waits_s: list[tuple[float, float]] = field(default_factory=list)
    """When a request came, and how long it waited for a worker."""
    timed_out: int = 0

    @property
    def requests(self) -> int:
        """All that arrived and had their end."""
        return len(self.waits_s) + self.timed_out

    @property
    def peak(self) -> int:
        """The greatest number of workers."""
        return max(sample.workers for sample in self.samples)

    def wait_s(self, percent: float, since_s: float = 0.0, until_s: float = float("inf")) -> float:
        """The wait that so many per cent of the requests of a while did not exceed; 0 where there was none."""
        waits = sorted(wait for at, wait in self.waits_s if since_s <= at < until_s)
        return waits[min(int(len(waits) * percent / 100), len(waits) - 1)] if waits else 0.0


def simulate(
    workload: Workload, bounds: Bounds, *, workers: int, pace: ScaleInPace, seed: int = 1, room: int | None = None
) -> SimulatedRun:
    """Let the load run its course. `room`: the most workers that the memory has room for."""
    return _Pool(workload, bounds, workers, pace, Random(seed), room).run()


class _Pool:
    """The state at one instant, and what may happen next: arrivals, ends, moves that take effect, looks."""

    def __init__(
        self, workload: Workload, bounds: Bounds, workers: int, pace: ScaleInPace, chance: Random, room: int | None
    ) -> None:
        self._workload, self._bounds, self._pace, self._chance, self._room = workload, bounds, pace, chance, room
        self._workers = workers
        self._coming: tuple[float, int] | None = None
        self._busy: list[float] = []
        """Ends of the requests in hand, soonest first."""
        self._queue: deque[float] = deque()
        self._memory = LoadHistory()
        self._outcome = SimulatedRun()
        self._now_s = self._integral_at_s = 0.0
        self._work_s = 0.0
        self._ended = 0

    def run(self) -> SimulatedRun:
        arrivals = _arrivals(self._workload, self._chance)
        arrival, look_s = next(arrivals, None), 0.0
        while look_s <= self._workload.duration_s:
            end = self._busy[0] if self._busy else float("inf")
            come = self._coming[0] if self._coming else float("inf")
            at = min(look_s, end, come, arrival if arrival is not None else float("inf"))
            self._pass(at)
            if at == end:
                heapq.heappop(self._busy)
                self._ended += 1
            elif at == come and self._coming:
                self._workers, self._coming = self._coming[1], None
            elif at == arrival:
                self._queue.append(at)
                arrival = next(arrivals, None)
            else:
                self._look()
                look_s += TICK_S
            self._begin()
        return self._outcome

    def _pass(self, at: float) -> None:
        self._work_s += len(self._busy) * (at - self._now_s)
        self._now_s = at

    def _begin(self) -> None:
        while self._queue and (len(self._busy) < self._workers or not self._workers):
            came = self._queue.popleft()
            if self._now_s - came > QUEUE_TIMEOUT_S:
                self._outcome.timed_out += 1
                continue
            if not self._workers:  # the door of a pool that sleeps
                self._workers = 1
            mean = self._workload.service_s
            service_s = mean if self._workload.steady else self._chance.expovariate(1 / mean)
            heapq.heappush(self._busy, self._now_s + service_s)
            self._outcome.waits_s.append((came, self._now_s - came))

    def _look(self) -> None:
        took_s = max(self._now_s - self._integral_at_s, 1e-9)
        busy = self._work_s / took_s
        load = PoolLoad(busy, len(self._queue), self._ended, self._workload.service_s, took_s)
        room = None if self._room is None else max(0, self._room - self._workers)
        decision = decide(
            self._bounds, self._workers, load, self._memory, now_s=self._now_s, room=room, pace=self._pace
        )
        self._memory, self._integral_at_s, self._work_s, self._ended = decision.history, self._now_s, 0.0, 0
        rate = self._workload.rate(self._now_s)
        sample = PoolSample(self._now_s, rate, self._workers, busy, load.waiting, decision.reason)
        self._outcome.samples.append(sample)
        self._move(decision)

    def _move(self, decision: Decision) -> None:
        if self._coming or decision.workers == self._workers:
            return
        if decision.workers < self._workers:  # busy workers finish: only free ones leave
            self._workers = max(decision.workers, len(self._busy))
            return
        more = decision.workers - self._workers
        self._coming = self._now_s + MOVE_S + more * FORK_S, decision.workers


def _arrivals(workload: Workload, chance: Random) -> Iterator[float]:
    """Instants of arrival. A rate of 0 is looked at again every 10 ms."""
    at = 0.0
    while at < workload.duration_s:
        rate = workload.rate(at)
        if rate <= 0:
            at += 0.01
            continue
        at += chance.expovariate(rate) if workload.poisson else 1 / rate
        yield at
