"""Releases that are out of service and only wait for clients that still read their responses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hitless.errors import HitlessError
from hitless.rollout.standing import first


class Lingering:
    """The releases, by key. Each is removed in the background when its clients have read, or when somebody needs it."""

    def __init__(self) -> None:
        self._waits: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}
        """The event ends the wait, and is set after it."""

    def __contains__(self, key: str) -> bool:
        return key in self._waits

    def begin(self, key: str, read: Coroutine[Any, Any, bool], remove: Callable[[], Awaitable[object]]) -> None:
        """Wait for `read`, then `remove` the release."""
        enough = asyncio.Event()
        self._waits[key] = asyncio.create_task(self._linger(key, read, remove, enough)), enough

    async def cut(self, *releases: str) -> None:
        """Remove those of these releases (none named: all) without waiting any longer."""
        waits = [each for key, each in self._waits.items() if key in releases or not releases]
        for _, enough in waits:
            enough.set()
        await asyncio.gather(*(task for task, _ in waits))

    async def keep(self, key: str) -> None:
        """Before a release is shipped again: it stays. One that is being removed already is gone on return."""
        if key in self._waits:
            task, enough = self._waits[key]
            if not enough.is_set():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _linger(
        self, key: str, read: Coroutine[Any, Any, bool], remove: Callable[[], Awaitable[object]], enough: asyncio.Event
    ) -> None:
        try:
            await first(read, enough)
            enough.set()
            await remove()
        except HitlessError:
            pass  # the gateway is away: the stage's next turn, or the next start, does it
        finally:
            del self._waits[key]
