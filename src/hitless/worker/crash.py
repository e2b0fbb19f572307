"""Handles a worker's death: names the cause, ends its request's log as Lambda does, and delays the next fork."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hitless.worker.handler import EXIT_ERROR, runtime_error
from hitless.worker.invocation import memory_text, report_line
from hitless.worker.process import open_log
from hitless.worker.spec import PoolSpec

OUT_OF_MEMORY: Final = "Runtime.OutOfMemory"


def own_fault(status: int, *, timed_out: bool, fault: str = "") -> bool:
    """Whether the handler caused the death. SIGKILL and a clean end after SIGTERM do not count without a `fault`."""
    if timed_out or fault:
        return not timed_out
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) not in (signal.SIGKILL, signal.SIGTERM)
    return os.WEXITSTATUS(status) not in _CLEAN


TOO_SLOW: Final = "was not ready in time and was killed"


EXIT_ON_SIGTERM = 0x54
"""The exit status of a worker that ended because of SIGTERM; differs from a handler's own `os._exit(0)`."""
EXIT_OUT_OF_DESCRIPTORS = 0x55
"""The exit status of a worker that ended between two requests because the handler had used up its descriptors."""
_CLEAN = {
    EXIT_ON_SIGTERM: "ended on SIGTERM",
    EXIT_OUT_OF_DESCRIPTORS: "ended because its handler keeps all descriptors open (ulimit -n)",
}


def death_cause(status: int, fault: str = "") -> str:
    """The cause in words, such as `was killed by SIGKILL` or `exited with status 3`; the `fault` if there is one."""
    if fault:
        return fault
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    code = os.WEXITSTATUS(status)
    return _CLEAN.get(code) or f"exited with status {code}"


@dataclass(frozen=True, slots=True)
class Death:
    """A worker's death during a request. `start_logged`: the log has its START line. `too_large`: for its memory."""

    status: int
    request_id: str
    took_ms: float
    timed_out: bool
    start_logged: bool
    too_large: bool = False


def log_lines(spec: PoolSpec, death: Death) -> list[str]:
    """The last log lines of the request, as Lambda writes them."""
    request_id = death.request_id
    used_mb = spec.memory_mb if death.too_large else None
    report = report_line(request_id, death.took_ms, memory_text(spec.memory_mb, used_mb))
    if death.timed_out:
        why = [f"{_instant()} {request_id} Task timed out after {spec.timeout_s:.2f} seconds"]
        how = "Status: timeout"
    else:
        why = [f"RequestId: {request_id} Error: {runtime_error(death.status)}", EXIT_ERROR]
        how = f"Status: error\tError Type: {OUT_OF_MEMORY if death.too_large else EXIT_ERROR}"
    start = [] if death.start_logged else [f"START RequestId: {request_id} Version: {spec.release}"]
    return [*start, *why, f"END RequestId: {request_id}", f"{report}{how}"]


def log_path(spec: PoolSpec, worker: int) -> Path:
    """A worker's log file."""
    return Path(spec.log_dir) / f"w{worker}.log"


def append(path: Path, lines: list[str]) -> None:
    """Append lines with timestamps to a log file to which another process may be writing."""
    stamp = _instant()
    text = "".join(f"{stamp}\t{line}\n" for line in lines)
    try:
        fd = open_log(path)
        try:
            os.write(fd, text.encode("utf-8", "backslashreplace"))
        finally:
            os.close(fd)
    except OSError:
        pass


def _instant() -> str:
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"


FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 10.0
WINDOW_S: Final = 2.0
DEATHS_IN_WINDOW: Final = 50
"""25 forks a second cost a few percent of a core; killing workers by hand or in a drill stays below that."""
HEALTHY_AFTER_S: Final = 30.0
"""The history of a worker that lived this long is cleared."""


@dataclass(frozen=True, slots=True)
class DeathHistory:
    """A worker's earlier deaths: how many in a row were its own fault, and when the latest were (monotonic seconds)."""

    failures: int = 0
    deaths_s: tuple[float, ...] = field(default=())


def backoff_after_death(
    history: DeathHistory, *, now_s: float, lived_s: float, by_itself: bool, alone: bool
) -> tuple[DeathHistory, float]:
    """The history with this death, and the seconds to wait before the next fork (0: at once). Pure.

    A worker killed from outside (SIGKILL by an operator, a drill or the kernel) is replaced at once, unless there are
    many deaths in a short window. One that dies by its own fault is replaced at once the first time, then waits twice
    as long each time: its next request would probably kill it again, and each death costs a response. `alone`: no other
    worker of the pool runs; then the wait is short, so that a crash loop does not take the pool down.
    """
    recent = (*(at for at in history.deaths_s if now_s - at < WINDOW_S), now_s)
    failures = 0 if lived_s >= HEALTHY_AFTER_S else history.failures
    too_many = len(recent) >= DEATHS_IN_WINDOW
    if not by_itself and not too_many:
        return DeathHistory(failures, recent), 0.0
    if not failures and not too_many:
        return DeathHistory(1, recent), 0.0
    delay = min(FIRST_DELAY_S * 2 ** min(max(failures - 1, 0), 16), LONGEST_DELAY_S)
    return DeathHistory(failures + 1, recent), min(delay, FIRST_DELAY_S) if alone else delay
