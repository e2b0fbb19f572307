"""The life of one worker process, from the fork to its end.

Global random state differs between the workers of a pool: the interpreter seeds `random` in each fork, and `run_worker`
seeds numpy's. An object that the import made, such as a `random.Random()`, is the same in all of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from setproctitle import setproctitle

from hitless.worker.crash import EXIT_ON_SIGTERM, EXIT_OUT_OF_DESCRIPTORS, log_path
from hitless.worker.crew import WorkerPlace
from hitless.worker.environment import log_stream_name
from hitless.worker.handler import Handler, HandlerFailure, HandlerImportError
from hitless.worker.invocation import RequestRunner
from hitless.worker.layout import SlotField, StatsPage, WorkerState
from hitless.worker.log import LogFile, LogStream
from hitless.worker.paths import GenerationPaths
from hitless.worker.process import start_time
from hitless.worker.runtime_api import load
from hitless.worker.server import Server, SpoolerClient
from hitless.worker.spec import PoolSpec

IMPORT_FAILED = 0x46
"""The exit status of a process whose handler could not be imported; `outcome` has the reason."""


@dataclass(slots=True)
class WorkerSetup:
    """What a worker inherits from its zygote. `handler` is None if each worker imports it itself."""

    spec: PoolSpec
    paths: GenerationPaths
    page: StatsPage
    log: LogFile
    streams: tuple[LogStream, LogStream]
    handler: Handler | None
    init_ms: float
    outcome: int
    """The open file for `write_outcome`: an isolated process cannot create it."""


def run_worker(setup: WorkerSetup, member: WorkerPlace, say_ready: Callable[[], None]) -> NoReturn:
    """Serve until SIGTERM, then end the process. The caller has closed the zygote's own descriptors."""
    spec, fields = setup.spec, member.fields
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    setproctitle(f"hitless: worker {spec.title} #{member.index}")
    setup.log.open(log_path(spec, member.index))
    os.environ["AWS_LAMBDA_LOG_STREAM_NAME"] = log_stream_name(spec)
    fields[SlotField.PID], fields[SlotField.STARTED] = os.getpid(), start_time(os.getpid())
    handler, init_ms = setup.handler, setup.init_ms
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()
    if handler is None:
        handler, init_ms = import_or_exit(setup)

    def end_partial_lines() -> None:
        for stream in setup.streams:
            if stream.partial:
                stream.end_line()

    invoker = RequestRunner(
        spec, handler, setup.page, member.slot, setup.log, end_partial_lines, init_ms, str(setup.paths.hop)
    )
    for stream in setup.streams:
        stream.on_start_written = invoker.start_was_logged
    assert member.listener is not None
    server = Server(member.listener, invoker, SpoolerClient(str(setup.paths.spooler), spec.log_dir))
    server.install_signals()
    fields[SlotField.STATE] = WorkerState.READY
    say_ready()
    server.run()
    os._exit(EXIT_OUT_OF_DESCRIPTORS if server.exhausted else EXIT_ON_SIGTERM)


def import_or_exit(setup: WorkerSetup) -> tuple[Handler, float]:
    """The handler, and the ms that its import took. If the import fails, records the reason and ends the process."""
    began = time.monotonic()
    try:
        handler = load(setup.spec, setup.log)
    except HandlerImportError as error:
        setup.log.lines(error.failure.log_text())
        write_outcome(setup.outcome, error.failure)
        os._exit(IMPORT_FAILED)
    return handler, (time.monotonic() - began) * 1000


def write_outcome(file: int, failure: HandlerFailure | None, *, unsafe: str | None = None) -> None:
    """Record for the daemon why this generation cannot start; the first reason wins."""
    with suppress(OSError):
        if not os.fstat(file).st_size:
            os.write(file, json.dumps({"failure": failure.to_json() if failure else None, "unsafe": unsafe}).encode())


def redirect_streams(log: LogFile) -> tuple[LogStream, LogStream]:
    """Make `sys.stdout` and `sys.stderr` write to the log."""
    out, err = LogStream(log, 1), LogStream(log, 2)
    sys.stdout, sys.stderr = out, err
    return out, err
