"""Memory and CPU of process trees, out of /proc. Linux only.

PSS: each page counts in equal parts for all who share it, so the sum over an engine's processes is what it takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process, what it shows as its name, and what it takes now."""

    pid: int
    name: str
    pss_mib: float
    cpu_s: float


def measure(roots: Iterable[int]) -> list[Process]:
    """The processes of these pids and of all their descendants, but for those that have just ended."""
    read = (_read(pid) for pid in sorted(set(descendants(roots, parents()))))
    return [process for process in read if process is not None]


def cpu_s(roots: Iterable[int]) -> float:
    """Processor time of these processes, their descendants, and the descendants that have ended."""
    return sum(process.cpu_s for process in measure(roots))


def descendants(roots: Iterable[int], parents: Mapping[int, int]) -> Iterator[int]:
    """The roots and whatever descends from them. `parents`: pid → pid of its parent."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def workers_of(roots: Iterable[int]) -> int:
    """How many processes among these and their descendants are workers, by the name that they show."""
    return sum(command_of(pid).startswith(b"hitless: worker") for pid in descendants(roots, parents()))


def pss_mib(rollup: str) -> float:
    """The PSS that /proc/PID/smaps_rollup shows, in MiB."""
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


def cpu_ticks(stat: str) -> int:
    """User and system time that /proc/PID/stat shows, of the process and of its children that ended, in clock ticks."""
    return sum(map(int, stat.rpartition(")")[2].split()[11:15]))


def parents() -> dict[int, int]:
    """pid → pid of its parent, of all processes that run now."""
    found: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has just ended
    return found


def command_of(pid: int) -> bytes:
    """The process's command line as /proc has it; empty if it has just ended."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def _read(pid: int) -> Process | None:
    folder = _PROC / str(pid)
    try:
        name = command_of(pid).replace(b"\0", b" ").decode("utf-8", "replace").strip()
        rollup, stat = (folder / "smaps_rollup").read_text(), (folder / "stat").read_text()
    except OSError:
        return None
    if "Pss:" not in rollup:  # it is ending
        return None
    return Process(pid, name, pss_mib(rollup), cpu_ticks(stat) / os.sysconf("SC_CLK_TCK"))
