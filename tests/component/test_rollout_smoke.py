"""Smoke requests to the socket of a worker."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from hitless.rollout.smoke import smoke_workers
from hitless.service.event_sources import Route
from hitless.service.model import Function, SmokeRequest

pytestmark = pytest.mark.component


def test_a_cancelled_rollout_sends_no_further_smoke_request(tmp_path: Path) -> None:
    async def story() -> None:
        arrived, release, connections = asyncio.Event(), asyncio.Event(), 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            arrived.set()
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_unix_server(serve, tmp_path / "worker")
        function = Function("api", "app.api", routes=(Route("GET", "/"),))
        requests = (SmokeRequest("GET", "/"),) * 3
        task = asyncio.create_task(smoke_workers(requests, (function,), {"api": tmp_path / "worker"}))
        await arrived.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        release.set()
        await asyncio.get_running_loop().shutdown_default_executor()  # waits for the thread that sends
        server.close()
        await server.wait_closed()
        assert connections == 1

    asyncio.run(story())
