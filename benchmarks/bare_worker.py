"""One worker alone: `python -m benchmarks.bare_worker SOCKET`. Its files are beside the socket."""

from __future__ import annotations

import os
import socket
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.service.handlers import hello
from hitless.worker import compiled


def serve(path: str) -> None:
    """Serve requests on that Unix socket."""
    compiled.use(compiled.find(os.environ))
    modules = ("invocation", "layout", "log", "server", "spec")
    invocation, layout, log_file, server, spec_ = (import_module(f"hitless.worker.{name}") for name in modules)
    folder = Path(path).parent
    routes = tuple(spec_.RouteSpec(method, "/hello", "^/hello$") for method in ("GET", "POST"))
    spec = spec_.PoolSpec(
        *("bench-dev-1-hello", "bench", "dev", 1, "hello", "handlers.hello", str(folder), {}),
        *(6, 128, 2, "us-east-1", routes, str(folder), True, ""),
    )
    layout.StatsPage.create(folder / "page", 2)
    page = layout.StatsPage(folder / "page", writable=True)
    log = log_file.LogFile()
    log.open(folder / "worker.log")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    runner = invocation.RequestRunner(spec, hello, page, 0, log, lambda: None, 1.0)
    server.Server(listener, runner).run()


if __name__ == "__main__":
    serve(sys.argv[1])
