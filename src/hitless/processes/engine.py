"""The engine's daemon: rollouts, scaling, healing, the pipeline and the API. Started by `hitless up`.

It reports once on the ready descriptor whether it came up (`{"ready": true}` or `{"error": …}`) and logs to its
standard error, which `up` points at the data folder's engine.log. SIGTERM ends the daemon only: the gateway and the
workers keep serving, and the next `up` adopts them.

Without a ready descriptor it is the main process of a unit (`hitless host install`): it waits for the settings that
`hitless up` writes, and reports to systemd (sd_notify(3)).
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from setproctitle import setproctitle

from hitless.api.app import Api, application, figures
from hitless.api.client import EngineClient
from hitless.api.pipeline import PipelineApi
from hitless.api.requests import ShutdownRequest
from hitless.api.server import PeerProtocol, listen_for_owner
from hitless.cli.daemon_log import keep_small, log_to
from hitless.cli.settings import EngineSettings
from hitless.cli.wire import build_exporter, build_machine, build_pipelines
from hitless.documents import replace_file, to_text
from hitless.engine.folders import Folders, lock_engine
from hitless.errors import HitlessError, MachineError
from hitless.gateway.listeners import listen
from hitless.pipeline.rehearsal.leftovers import PREFIX, leftovers
from hitless.rollout.hook_endpoint import served
from hitless.service.listen import parse_listen
from hitless.store.store import Store

log = logging.getLogger(__name__)

METRICS_VARIABLE = "HITLESS_METRICS"
"""HOST:PORT for Prometheus and for checks of liveness and readiness. Unset: none."""
SWEEP_S = 90.0
LOOK_S = 1.0
M_ARENA_MAX = -8
"""The number of an option of mallopt(3), in malloc.h."""
TRIM_S = 20.0
AGAIN_AFTER_S = 5.0
"""A unit's daemon that cannot start ends only after this time, because systemd starts it again at once."""


