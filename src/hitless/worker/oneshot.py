"""One invocation outside HTTP, in a process of its own: any event, the handler's result as JSON, Lambda's log lines."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from setproctitle import setproctitle

from hitless.worker.context import ContextFactory
from hitless.worker.environment import enter_environment
from hitless.worker.handler import (
    MAX_RESULT_BYTES,
    HandlerImportError,
    failure_of,
    marshalled,
)
from hitless.worker.invocation import memory_text, report_line, used_mb
from hitless.worker.isolation import Reach, isolate, readable
from hitless.worker.landlock import LIST
from hitless.worker.life import redirect_streams
from hitless.worker.log import LambdaLogHandler, LogFile, LogStream
from hitless.worker.process import PRIVATE, join_share
from hitless.worker.runtime_api import load
from hitless.worker.spec import PoolSpec

_TOO_LARGE: Final = f"Response payload size exceeded maximum allowed payload size ({MAX_RESULT_BYTES} bytes)."


def main(argument: str, own_paths: Sequence[str]) -> NoReturn:
    """`argument` is a JSON file: spec, event, request id, libraries, and the folder for `log` and `result`.

    Writes one byte to standard output once the handler is imported: then the function's timeout starts.
    """
    ready = os.dup(1)
    PRIVATE.add(ready)
    settings: dict[str, Any] = json.loads(Path(argument).read_text())
    os.unlink(argument)  # it has the function's environment, and the caller may die before it cleans up
    join_share(settings.get("share", {}))
    folder = Path(settings["folder"])
    spec = PoolSpec.from_json(settings["spec"])
    setproctitle(f"hitless: invoke {spec.title}")
    log = LogFile()
    log.open(folder / "log")
    result = os.open(folder / "result", os.O_WRONLY | os.O_CREAT, 0o600)
    PRIVATE.add(result)
    isolation, own = settings["isolation"], readable(spec, settings["libraries"], own_paths)
    for missing in isolate(isolation, Reach(own | {str(folder): LIST}, (), spec.storage_mb)):
        log.lines(f"hitless: this machine does not isolate the handler by {missing}")
    _end_with_caller()  # a thread, which would forbid the isolation
    streams = redirect_streams(log)
    logging.getLogger().addHandler(LambdaLogHandler(log, streams[1]))
    enter_environment(spec, settings["libraries"], own_paths)
    outcome = _invoke(spec, settings["event"], settings["request_id"], ready, log, streams)
    os.write(result, json.dumps(outcome).encode())
    os._exit(0)


def _end_with_caller() -> None:
    """End this process and those that the handler started when the caller dies.

    Standard input is a pipe that nothing writes to, so its end is the caller's death.
    """
    caller = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        os.read(caller, 1)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True, name="caller").start()


def _invoke(
    spec: PoolSpec, event: Any, request_id: str, ready: int, log: LogFile, streams: Sequence[LogStream]
) -> dict[str, Any]:
    began = time.monotonic_ns()
    try:
        handler = load(spec, log)
    except HandlerImportError as error:
        log.lines(error.failure.log_text())
        return {"failure": {**error.failure.to_json(request_id), "requestId": ""}}
    os.write(ready, b".")
    os.close(ready)
    PRIVATE.discard(ready)
    init_ms = (time.monotonic_ns() - began) / 1e6
    log.start(request_id, str(spec.release))
    began = time.monotonic_ns()
    outcome: dict[str, Any]
    try:
        result = handler(event, ContextFactory(spec).context(request_id, began))
        payload = marshalled(result)
        if len(payload) > MAX_RESULT_BYTES:
            outcome = {"failure": {"errorMessage": _TOO_LARGE, "errorType": "Function.ResponseSizeTooLarge"}}
        else:
            outcome = {"payload": json.loads(payload)}
    except BaseException as error:  # noqa: BLE001 - any exception of the handler is the result
        failure = failure_of(error)
        log.lines(failure.log_text(request_id))
        outcome = {"failure": {**failure.to_json(request_id), "requestId": request_id}}
    took_ms = (time.monotonic_ns() - began) / 1e6
    for stream in streams:
        stream.end_line()
    report = report_line(request_id, took_ms, memory_text(spec.memory_mb, used_mb(handler)))
    log.end(f"{report}Init Duration: {init_ms:.2f} ms\t")
    return {**outcome, "duration_ms": took_ms}
