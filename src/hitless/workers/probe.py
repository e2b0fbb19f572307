"""Asks a worker whether it serves: an HTTP request that it answers itself, without its handler."""

from __future__ import annotations

import asyncio
from pathlib import Path

_REQUEST = b"GET / HTTP/1.1\r\nhost: probe\r\nx-hl-probe: 1\r\nconnection: close\r\n\r\n"


async def probe(path: Path, timeout_s: float) -> str | None:
    """None if the worker behind this socket answers 204 in time, else what it did instead."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(_REQUEST)
                first = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return None if first.startswith(b"HTTP/1.1 204 ") else f"answered {first!r}"
