"""What is asked of the operating system about processes: identity, locks, what makes forking unsafe.

`/proc` is used where it exists; every function has an answer without it. Standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import stat
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

PRIVATE: Final[set[int]] = set()
"""Descriptors that only `fork` hands on: a daemon that a handler starts by `os.fork` would keep them for ever."""

_PR_SET_CHILD_SUBREAPER: Final = 36
_PROC_FDS = Path("/proc/self/fd")
_PROC_TASKS = Path("/proc/self/task")


def start_time(pid: int) -> int:
    """When a process started, as an opaque number that tells two processes of one pid apart; 0 when there is none.

    Field 22 of /proc/PID/stat (clock ticks since boot); elsewhere a hash of what `ps` prints.
    """
    if _PROC_TASKS.exists():
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return 0
        fields = text.rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return sum(byte << (index % 40) for index, byte in enumerate(shown.strip().encode()))


def signal_verified(pid: int, started: int, number: signal.Signals, *, group: bool = False) -> bool:
    """Send a signal only if the pid still is the process that started then; False when it is gone.

    With `group` the process's own group gets it too: what a handler started does not outlive its worker.
    """
    if pid <= 1 or start_time(pid) != started or not started:
        return False
    try:
        if group and os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def fork() -> int:
    """As `os.fork`, for a child of ours: it inherits what is PRIVATE."""
    kept = frozenset(PRIVATE)
    PRIVATE.clear()
    try:
        return os.fork()
    finally:  # in both processes
        PRIVATE.update(kept)


def _close_private() -> None:
    for fd in PRIVATE:
        with suppress(OSError):
            os.close(fd)
    PRIVATE.clear()


os.register_at_fork(after_in_child=_close_private)


def adopt_orphans() -> None:
    """What descendants leave behind becomes a child of this process from now on, for `end_children`. Linux only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """SIGKILL every child of this process, then what it adopts by that, until none is left."""
    with suppress(OSError):  # no Linux, which lists them, or a child that it may not kill
        while pids := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            for pid in map(int, pids):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def take_lock(path: Path) -> int:
    """Flock a file while this process, or a child by `fork`, lives. Raises OSError if it is held."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    PRIVATE.add(fd)
    return fd


def is_locked(path: Path) -> bool:
    """Whether some living process holds the lock. A missing file is held by nobody."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look are not each other's engine
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def open_sockets() -> frozenset[int]:
    """The descriptors of this process that are sockets."""
    candidates = (int(name) for name in os.listdir(_PROC_FDS)) if _PROC_FDS.exists() else range(3, 1024)
    return frozenset(fd for fd in candidates if _is_socket(fd))


def why_forking_is_unsafe(sockets_before: frozenset[int]) -> str | None:
    """After the import of a handler: the reason why forks of this process would harm each other, or None.

    A thread does not exist in a child, though the locks that it holds do; forks that share a connected socket read
    each other's answers. `sockets_before` are this process's own, from before the import.
    """
    threads = len(os.listdir(_PROC_TASKS)) if _PROC_TASKS.exists() else threading.active_count()
    if threads > 1:
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        told = ", ".join(names) or "started by an extension"
        return f"{threads - 1} thread(s) run after the import of the handler ({told})"
    connected = [fd for fd in open_sockets() - sockets_before if _peer(fd) is not None]
    if connected:
        peers = ", ".join(sorted({_peer(fd) or "?" for fd in connected}))
        return f"{len(connected)} connected socket(s) after the import of the handler ({peers})"
    return None


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def _peer(fd: int) -> str | None:
    try:
        with socket.socket(fileno=os.dup(fd)) as copy:
            return str(copy.getpeername() or "a socket pair")
    except OSError:
        return None
