"""Where the dashboard's pages get their documents: the engine's API, and the state file, which it only reads.

Lists come from the state file, so a page with many releases costs the daemon nothing, and history is shown when no
engine runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from hitless.api.client import EngineClient
from hitless.clock import Clock, timestamp
from hitless.dashboard.views import requests_of
from hitless.documents import convert
from hitless.errors import HitlessError
from hitless.release.status import CandidateStatus, StageStatus, Status
from hitless.store.store import Store

T = TypeVar("T")
FRESH_S = 0.9
"""How old a status may be. Many open pages ask the daemon once in that time."""
ELSEWHERE_S = 30.0
"""The time between two looks at the stages on AWS, which take seconds."""
SEEN_KEPT = 240
RATE_S = 10.0
"""The time over which requests a second are measured."""


class History:
    """The state file, read by one thread."""

    def __init__(self, file: Path) -> None:
        self._file, self._thread = file, ThreadPoolExecutor(1)
        self._store: Store | None = None

    async def read(self, question: Callable[[Store], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, question)

    def close(self) -> None:
        if self._store is not None:
            self._thread.submit(self._store.close).result()
        self._thread.shutdown()

    def _ask(self, question: Callable[[Store], T]) -> T:
        if self._store is None:
            self._store = Store(self._file, read_only=True)
        return question(self._store)


@dataclass(slots=True)
class Feed:
    """The newest status of the engine."""

    engine: EngineClient
    clock: Clock
    elsewhere: Callable[[], Sequence[Any]] = tuple
    """The documents of the stages on AWS; blocking. It is called in a thread, and no page waits for it."""
    status: Status | None = None
    problem: str | None = None
    """Why there is no status."""
    seen: dict[tuple[str, int], list[tuple[str, CandidateStatus]]] = field(default_factory=dict)
    """The candidates of rollouts by stage and release, each second while somebody looks."""
    _read_at_s: float = float("-inf")
    _elsewhere: tuple[StageStatus, ...] = ()
    _looked_at_s: float = float("-inf")
    _look: asyncio.Task[None] | None = None
    _counted: deque[tuple[float, dict[str, int]]] = field(default_factory=deque)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self) -> Status | None:
        """The status, at most `FRESH_S` old; None if the engine does not respond."""
        async with self._turn:
            if self.clock.monotonic() - self._read_at_s >= FRESH_S:
                await self._refresh()
        return self.status

    def rates(self) -> dict[str, float]:
        """Requests a second of each stage, over the last seconds."""
        if len(self._counted) < 2:
            return {}
        (start_s, first), (end_s, last) = self._counted[0], self._counted[-1]
        return {stage: max(0, last[stage] - first.get(stage, last[stage])) / (end_s - start_s) for stage in last}

    async def _refresh(self) -> None:
        try:
            document = await asyncio.to_thread(self.engine.call, "GET", "/status")
            self.status, self.problem = self._with_elsewhere(convert(document, Status, "the status")), None
        except HitlessError as error:
            self.status, self.problem = None, error.message
        now_s = self._read_at_s = self.clock.monotonic()
        if self.status is None:
            self._counted.clear()
            return
        if now_s - self._looked_at_s >= ELSEWHERE_S:
            self._looked_at_s = now_s
            self._look = asyncio.create_task(self._look_elsewhere())
        for stage in self.status.stages:
            if (one := stage.candidate) is not None and one.latency_ms:
                seen = self.seen.setdefault((stage.stage, one.release), [])
                seen.append((timestamp(self.clock.now()), one))
                if len(seen) > SEEN_KEPT:
                    del seen[1::2]
        self._counted.append((now_s, requests_of(self.status)))
        while now_s - self._counted[0][0] > RATE_S:
            self._counted.popleft()

    async def _look_elsewhere(self) -> None:
        found = await asyncio.to_thread(self.elsewhere)
        self._elsewhere = convert(found, tuple[StageStatus, ...], "the stages on AWS")

    def _with_elsewhere(self, status: Status) -> Status:
        there = {one.stage for one in self._elsewhere}
        here = tuple(one for one in status.stages if one.stage not in there)
        return replace(status, stages=(*here, *self._elsewhere))
