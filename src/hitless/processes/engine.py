"""The engine's daemon: rollouts, scaling, healing, the pipeline and the API. Started by `hitless up`.

It reports once on the ready descriptor whether it came up (`{"ready": true}` or `{"error": …}`) and logs to its
standard error, which `up` points at the data folder's engine.log. SIGTERM ends the daemon only: the gateway and the
workers keep serving, and the next `up` adopts them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import structlog
from setproctitle import setproctitle

from hitless.api.app import Api, application
from hitless.api.pipeline import PipelineApi
from hitless.api.server import PeerProtocol, listen_for_owner
from hitless.cli.daemon_log import keep_small
from hitless.cli.settings import EngineSettings
from hitless.cli.wire import build_machine, build_pipeline
from hitless.engine.folders import Folders, lock_engine
from hitless.errors import HitlessError
from hitless.pipeline.rehearsal.leftovers import PREFIX, leftovers
from hitless.rollout.hook_endpoint import served
from hitless.store.store import Store

log = structlog.get_logger()

SWEEP_S = 90.0


def main() -> None:
    """Run the daemon until it is told to leave."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    options = parser.parse_args()
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
    os.set_inheritable(options.ready_fd, False)
    try:
        asyncio.run(serve(Folders.of(options.data_dir, os.environ), options.ready_fd))
    except HitlessError as error:
        log.error("daemon ended", error=error.message, hint=error.hint)
        _report(options.ready_fd, {"error": {**error.to_json(), "exit_code": error.exit_code}})
        sys.exit(1)


async def serve(folders: Folders, ready_fd: int) -> None:
    """Start or adopt all, serve the API, until shut down or told by a signal to leave."""
    folders.create()
    lock = lock_engine(folders.lock_file)
    folders.record_run_folder()
    settings = EngineSettings.read(folders)
    setproctitle(f"hitless: engine {settings.service} {folders.data}")
    store = Store(folders.state_file)
    leaving = asyncio.Event()
    engine, machine, previews = build_machine(folders, settings, store, leave=leaving.set)
    pipeline = build_pipeline(folders, engine, store, machine.urls, previews)
    await machine.start()
    await pipeline.start()
    listener = listen_for_owner(folders.api_socket)
    api = application(Api(engine, machine, before_stop=pipeline.stop), PipelineApi(pipeline).routes())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)
    _report(ready_fd, {"ready": True})
    log.info("ready", urls=machine.urls())
    sweeping = asyncio.create_task(asyncio.to_thread(_sweep_sandboxes, folders))
    logging = asyncio.create_task(keep_small(folders.daemon_log))
    async with served(api, listener, http=PeerProtocol, timeout_graceful_shutdown=2):
        await leaving.wait()
    logging.cancel()
    await sweeping
    await pipeline.stop()
    folders.api_socket.unlink(missing_ok=True)
    folders.remove_run_folder()
    store.close()
    os.close(lock)


def _sweep_sandboxes(folders: Folders) -> None:
    """End left-over sandboxes by a process of its own. The daemon of a sandbox does not sweep."""
    if not folders.data.parent.name.startswith(PREFIX) and leftovers(Path(tempfile.gettempdir())):
        words = [sys.executable, "-m", "hitless.processes.rehearsal_sweeper"]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=SWEEP_S, check=False)
        log.info("sandboxes of killed rehearsals were ended", exit_status=done.returncode)


def _report(ready_fd: int, document: object) -> None:
    try:
        os.write(ready_fd, json.dumps(document).encode())
        os.close(ready_fd)
    except OSError:
        pass  # the process that started us has gone, or was told before


if __name__ == "__main__":
    main()
