"""Where the dashboard's pages get their documents: the engine's API, and the state file, which it only reads.

Lists come from the state file, so a page with many releases costs the daemon nothing, and history is shown when no
engine runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from msgspec.structs import replace

from hitless.api.client import EngineClient
from hitless.clock import Clock
from hitless.documents import convert
from hitless.engine.recent import RecentSample
from hitless.errors import HitlessError
from hitless.homes.home import RolloutNews, StageHome, Workplace, home_at
from hitless.release.status import StageStatus, Status
from hitless.service.model import Home
from hitless.store.store import Store

T = TypeVar("T")
FRESH_S = 0.9
"""How old a status may be. Many open pages ask the daemon once in that time."""
ELSEWHERE_S = 30.0
"""The time between two looks at the stages on AWS, which take seconds."""
RECENT_S = 2.0
"""How old the samples of a stage may be."""


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
class Elsewhere:
    """The stages on AWS. Threads ask it, because it needs seconds or minutes, and pages show the newest response."""

    clock: Clock
    place: Workplace
    statuses: Callable[[], Sequence[Any]]
    """Their documents, as `hitless status` has them."""
    home_at: Callable[[Home, Workplace], StageHome] = home_at
    _kept: dict[str, tuple[float, Any]] = field(default_factory=dict)
    _asking: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def home(self, stage: str) -> StageHome:
        return self.home_at(Home.AWS, replace(self.place, stage=stage))

    def stages(self) -> tuple[StageStatus, ...]:
        found = self.newest("", lambda: convert(self.statuses(), tuple[StageStatus, ...], "the stages on AWS"))
        return found if isinstance(found, tuple) else ()

    async def act(self, stage: str, act: Callable[[StageHome], Iterator[RolloutNews]]) -> str:
        """Act on a stage until the end; its sentence. An action that nobody awaits any more continues."""
        *_, news = await asyncio.to_thread(lambda: [*act(self.home(stage))])
        self._kept = {key: (float("-inf"), value) for key, (_, value) in self._kept.items()}  # all may have changed
        result = news.result or {}
        return f"{result.get('outcome')}, release {result.get('release') or '–'}".replace("_", " ")

    def newest(self, key: str, question: Callable[[], Any]) -> Any:
        """The last response, or the sentence of its error. One older than `ELSEWHERE_S` is asked for again."""
        asked_s, value = self._kept.get(key, (float("-inf"), None))
        if key not in self._asking and self.clock.monotonic() - asked_s >= ELSEWHERE_S:
            self._asking[key] = asyncio.create_task(self._ask(key, question))
        return value

    async def _ask(self, key: str, question: Callable[[], Any]) -> None:
        try:
            value = await asyncio.to_thread(question)
        except HitlessError as error:
            value = f"{error.message}. {error.hint}"
        finally:
            del self._asking[key]
        self._kept[key] = self.clock.monotonic(), value


@dataclass(slots=True)
class Feed:
    """The newest status of the engine."""

    engine: EngineClient
    clock: Clock
    elsewhere: Elsewhere
    status: Status | None = None
    problem: str | None = None
    """Why there is no status."""
    _read_at_s: float = float("-inf")
    _recent: dict[str, tuple[float, tuple[RecentSample, ...]]] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self) -> Status | None:
        """The status, at most `FRESH_S` old; None if the engine does not respond."""
        async with self._turn:
            if self.clock.monotonic() - self._read_at_s >= FRESH_S:
                await self._refresh()
        return self.status

    def is_on_aws(self, stage: str) -> bool:
        return any(one.stage == stage for one in self.elsewhere.stages())

    async def recent(self, stage: str) -> tuple[RecentSample, ...]:
        """The stage's last hour; what was read last if the engine does not respond, or is an earlier version."""
        read_at_s, samples = self._recent.get(stage, (float("-inf"), ()))
        if (now_s := self.clock.monotonic()) - read_at_s >= RECENT_S:
            with suppress(HitlessError):
                document = await asyncio.to_thread(self.engine.call, "GET", f"/stages/{quote(stage)}/recent")
                samples = convert(document, tuple[RecentSample, ...], "the samples of a stage")
            self._recent[stage] = now_s, samples
        return samples

    async def _refresh(self) -> None:
        try:
            document = await asyncio.to_thread(self.engine.call, "GET", "/status")
            self.status, self.problem = self._with_elsewhere(convert(document, Status, "the status")), None
        except HitlessError as error:
            self.status, self.problem = None, error.message
        self._read_at_s = self.clock.monotonic()

    def _with_elsewhere(self, status: Status) -> Status:
        far = self.elsewhere.stages()
        here = tuple(one for one in status.stages if one.stage not in {each.stage for each in far})
        return replace(status, stages=(*here, *far))
