"""Child processes of the pipeline, each waited for in a thread of its own.

asyncio's subprocesses are not used: if a task is cancelled while asyncio starts a process, its child watcher does not
know that process ("Unknown child process"), and runs are cancelled whenever an engine stops. asyncio's default thread
pool is not used either: rollouts and repairs need its few threads, and a build may take a long time.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from hitless.errors import HitlessError
from hitless.pipeline.buildspec.run import User, credentials

MAX_BYTES = 64 << 20
"""Limit of stdout and stderr together; far more than any of these processes prints."""

EndProcess = Callable[["subprocess.Popen[bytes]"], None]
"""How to end the process if the caller is cancelled. The process is still awaited."""


def close_input(process: subprocess.Popen[bytes]) -> None:
    """End a process that exits when its standard input is closed."""
    if process.stdin is not None:
        process.stdin.close()


async def run_child(
    args: Sequence[str],
    *,
    line: bytes = b"",
    hold_input: bool = False,
    errors: Path | None = None,
    environ: Mapping[str, str] | None = None,
    user: User | None = None,
    end: EndProcess = subprocess.Popen.kill,
    timeout_s: float | None = None,
    max_bytes: int = MAX_BYTES,
) -> tuple[int, bytes, bytes]:
    """Run a command in its own session. Returns exit status, stdout, and stderr (empty if it goes to `errors`).

    `line` is its standard input, which with `hold_input` stays open until the process ends. Raises TimeoutError, or
    ValueError if it prints more than `max_bytes`; the process is killed in both cases.
    """
    process = _start(args, errors, environ, user)
    thread = ThreadPoolExecutor(1, thread_name_prefix="child")
    communication = asyncio.get_running_loop().run_in_executor(
        thread, _communicate, process, line, hold_input, max_bytes
    )
    thread.shutdown(wait=False)  # the thread ends after this call
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(communication)
    except BaseException:
        end(process)
        await asyncio.wait([communication])
        raise


async def call_process(module: str, *args: str, plan: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """Run a module as a process that exits with its caller. Its plan (on stdin) and its answer (on stdout) are one JSON
    document each; {} if it printed nothing. Its progress goes to `log`.
    """
    line = json.dumps(plan, default=str).encode() + b"\n"
    command = [sys.executable, "-m", module, *args]
    _, out, _ = await run_child(command, line=line, hold_input=True, errors=log, end=close_input)
    answer: dict[str, Any] = json.loads(out) if out.strip() else {}
    return answer


def serve_call(act: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child process of `call_process`: read the plan, print what `act` returns or `{"error"}`, exit with 0."""
    plan = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_when_input_closes, daemon=True).start()
    try:
        document = act(plan)
    except HitlessError as error:
        document = {"error": {**error.to_json(), "exit_code": error.exit_code}}
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
    os._exit(0)  # without waiting for threads that may still wait for a network


def _exit_when_input_closes() -> None:
    """Kill this process and its children (an installer, osls) when the caller has stopped waiting."""
    while os.read(0, 65536):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _start(
    args: Sequence[str], errors: Path | None, environ: Mapping[str, str] | None, user: User | None
) -> subprocess.Popen[bytes]:
    with errors.open("ab") if errors is not None else nullcontext(subprocess.PIPE) as log:
        return subprocess.Popen(
            args,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env=environ,
            start_new_session=True,
            **credentials(user),
        )


def _communicate(
    process: subprocess.Popen[bytes], line: bytes, hold_input: bool, max_bytes: int
) -> tuple[int, bytes, bytes]:
    """Write the input, then read the output. No deadlock: the input fits the pipe, or the process reads it at once."""
    outputs: dict[IO[bytes], bytearray] = {
        one: bytearray() for one in (process.stdout, process.stderr) if one is not None
    }
    assert process.stdin is not None
    try:
        with suppress(BrokenPipeError, ValueError):  # it has ended, or its input was closed to end it
            process.stdin.write(line)
            process.stdin.flush()
            if not hold_input:
                process.stdin.close()
        _read_all(process, outputs, max_bytes)
    finally:
        process.wait()
        for stream in (process.stdin, *outputs):
            with suppress(BrokenPipeError):
                stream.close()
    out, error = (bytes(outputs[one]) if one is not None else b"" for one in (process.stdout, process.stderr))
    return process.returncode, out, error


def _read_all(process: subprocess.Popen[bytes], outputs: dict[IO[bytes], bytearray], max_bytes: int) -> None:
    with selectors.DefaultSelector() as selector:
        for stream in outputs:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                stream = next(one for one in outputs if one is key.fileobj)
                data = os.read(stream.fileno(), 65536)
                outputs[stream] += data
                if not data:
                    selector.unregister(stream)
                if sum(map(len, outputs.values())) > max_bytes:
                    process.kill()
                    raise ValueError(f"{process.args[0]!r} printed more than {max_bytes} bytes")  # type: ignore[index]
