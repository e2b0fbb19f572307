"""Time as an argument: deadlines use monotonic time, wall time is for people only."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The engine's source of time. Tests pass a fake one."""

    def monotonic(self) -> float:
        """Seconds that never go back; comparable within one process."""

    def now(self) -> datetime:
        """Wall time in UTC, for records that people read."""

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task for that long."""


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def timestamp(instant: datetime) -> str:
    """`2026-11-24T06:00:00.123Z`: the only form of an instant in JSON, logs and the state file."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
