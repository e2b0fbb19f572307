"""Child processes of the pipeline, waited for in threads.

Not by asyncio's own: a task that is cancelled while asyncio starts a process leaves that process to its child watcher,
which then knows nothing of it ("Unknown child process"), and runs are cancelled whenever an engine stops. Not by
`asyncio.wait_for`, which in Python 3.11 swallows a cancellation that comes as its future ends.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from hitless.pipeline.buildspec.run import User

End = Callable[["subprocess.Popen[bytes]"], None]
"""Makes a process end that nobody waits for any more; it is awaited all the same."""


def hang_up(process: subprocess.Popen[bytes]) -> None:
    """For a process that ends with its input."""
    if process.stdin is not None:
        process.stdin.close()


async def converse(
    words: Sequence[str],
    *,
    line: bytes = b"",
    hold_input: bool = False,
    errors: Path | None = None,
    environ: Mapping[str, str] | None = None,
    user: User | None = None,
    end: End = subprocess.Popen.kill,
    timeout_s: float | None = None,
) -> tuple[int, bytes, bytes]:
    """Run a command in a session of its own: exit status, output, and standard error unless it goes into a file.

    `line` is its input, which with `hold_input` stays open as long as it runs. TimeoutError kills it.
    """
    process = _start(words, errors, environ, user)
    talk = asyncio.get_running_loop().run_in_executor(None, _talk, process, line, hold_input)
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(talk)
    except BaseException:
        end(process)
        await asyncio.wait([talk])
        raise


def _start(
    words: Sequence[str], errors: Path | None, environ: Mapping[str, str] | None, user: User | None
) -> subprocess.Popen[bytes]:
    with ExitStack() as stack:
        log = stack.enter_context(errors.open("ab")) if errors is not None else None
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log if log is not None else subprocess.PIPE,
            cwd="/",
            env=environ,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            start_new_session=True,
        )


def _talk(process: subprocess.Popen[bytes], line: bytes, hold_input: bool) -> tuple[int, bytes, bytes]:
    if not hold_input:
        out, error = process.communicate(line)
        return process.returncode, out, error or b""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(line)
        process.stdin.flush()
        out = process.stdout.read()
    except (BrokenPipeError, ValueError):
        out = b""  # it has ended, or its input was closed to end it
    process.wait()
    for stream in (process.stdin, process.stdout):
        stream.close()
    return process.returncode, out, b""
