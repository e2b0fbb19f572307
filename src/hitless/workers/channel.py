"""Lines of JSON over a Unix socket, to the root zygote and to a pool's zygote."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any


class Channel:
    """One connection. Its end is the death of the process at the other side, or its refusal."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path) -> Channel:
        """Raises OSError when nobody listens there."""
        return cls(*await asyncio.open_unix_connection(path))

    def send(self, message: dict[str, Any]) -> None:
        """Queue one message; the other side's death shows in `receive`."""
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None once the other side is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    async def close(self) -> None:
        """Close this side."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass


async def responds(path: Path, within_s: float) -> bool:
    """Whether the process behind that socket, a zygote or the root zygote, answers a greeting in time."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(within_s):
            channel = await Channel.connect(path)
            try:
                channel.send({"op": "hello"})
                return await channel.receive() is not None
            finally:
                await channel.close()
    return False
