"""Live's copy and the candidate under the same load at the same time, in rounds, and under crowds of one request.

Load alone does not show a lock, because requests that come one after another never meet. So each request is also sent
several times at once, to one release and the other in turn, and compared with the time of one alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hitless.drill.requests import DrillRequest
from hitless.pipeline.rehearsal import judge, plan
from hitless.pipeline.rehearsal.judge import Crowd, Measured, Pair, Percentiles
from hitless.pipeline.rehearsal.load import UNSENT, Driven, drive_both
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
class Sending:
    """A request as load: its name, its route, the workers of that, and the time of one alone on live."""

    request: DrillRequest
    name: str
    route: str
    workers: int
    alone_ms: float


class Beside:
    """Two stages of one engine, under the same load."""

    def __init__(
        self,
        status: Callable[[], Mapping[str, Any]],
        stages: tuple[str, str],
        sendings: Sequence[Sending],
        rate_per_s: float,
        startup_s: tuple[float, float],
    ) -> None:
        self._status, self._stages = status, stages
        self._sendings, self._rate = tuple(sendings), rate_per_s
        self._startup_s = startup_s
        urls = {one["stage"]: str(one["url"]) for one in status()["stages"]}
        self._urls = (urls[stages[0]], urls[stages[1]])

    async def rounds(self, seconds: float, alarms: AlarmSettings) -> list[Pair]:
        """One round of so many seconds, or longer at a low rate; then others while there is a doubt."""
        seconds = plan.long_enough_s(seconds, self._rate, judge.ENOUGH)
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
                tries: list[tuple[Crowd, Crowd]] = []
                while len(tries) < TRIES:
                    tries.append(await asyncio.to_thread(self._crowd, senders, one.request, seconds / len(chosen)))
                    if not judge.of_crowd(one.name, CROWD, one.workers, tries):
                        break
                objections += judge.of_crowd(one.name, CROWD, one.workers, tries)
        return objections

    def _crowded(self) -> list[Sending]:
        """The most frequent request of each route, of the most frequent routes."""
        quick = [one for one in self._sendings if one.alone_ms <= MAX_CROWDED_MS]
        often = sorted(quick, key=lambda one: -one.request.weight)
        return list({one.route: one for one in reversed(often)}.values())[::-1][:MAX_CROWDED_REQUESTS]

    def _driven(self) -> tuple[Driven, Driven]:
        first, second = (Driven(url, [one.request for one in self._sendings], self._rate) for url in self._urls)
        return first, second

    def _memory(self) -> tuple[float, float]:
        status = self._status()
        return memory_mb(status, self._stages[0]), memory_mb(status, self._stages[1])

    def _measured(self, index: int, load: Driven, before_mb: float, now_mb: float) -> Measured:
        return Measured(
            startup_s=round(self._startup_s[index], 3),
            requests=load.requests,
            failed=load.failed.total(),
            latency_ms=Percentiles(load.percentile_ms(50), load.percentile_ms(99)),
            memory_mb=now_mb,
            growth_mb=now_mb - before_mb,
            failures={
                self._sendings[index].name: count for index, count in load.failed.items() if count and index >= 0
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
            for index, url in enumerate(self._urls):
                alone[index].append(_took_ms(senders, url, request, 1))
                crowd[index].append(_took_ms(senders, url, request, CROWD))
        live, candidate = (Crowd(min(alone[index]), min(crowd[index])) for index in (0, 1))
        return live, candidate


def _took_ms(senders: ThreadPoolExecutor, url: str, request: DrillRequest, count: int) -> float:
    began_s = time.monotonic()
    for answer in [senders.submit(ask, url, request) for _ in range(count)]:
        answer.result()
    return (time.monotonic() - began_s) * 1000
