"""Lines of JSON over a Unix socket, to the root zygote and to a pool's zygote."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hitless.documents import decode

T = TypeVar("T")


class ZygoteMessage(msgspec.Struct, frozen=True):
    """A message from a pool's zygote: its greeting (with `ready`), `ready`, `scaled`, or an event with a sentence."""

    kind: str = ""
    ready: bool = False
    sentence: str | None = None
    number: int = 0
    trouble: str | None = None


class RootMessage(msgspec.Struct, frozen=True):
    """Message from the root zygote: a greeting (`version`, `pid`, `compiled`), an answer (`pid`, `error`), or a
    zygote's death.
    """

    version: str = ""
    pid: int | None = None
    error: str | None = None
    died: int | None = None
    status: int = 0
    compiled: bool = False


class Channel:
    """One connection. It ends when the process at the other side dies or drops it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path) -> Channel:
        """Connect to a zygote. Raises OSError if no process listens there."""
        return cls(*await asyncio.open_unix_connection(path))

    def send(self, message: dict[str, Any]) -> None:
        """Queue one message; `receive` shows whether the other side is gone."""
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self, kind: type[T]) -> T | None:
        """The next message; None once the other side is gone. Raises EngineError if it is not of that type."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        return decode(line, kind, "a zygote's message")

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def responds(path: Path, within_s: float) -> bool:
    """Whether the zygote or root zygote behind that socket replies to a greeting in time."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(within_s):
            channel = await Channel.connect(path)
            try:
                channel.send({"op": "hello"})
                return await channel.receive(ZygoteMessage) is not None
            finally:
                await channel.close()
    return False
