"""What a dead worker leaves to say: why it died, and the end of its request in the log as Lambda words it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .invocation import report_line
from .layout import Field
from .spec import PoolSpec

if TYPE_CHECKING:
    from .crew import Member

_NAMES = {"SIGKILL": "killed", "SIGSEGV": "segmentation fault", "SIGABRT": "aborted", "SIGTERM": "terminated"}


def by_itself(status: int, *, timed_out: bool, too_slow: bool) -> bool:
    """Whether a death is the handler's own doing. SIGKILL and a clean end after SIGTERM come from outside."""
    if timed_out:
        return False
    if os.WIFSIGNALED(status):
        return too_slow or os.WTERMSIG(status) not in (signal.SIGKILL, signal.SIGTERM)
    return True if too_slow else os.WEXITSTATUS(status) != CLEAN_END


CLEAN_END = 0x54
"""The exit status of a worker that ended because of SIGTERM; a handler's own `os._exit(0)` is told from it."""


def cause(status: int, too_slow: bool = False) -> str:
    """`was killed by SIGKILL`, `exited with status 3`."""
    if too_slow:
        return "was not ready in time and was killed"
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    code = os.WEXITSTATUS(status)
    return "ended on SIGTERM" if code == CLEAN_END else f"exited with status {code}"


def runtime_error(status: int) -> str:
    """Lambda's words: `Runtime exited with error: signal: killed`."""
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"Runtime exited with error: signal: {_NAMES.get(name, name)}"
    code = os.WEXITSTATUS(status)
    return f"Runtime exited with error: exit status {code}" if code else "Runtime exited without providing a reason"


def log(spec: PoolSpec, member: Member, status: int, request_id: str) -> None:
    """End the dead worker's request in its log file. Never raises: the pool matters more than its log."""
    took_ms = (time.monotonic_ns() - member.fields[Field.BUSY_SINCE]) / 1e6
    report = report_line(request_id, took_ms, spec.memory_mb, 0).replace("\tMax Memory Used: 0 MB", "")
    if member.timed_out:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        why = f"{stamp}.000Z {request_id} Task timed out after {spec.timeout_s:.2f} seconds"
        lines = [why, f"END RequestId: {request_id}", f"{report}Status: timeout"]
    else:
        why = f"RequestId: {request_id} Error: {runtime_error(status)}"
        lines = [
            why,
            "Runtime.ExitError",
            f"END RequestId: {request_id}",
            f"{report}Status: error\tError Type: Runtime.ExitError",
        ]
    if not member.fields[Field.START_LOGGED]:
        lines.insert(0, f"START RequestId: {request_id} Version: {spec.release}")
    append(log_path(spec, member.index), lines)


def log_path(spec: PoolSpec, worker: int) -> Path:
    """A worker's log file."""
    return Path(spec.log_dir) / f"w{worker}.log"


def append(path: Path, lines: list[str]) -> None:
    """Add lines, stamped, to a log file that another process may be writing too."""
    now = time.time()
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
    text = "".join(f"{stamp}\t{line}\n" for line in lines)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, text.encode("utf-8", "backslashreplace"))
        finally:
            os.close(fd)
    except OSError:
        pass
