"""Measures the memory of worker processes and their waits for a CPU. Read from `/proc`, so Linux only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hitless.worker.memory import family, kib

_PROC: Final = Path("/proc")
_CGROUP_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def share_mb(pid: int) -> float | None:
    """A process's PSS in MiB: its own pages, and its part of those that forks share. None if the process is gone or the
    system does not report it. Takes the kernel a millisecond.
    """
    return kib(f"{pid}/smaps_rollup", "Pss:") / 1024 or None


def mean_share_mb(pids: Iterable[int]) -> float | None:
    """The mean of these processes, each with its descendants, such as a custom runtime's program; None if none could
    be read.
    """
    shares = [
        share + sum(share_mb(child) or 0 for child in family(pid)[1:])
        for pid in pids
        if (share := share_mb(pid)) is not None
    ]
    return sum(shares) / len(shares) if shares else None


def machine_mb() -> int | None:
    """The memory of this machine, or of its cgroup's limit, in MiB."""
    found = [kib("meminfo", "MemTotal:") // 1024 or None, *map(_limit_mb, _CGROUP_LIMITS)]
    return min((each for each in found if each is not None), default=None)


def _limit_mb(path: str) -> int | None:
    try:
        return int(Path(path).read_text()) >> 20  # "max" is not a number: no limit
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class ProcessorWaits:
    """CPU waits of some processes since their start: nanoseconds, and how often they got a CPU."""

    ns: int = 0
    times: int = 0

    def mean_us(self, since: ProcessorWaits) -> float:
        """The mean wait since that earlier reading; 0 if unknown."""
        times, ns = self.times - since.times, self.ns - since.ns
        return ns / times / 1000 if times > 0 and ns > 0 else 0.0


NO_WAITS: Final = ProcessorWaits()


def read_waits(pids: Iterable[int], proc: Path = _PROC) -> ProcessorWaits:
    """Their sum from /proc/PID/schedstat (second and third field); 0 if the system has no such count."""
    ns = times = 0
    for pid in pids:
        try:
            _, waited, got = (proc / str(pid) / "schedstat").read_text().split()
        except (OSError, ValueError):  # it has ended, or this is not Linux
            continue
        ns, times = ns + int(waited), times + int(got)
    return ProcessorWaits(ns, times)
