"""A build's processes, found by their parents in /proc, and ended together.

A process that left its session still has its parent; one whose parent ended becomes a child of the nearest subreaper.
Linux only. Elsewhere a build is ended by its process group, and its memory is not limited.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from hitless.worker.memory import family
from hitless.worker.process import start_time

_PR_SET_PDEATHSIG = 1
_PROC = Path("/proc")
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """In a child before exec: let the kernel end it when the thread that started it ends."""
    if _PROC.is_dir():
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def input_ended(wait_s: float = 0.0) -> bool:
    """Whether standard input is closed within `wait_s` seconds: the caller no longer waits for this process."""
    return bool(select.select([0], [], [], wait_s)[0]) and not os.read(0, 1)


def reap() -> set[int]:
    """Reap the children that have ended, including adopted orphans. Returns their ids."""
    found: set[int] = set()
    with suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            found.add(pid)
    return found


def end_all(group: int, ancestor: int) -> None:
    """SIGKILL the process group and all descendants of `ancestor`, repeatedly until none is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    for _ in range(50):  # each pass finds processes that were forked during the previous pass
        # Twice, because the kernel's list of children may be incomplete while one of them ends.
        left = [pid for _ in range(2) for pid in family(ancestor)[1:] if start_time(pid)]
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def end_user(uid: int) -> None:
    """SIGKILL all processes of that user at once, even one that forks faster than /proc can be read. Requires root."""
    if uid == 0:
        raise ValueError("refusing to end all processes of root")
    args = [sys.executable, "-I", "-S", "-c", "import os; os.kill(-1, 9)"]  # kill(2): all but itself
    subprocess.run(  # without our environment, which the user's processes could read
        args, user=uid, group=uid, extra_groups=[], env={}, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
