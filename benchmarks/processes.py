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
    """The processes of these pids and of all their descendants."""
    return [_read(pid) for pid in sorted(set(descendants(roots, _parents())))]


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


def pss_mib(rollup: str) -> float:
    """The PSS that /proc/PID/smaps_rollup shows, in MiB."""
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


def cpu_ticks(stat: str) -> int:
    """User and system time that /proc/PID/stat shows (fields 14 and 15), in clock ticks."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has just ended
    return found


def _read(pid: int) -> Process:
    folder = _PROC / str(pid)
    name = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return Process(
        pid,
        name,
        pss_mib((folder / "smaps_rollup").read_text()),
        cpu_ticks((folder / "stat").read_text()) / os.sysconf("SC_CLK_TCK"),
    )