def keep_one_arena() -> None:
    """Let all threads share one arena of glibc's malloc. Each thread's own one keeps what it once held."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def main() -> None:
    """Run the daemon until it is told to leave."""
    keep_one_arena()
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--stop", action="store_true", help="stop a unit's engine after its open requests")
    options = parser.parse_args()
    folders = Folders.of(options.data_dir, os.environ)
    if options.stop:
        if folders.engine_is_alive():
            EngineClient(folders.api_socket).call("POST", "/shutdown", ShutdownRequest())
        return
    log_to(sys.stderr)
    if options.ready_fd is None:
        _wait_for_settings(folders)
    else:
        os.set_inheritable(options.ready_fd, False)
    try:
        asyncio.run(serve(folders, options.ready_fd))
    except HitlessError as error:
        log.error("daemon ended", {"error": error.message, "hint": error.hint})
        document = {"error": {**error.to_json(), "exit_code": error.exit_code}}
        if options.ready_fd is not None:
            _report(options.ready_fd, document)
        else:
            replace_file(folders.start_error, to_text(document))
            time.sleep(AGAIN_AFTER_S)
        sys.exit(1)


def _wait_for_settings(folders: Folders) -> None:
    """Return when `hitless up` has written the settings, or the engine ran before."""
    while not folders.settings_file.exists():
        _tell_systemd("READY=1", "STATUS=no service yet: waiting for hitless up", "WATCHDOG=1")
        time.sleep(LOOK_S)


async def serve(folders: Folders, ready_fd: int | None) -> None:
    """Start or adopt all, serve the API, until shut down or told by a signal to leave."""
    folders.create()
    lock = lock_engine(folders.lock_file)
    folders.record_run_folder()
    settings = EngineSettings.read(folders)
    os.environ["SPT_NOENV"] = "1"  # else the title overwrites /proc/PID/environ, which `hitless upgrade` reads
    setproctitle(f"hitless: engine {settings.service} {folders.data}")
    del os.environ["SPT_NOENV"]
    figures_at = _figures_listener()
    store = Store(folders.state_file)
    leaving = asyncio.Event()
    engine, machine, previews = build_machine(folders, settings, store, leave=leaving.set)
    exporter = build_exporter(folders, engine, store)
    pipelines = build_pipelines(folders, engine, machine, store, previews)
    await machine.start()
    await pipelines.start()
    listener = listen_for_owner(folders.api_socket)
    api = application(Api(engine, machine, before_stop=pipelines.stop), PipelineApi(pipelines).routes())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)
    if ready_fd is not None:
        _report(ready_fd, {"ready": True})
    gc.collect()
    gc.freeze()  # full collections need not walk the modules: some 5 % of a deploy's processor time
    log.info("ready", {"urls": machine.urls()})
    sweeping = asyncio.create_task(asyncio.to_thread(_sweep_sandboxes, folders))
    keeping = asyncio.create_task(keep_small(folders.daemon_log))
    watched = asyncio.create_task(_feed_watchdog())
    trimming = asyncio.create_task(_return_memory())
    async with AsyncExitStack() as serving:
        await serving.enter_async_context(served(api, listener, http=PeerProtocol, timeout_graceful_shutdown=2))
        if figures_at is not None:
            await serving.enter_async_context(served(figures(machine), figures_at, timeout_graceful_shutdown=2))
        if exporter is not None:
            machine.other_metrics = exporter.metrics
            await serving.enter_async_context(exporter.running())
        await leaving.wait()
    keeping.cancel()
    watched.cancel()
    trimming.cancel()
    await sweeping
    await pipelines.stop()
    folders.api_socket.unlink(missing_ok=True)
    folders.remove_run_folder()
    store.close()
    os.close(lock)


def _figures_listener() -> socket.socket | None:
    if not (address := os.environ.get(METRICS_VARIABLE)):
        return None
    try:
        return listen(*parse_listen(address), purpose=METRICS_VARIABLE)
    except ValueError as error:
        hint = "for example 127.0.0.1:9464"
        raise MachineError(f"{METRICS_VARIABLE}={address} is not HOST:PORT", hint=hint) from error


def _sweep_sandboxes(folders: Folders) -> None:
    """End left-over sandboxes by a process of its own. The daemon of a sandbox does not sweep."""
    if not folders.data.parent.name.startswith(PREFIX) and leftovers(Path(tempfile.gettempdir())):
        words = [sys.executable, "-m", "hitless.processes.rehearsal_sweeper"]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=SWEEP_S, check=False)
        log.info("sandboxes of killed rehearsals were ended", {"exit_status": done.returncode})


async def _return_memory() -> None:
    """Return the free memory of malloc, which keeps what a release needed for a moment (malloc_trim(3))."""
    while True:
        await asyncio.sleep(TRIM_S)
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


async def _feed_watchdog() -> None:
    """Tell systemd that the engine serves, then in each third of its time that the daemon's loop runs."""
    third_s = int(os.environ.get("WATCHDOG_USEC") or 60_000_000) / 3e6
    _tell_systemd("READY=1", "STATUS=the engine serves")
    while "NOTIFY_SOCKET" in os.environ:
        _tell_systemd("WATCHDOG=1")
        await asyncio.sleep(third_s)


def _tell_systemd(*lines: str) -> None:
    """Send lines of sd_notify(3). Does nothing outside a unit."""
    if (address := os.environ.get("NOTIFY_SOCKET")) is None:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)  # the daemon never waits for systemd
        sender.sendto("\n".join(lines).encode(), "\0" + address[1:] if address.startswith("@") else address)


def _report(ready_fd: int, document: object) -> None:
    try:
        os.write(ready_fd, json.dumps(document).encode())
        os.close(ready_fd)
    except OSError:
        pass  # the process that started us has gone, or was told before


if __name__ == "__main__":
    main()
