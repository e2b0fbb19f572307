"""One invocation outside HTTP, in a process of its own: any event, the handler's result as JSON, Lambda's log lines."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from setproctitle import setproctitle

from hitless.worker.context import ContextFactory
from hitless.worker.environment import enter_environment
from hitless.worker.handler import HandlerFailure, HandlerImportError, failure_of, load_handler
from hitless.worker.invocation import RSS_UNIT_BYTES, report_line
from hitless.worker.life import redirect_streams
from hitless.worker.log import LambdaLogHandler, LogFile, LogStream
from hitless.worker.spec import PoolSpec


def main(argument: str, own_paths: Sequence[str]) -> NoReturn:
    """`argument` is a JSON file: spec, event, libraries, and the folder for `log` and `result`."""
    _end_with_caller()
    settings: dict[str, Any] = json.loads(Path(argument).read_text())
    os.unlink(argument)  # it has the function's environment, and the caller may die before it cleans up
    folder = Path(settings["folder"])
    spec = PoolSpec.from_json(settings["spec"])
    setproctitle(f"hitless: invoke {spec.title}")
    log = LogFile()
    log.open(folder / "log")
    streams = redirect_streams(log)
    logging.getLogger().addHandler(LambdaLogHandler(log, streams[1]))
    enter_environment(spec, settings["libraries"], own_paths)
    outcome = _invoke(spec, settings["event"], log, streams)
    temporary = folder / "result.part"
    temporary.write_text(json.dumps(outcome))
    temporary.replace(folder / "result")
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


def _invoke(spec: PoolSpec, event: Any, log: LogFile, streams: Sequence[LogStream]) -> dict[str, Any]:
    request_id = str(uuid.uuid4())
    began = time.monotonic_ns()
    try:
        handler = load_handler(spec.handler)
    except HandlerImportError as error:
        log.lines(error.failure.log_text())
        return {"failure": {**error.failure.to_json(), "requestId": request_id}}
    init_ms = (time.monotonic_ns() - began) / 1e6
    log.start(f"START RequestId: {request_id} Version: {spec.release}", request_id)
    began = time.monotonic_ns()
    outcome: dict[str, Any]
    try:
        result = handler(event, ContextFactory(spec).context(request_id, began))
        outcome = {"payload": json.loads(_marshalled(result))}
    except BaseException as error:  # noqa: BLE001 - any exception of the handler is the result
        failure = error.failure if isinstance(error, _NotJson) else failure_of(error)
        log.lines(failure.log_text())
        outcome = {"failure": {**failure.to_json(), "requestId": request_id}}
    took_ms = (time.monotonic_ns() - began) / 1e6
    used_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES // 1048576
    for stream in streams:
        stream.end_line()
    stamp = log.stamp()
    report = report_line(request_id, took_ms, spec.memory_mb, used_mb)
    log.end(f"{stamp}END RequestId: {request_id}\n{stamp}{report}Init Duration: {init_ms:.2f} ms\t\n")
    return {**outcome, "duration_ms": took_ms}


class _NotJson(Exception):
    def __init__(self, failure: HandlerFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _marshalled(result: Any) -> str:
    try:
        return json.dumps(result)
    except (TypeError, ValueError) as error:
        message = f"Unable to marshal response: {error}"
        raise _NotJson(HandlerFailure("Runtime.MarshalError", message)) from error
