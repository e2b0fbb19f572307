"""One invocation of a function outside HTTP, for `hitless invoke` and hooks: a fresh process that ends afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.worker.crash import Death, append, log_lines
from hitless.worker.handler import EXIT_ERROR, runtime_error
from hitless.worker.http_api import event_builder
from hitless.worker.memory import family, held_mb
from hitless.worker.request import Request
from hitless.worker.spec import PoolSpec
from hitless.workers.generation import end_private
from hitless.workers.isolation import isolation_settings
from hitless.workers.libraries import base_python, inherited_environment, isolated_command, runtime_libraries

INIT_LIMIT_S = 10.0
"""Lambda gives the init phase 10 s."""
_MEASURE_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class InvokeResult:
    """The result of Lambda's Invoke. `payload` is the handler's result, or the error object if `failed`."""

    payload: Any
    failed: bool
    log: str
    duration_ms: float

    @property
    def error(self) -> str | None:
        """`ValueError: …` if the invocation failed, else None."""
        return f"{self.payload['errorType']}: {self.payload['errorMessage']}" if self.failed else None


def rest_event(
    spec: PoolSpec, method: str, target: str, body: bytes | None = None, given: Sequence[tuple[bytes, bytes]] = ()
) -> dict[str, Any] | None:
    """The event that a worker makes of such a request; None if the function has no route for it.

    `given` are the headers as (name, value). Host, User-Agent and, with a body, Content-Type have defaults.
    """
    defaults = {b"Host": b"localhost", b"User-Agent": b"hitless-invoke"}
    if body is not None:
        defaults[b"Content-Type"] = b"application/json"
    names = {name.lower() for name, _ in given}
    headers = [*((name, value) for name, value in defaults.items() if name.lower() not in names), *given]
    return event_builder(spec).build(Request(method, target, headers, body or b""), str(uuid.uuid4()), time.time())


async def invoke_once(
    spec: PoolSpec, event: Any, *, scratch: Path | None = None, share: Mapping[str, Any] | None = None
) -> InvokeResult:
    """Call the function once with any JSON value. Its timeout starts after its import, or after 10 s.

    The result has `failed` if the handler raises, cannot be imported, runs out of time or ends its process. Cancelling
    ends the process; it also ends when the caller's process dies. `scratch`: the folder for its temporary folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="hitless-invoke-", dir=scratch))
    try:
        request_id = str(uuid.uuid4())
        settings = {"spec": spec.to_json(), "event": event, "request_id": request_id, "folder": str(folder)}
        settings["share"] = share or {}
        settings |= {"isolation": isolation_settings(spec.service, os.environ), "libraries": runtime_libraries()}
        (folder / "settings").write_text(json.dumps(settings))
        began = time.monotonic()
        status, too_large = await _run(folder / "settings", base_python(), spec)
        took_s = min(time.monotonic() - began, spec.timeout_s)
        return _result(spec, folder, request_id, status, too_large, took_s * 1000)
    finally:
        await asyncio.to_thread(end_private, folder)
        shutil.rmtree(folder, ignore_errors=True)


async def _run(settings: Path, python: str, spec: PoolSpec) -> tuple[int | None, bool]:
    """The process's exit status, None if its time was out, and whether it held more memory than `memorySize`."""
    process = await asyncio.create_subprocess_exec(
        *isolated_command(python, "oneshot", str(settings)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True, env=inherited_environment(), cwd="/",
    )  # fmt: skip
    watching = asyncio.create_task(_limit_memory(process.pid, spec))
    try:
        assert process.stdout is not None
        with suppress(TimeoutError):
            await asyncio.wait_for(process.stdout.read(1), INIT_LIMIT_S)
        async with asyncio.timeout(spec.timeout_s):
            return await process.wait(), watching.done()
    except TimeoutError:
        return None, False
    finally:
        watching.cancel()
        with suppress(ProcessLookupError, PermissionError):  # also the processes that the handler started
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _limit_memory(pid: int, spec: PoolSpec) -> None:
    while held_mb(family(pid)[spec.is_program :], spec.memory_mb) <= spec.memory_mb:  # noqa: ASYNC110 - no event tells it
        await asyncio.sleep(_MEASURE_EVERY_S)
    os.killpg(pid, signal.SIGKILL)


def _result(
    spec: PoolSpec, folder: Path, request_id: str, status: int | None, too_large: bool, took_ms: float
) -> InvokeResult:
    path = folder / "log"
    log = path.read_text(errors="replace") if path.exists() else ""
    result = folder / "result"
    if status == 0 and result.exists() and result.stat().st_size:
        outcome = json.loads(result.read_text())
        failed = "failure" in outcome
        payload = outcome["failure" if failed else "payload"]
        return InvokeResult(payload, failed, log, outcome.get("duration_ms", took_ms))
    wait_status = 0 if status is None else -status if status < 0 else status << 8
    if status is None:
        kind, message = "Sandbox.Timedout", f"Task timed out after {spec.timeout_s:.2f} seconds"
    else:
        kind, message = EXIT_ERROR, runtime_error(wait_status)
    death = Death(wait_status, request_id, took_ms, status is None, request_id in log, too_large)
    append(path, log_lines(spec, death))
    payload = {"errorType": kind, "errorMessage": f"RequestId: {request_id} Error: {message}"}
    return InvokeResult(payload, True, path.read_text(errors="replace"), took_ms)
