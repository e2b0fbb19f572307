"""Processes as the operating system reports them: identity, locks, and reasons that make forking unsafe.

Uses `/proc` if it exists; every function works without it. Standard library only.
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
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

PRIVATE: Final[set[int]] = set()
"""Descriptors that only `fork` passes on: a process that a handler starts by `os.fork` would keep them forever."""

_new_mode = 0o600
_PR_SET_CHILD_SUBREAPER: Final = 36
_PROC_FDS = Path("/proc/self/fd")
_PROC_TASKS = Path("/proc/self/task")


def start_time(pid: int) -> int:
    """When a process started, as an opaque number that distinguishes processes with the same pid; 0 if there is none.

    Field 22 of /proc/PID/stat (clock ticks since boot); elsewhere a hash of the output of `ps`.
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
    """Send a signal if the pid is still the process that started then; False if it is gone.

    With `group` the process's own group gets it too, so that processes of the handler do not outlive its worker.
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
    """`os.fork` for a child of ours, which inherits the PRIVATE descriptors."""
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
    """Make this process the parent of its descendants' orphans, as `end_children` needs it. Linux only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """SIGKILL every child of this process, and the orphans that it then adopts, until none is left."""
    with suppress(OSError):  # not Linux, or a child that it may not kill
        while pids := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            for pid in map(int, pids):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def join_share(share: Mapping[str, str | int]) -> None:
    """Take part in a service's processor time: enter its control `group`, or give the session that this process leads
    its `nice` value. Raises OSError.
    """
    if group := share.get("group"):
        Path(f"{group}/cgroup.procs").write_text("0")
    while nice := share.get("nice"):
        try:
            Path("/proc/self/autogroup").write_text(str(nice))
            return
        except BlockingIOError:  # without CAP_SYS_ADMIN, Linux accepts one change on the machine in 0.1 s
            time.sleep(0.02)


def notice_signals() -> None:
    """Run the handlers of signals that arrived while compiled code ran: the interpreter does so when a function that
    is not compiled begins.
    """


def take_lock(path: Path) -> int:
    """Lock a file while this process, or a child by `fork`, lives. Raises OSError if it is locked."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    PRIVATE.add(fd)
    return fd


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock. A missing file is not locked."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two processes that check do not see each other
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def open_new_files_to_the_engine() -> None:
    """From now on new sockets and logs of this process have mode 0666: the engine's user, who is neither root nor this
    process's user, uses them. Only the two users can enter their folders.
    """
    global _new_mode
    _new_mode = 0o666


def new_mode() -> int:
    """The mode of new sockets and logs."""
    return _new_mode


def open_log(path: Path) -> int:
    """Open a log for appending, which the engine's user can read and continue. Raises OSError, also for a link."""
    mode = new_mode()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, mode)
    if mode != 0o600:
        with suppress(OSError):  # its owner, the engine's user, has done so
            os.fchmod(fd, mode)
    return fd


def open_sockets() -> frozenset[int]:
    """The descriptors of this process that are sockets."""
    candidates = (int(name) for name in os.listdir(_PROC_FDS)) if _PROC_FDS.exists() else range(3, 1024)
    return frozenset(fd for fd in candidates if _is_socket(fd))


def why_forking_is_unsafe(sockets_before: frozenset[int]) -> str | None:
    """After the import of a handler: why forks of this process would harm each other, or None.

    A child does not have the parent's threads, but has their locks; forks that share a connected socket read each
    other's data. `sockets_before` are this process's own, from before the import.
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
