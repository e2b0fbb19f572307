"""Where the dashboard's pages get their documents: the engine's API, and the state file, which it only reads.

Lists come from the state file, so a page with many releases costs the daemon nothing, and history is shown when no
engine runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hitless.api.client import EngineClient
from hitless.clock import Clock
from hitless.dashboard.views import requests_of
from hitless.documents import convert
from hitless.errors import HitlessError
from hitless.release.status import Status
from hitless.store.store import Store

T = TypeVar("T")
FRESH_S = 0.9
"""How old a status may be. Many open pages ask the daemon once in that time."""
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
    status: Status | None = None
    problem: str | None = None
    """Why there is no status."""
    _read_at_s: float = float("-inf")
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
            self.status, self.problem = convert(document, Status, "the status"), None
        except HitlessError as error:
            self.status, self.problem = None, error.message
        now_s = self._read_at_s = self.clock.monotonic()
        if self.status is None:
            self._counted.clear()
            return
        self._counted.append((now_s, requests_of(self.status)))
        while now_s - self._counted[0][0] > RATE_S:
            self._counted.popleft()
