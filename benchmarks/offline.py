"""serverless-offline among the peers: the same handler as hitless runs, by Serverless Framework's open-source line.

Its line 13 is the one for Serverless Framework 3 (line 14 asks for version 4, which asks for an account). It runs as
many Python processes as requests are under way, and offers no number of workers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import NODE_PEERS, OSLS, VENV
from benchmarks.running import Running, end, free_port, start, wait_for_answer
from benchmarks.servers import APPS, releases_in
from benchmarks.site import SERVICE

_SERVERLESS_YML = """\
service: bench
provider:
  name: aws
  runtime: python3.11
plugins: [serverless-offline]
functions:
  hello:
    handler: offline.hello
    events:
      - http: GET /hello
      - http: POST /hello
custom:
  serverless-offline: {{host: 127.0.0.1, httpPort: {port}, lambdaPort: {lambda_port}, noPrependStageInUrl: true}}
"""


@contextmanager
def serverless_offline() -> Iterator[Running]:
    """One function of two routes; a release stops it and starts it again."""
    port, lambda_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="hitless-bench-") as name:
        folder = Path(name)
        for file in (SERVICE / "handlers.py", APPS / "offline.py"):
            shutil.copy(file, folder)
        (folder / "serverless.yml").write_text(_SERVERLESS_YML.format(port=port, lambda_port=lambda_port))
        (folder / "node_modules").symlink_to(NODE_PEERS)
        write_next = releases_in(folder)
        processes = [_started(folder)]

        def release() -> None:
            write_next()
            end(processes.pop())
            processes.append(_started(folder))
            wait_for_answer(url, "serverless-offline")

        try:
            wait_for_answer(url, "serverless-offline")
            yield Running(url, lambda: [process.pid for process in processes], release)
        finally:
            for process in processes:
                end(process)


def _started(folder: Path) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "PATH": f"{VENV}:{os.environ.get('PATH', '')}", "PYTHONDONTWRITEBYTECODE": "1"}
    return start([str(OSLS), "offline", "start"], folder=folder, environ=environ)
