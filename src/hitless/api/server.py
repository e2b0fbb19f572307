"""Serves the daemon's API on its Unix socket, by uvicorn without uvicorn's own signal handlers."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import uvicorn

from hitless.api.peer import PeerProtocol


class ApiServer:
    """uvicorn on a socket of ours; `leave` ends it."""

    def __init__(self) -> None:
        self._uvicorn: uvicorn.Server | None = None

    def serve_app(self, app: object) -> None:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http=PeerProtocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        config.load()
        self._uvicorn = uvicorn.Server(config)
        self._uvicorn.lifespan = config.lifespan_class(config)

    async def run(self, listener: socket.socket) -> None:
        """Serve until `leave` is called."""
        assert self._uvicorn is not None
        await self._uvicorn.startup(sockets=[listener])
        await self._uvicorn.main_loop()
        await self._uvicorn.shutdown(sockets=[listener])

    def leave(self) -> None:
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True


def listen_for_owner(path: Path) -> socket.socket:
    """A listening Unix socket that only its owner can open."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(64)
    return listener
