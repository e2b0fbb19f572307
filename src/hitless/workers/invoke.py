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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.worker.crash import death_cause, runtime_error
from hitless.worker.http_api import event_builder
from hitless.worker.request import Request
from hitless.worker.spec import PoolSpec
from hitless.workers.libraries import base_python, inherited_environment, isolated_command, runtime_libraries


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
        if not self.failed:
            return None
        kind = self.payload.get("errorType")
        return f"{kind}: {self.payload['errorMessage']}" if kind else str(self.payload["errorMessage"])


def rest_event(spec: PoolSpec, method: str, target: str, body: bytes | None = None) -> dict[str, Any] | None:
    """The event that a worker makes of such a request with a JSON body; None if the function has no route for it."""
    headers = [(b"Host", b"localhost"), (b"User-Agent", b"hitless-invoke")]
    if body is not None:
        headers.append((b"Content-Type", b"application/json"))
    return event_builder(spec).build(Request(method, target, headers, body or b""), str(uuid.uuid4()), time.time())


async def invoke_once(
    spec: PoolSpec,
    event: Any,
    timeout_s: float | None = None,
    *,
    python: str | None = None,
    scratch: Path | None = None,
) -> InvokeResult:
    """Call the function once with any JSON value; at most `timeout_s` (default: the function's own), import included.

    The result has `failed` if the handler raises, cannot be imported, runs out of time or ends its process. Cancelling
    ends the process; it also ends when the caller's process dies. `scratch`: the folder for its temporary folder.
    """
    limit_s = spec.timeout_s if timeout_s is None else timeout_s
    folder = Path(tempfile.mkdtemp(prefix="hitless-invoke-", dir=scratch))
    try:
        settings = {"spec": spec.to_json(), "event": event, "libraries": runtime_libraries(), "folder": str(folder)}
        (folder / "settings").write_text(json.dumps(settings))
        began = time.monotonic()
        status = await _run(folder / "settings", python or base_python(), limit_s)
        return _result(spec, folder, status, limit_s, (time.monotonic() - began) * 1000)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _run(settings: Path, python: str, limit_s: float) -> int | None:
    process = await asyncio.create_subprocess_exec(
        *isolated_command(python, "oneshot", str(settings)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True, env=inherited_environment(), cwd="/",
    )  # fmt: skip
    try:
        async with asyncio.timeout(limit_s):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        with suppress(ProcessLookupError, PermissionError):  # also the processes that the handler started
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _result(spec: PoolSpec, folder: Path, status: int | None, limit_s: float, took_ms: float) -> InvokeResult:
    log = (folder / "log").read_text(errors="replace") if (folder / "log").exists() else ""
    if status is None:
        message = f"{uuid.uuid4()} Task timed out after {limit_s:.2f} seconds"
        return InvokeResult({"errorMessage": message}, True, f"{log}{message}\n", took_ms)
    if not (folder / "result").exists():
        wait_status = -status if status < 0 else status << 8
        error = {"errorType": "Runtime.ExitError", "errorMessage": f"Error: {runtime_error(wait_status)}"}
        return InvokeResult(error, True, f"{log}{spec.title} {death_cause(wait_status)}\n", took_ms)
    outcome = json.loads((folder / "result").read_text())
    failed = "failure" in outcome
    return InvokeResult(outcome["failure" if failed else "payload"], failed, log, outcome.get("duration_ms", took_ms))
