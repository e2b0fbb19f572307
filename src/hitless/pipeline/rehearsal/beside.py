"""Live's copy and the candidate under the same load at the same time, in rounds, and under crowds of one request.

Load alone does not show a lock, because requests that come one after another never overlap. So each request is also
sent several times at once, to one release and the other in turn, and compared with the time of one alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hitless.drill.requests import DrillRequest
from hitless.pipeline.rehearsal import judge
from hitless.pipeline.rehearsal.judge import Crowd, Measured, Pair, Percentiles
from hitless.pipeline.rehearsal.load import UNSENT, Driven, drive_both
from hitless.pipeline.rehearsal.plan import Cost, long_enough_s
from hitless.pipeline.rehearsal.recorded import Routes
from hitless.pipeline.rehearsal.sandbox import ask, memory_mb
from hitless.service.model import AlarmSettings

WARM_UP_S = 1.0
CROWD = 6
"""Requests at once: more than a function has workers in the sandbox, so that each of them is busy."""
MIN_CROWDS = 5
MAX_CROWDED_REQUESTS = 8
MAX_CROWDED_MS = 150.0
"""A request that takes longer alone is left out of the crowds, because it would hold them up."""
TRIES = 2


@dataclass(frozen=True, slots=True)
class Beside:
    """Two stages of one engine, under the same load: live's copy and the candidate. `workers` by function."""

    status: Callable[[], Mapping[str, Any]]
    stages: tuple[str, str]
    urls: tuple[str, str]
    costs: Sequence[Cost]
    routes: Routes
    workers: Mapping[str, int]
    rate_per_s: float
    startup_s: tuple[float, float]

    async def rounds(self, seconds: float, alarms: AlarmSettings) -> list[Pair]:
        """One round of that many seconds, or longer at a low rate; further rounds while the result is in doubt."""
        seconds = long_enough_s(seconds, self.rate_per_s, judge.ENOUGH)
        await drive_both(WARM_UP_S, *self._driven())
        memory = self._memory()
        rounds: list[Pair] = []
        while not rounds or judge.in_doubt(rounds, alarms):
            driven = self._driven()
            await drive_both(seconds, *driven)
            before, memory = memory, self._memory()
            pair = [self._measured(index, driven[index], before[index], memory[index]) for index in (0, 1)]
            rounds.append((pair[0], pair[1]))
        return rounds

    async def crowds(self, seconds: float) -> list[str]:
        """Objections to requests that wait for each other on the candidate but not on live; takes about that time."""
        objections = []
        chosen = self._crowded()
        with ThreadPoolExecutor(CROWD) as senders:
            for one in chosen:
                name, workers = self.routes.name_of(one.request), self.workers.get(one.function or "", 1)
                tries: list[tuple[Crowd, Crowd]] = []
                while len(tries) < TRIES:
                    tries.append(await asyncio.to_thread(self._crowd, senders, one.request, seconds / len(chosen)))
                    if not judge.of_crowd(name, CROWD, workers, tries):
                        break
                objections += judge.of_crowd(name, CROWD, workers, tries)
        return objections

    def _crowded(self) -> list[Cost]:
        """The most frequent request of each route, of the most frequent routes."""
        quick = [one for one in self.costs if one.took_s * 1000 <= MAX_CROWDED_MS]
        often = sorted(quick, key=lambda one: -one.request.weight)
        of_route = {self.routes.route_of(one.request): one for one in reversed(often)}
        return list(of_route.values())[::-1][:MAX_CROWDED_REQUESTS]

    def _driven(self) -> tuple[Driven, Driven]:
        first, second = (Driven(url, [one.request for one in self.costs], self.rate_per_s) for url in self.urls)
        return first, second

    def _memory(self) -> tuple[float, float]:
        status = self.status()
        return memory_mb(status, self.stages[0]), memory_mb(status, self.stages[1])

    def _measured(self, index: int, load: Driven, before_mb: float, now_mb: float) -> Measured:
        return Measured(
            startup_s=round(self.startup_s[index], 3),
            requests=load.requests,
            failed=load.failed.total(),
            latency_ms=Percentiles(load.percentile_ms(50), load.percentile_ms(99)),
            memory_mb=now_mb,
            growth_mb=now_mb - before_mb,
            failures={
                self.routes.name_of(self.costs[index].request): count
                for index, count in load.failed.items()
                if count and index != UNSENT
            },
            unsent=load.failed[UNSENT],
        )

    def _crowd(self, senders: ThreadPoolExecutor, request: DrillRequest, seconds: float) -> tuple[Crowd, Crowd]:
        """The shortest times alone and in a crowd, live's copy and the candidate in turn. Other work of the machine
        makes none shorter, and a request that waits for a lock waits every time.
        """
        alone: tuple[list[float], list[float]] = ([], [])
        crowd: tuple[list[float], list[float]] = ([], [])
        end_s = time.monotonic() + seconds
        while len(crowd[1]) < MIN_CROWDS or time.monotonic() < end_s:
            for index, url in enumerate(self.urls):
                alone[index].append(_took_ms(senders, url, request, 1))
                crowd[index].append(_took_ms(senders, url, request, CROWD))
        live, candidate = (Crowd(min(alone[index]), min(crowd[index])) for index in (0, 1))
        return live, candidate


def _took_ms(senders: ThreadPoolExecutor, url: str, request: DrillRequest, count: int) -> float:
    began_s = time.monotonic()
    for answer in [senders.submit(ask, url, request) for _ in range(count)]:
        answer.result()
    return (time.monotonic() - began_s) * 1000
