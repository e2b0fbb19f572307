"""Keeps retired releases until their clients have read the last responses, then removes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hitless.errors import HitlessError
from hitless.rollout.servers import ends_before


class Lingering:
    """Retired releases by key. Each is removed in the background when its clients have read, or by `remove_now`."""

    def __init__(self) -> None:
        self._waits: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}
        """Key → the task that waits, and an event that ends the wait."""

    def __contains__(self, key: str) -> bool:
        return key in self._waits

    def begin(self, key: str, read: Coroutine[Any, Any, bool], remove: Callable[[], Awaitable[object]]) -> None:
        """Wait for `read`, then `remove` the release."""
        enough = asyncio.Event()
        self._waits[key] = asyncio.create_task(self._linger(key, read, remove, enough)), enough

    async def remove_now(self, *releases: str) -> None:
        """Remove these releases, or without arguments all of them, without waiting for their clients."""
        waits = [each for key, each in self._waits.items() if key in releases or not releases]
        for _, enough in waits:
            enough.set()
        await asyncio.gather(*(task for task, _ in waits))

    async def keep(self, key: str) -> None:
        """Keep a release that is about to be shipped again. If it is being removed already, wait until it is gone."""
        if key in self._waits:
            task, enough = self._waits[key]
            if not enough.is_set():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _linger(
        self, key: str, read: Coroutine[Any, Any, bool], remove: Callable[[], Awaitable[object]], enough: asyncio.Event
    ) -> None:
        try:
            await ends_before(read, enough)
            enough.set()
            await remove()
        except HitlessError:
            pass  # the gateway does not respond: the stage's next turn or the next start removes the release
        finally:
            del self._waits[key]
