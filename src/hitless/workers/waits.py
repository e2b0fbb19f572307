"""How long workers had to wait for a processor: what makes a quick request look slow on a busy machine. Linux only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessorWaits:
    """Of some processes since they began: nanoseconds ready to run without a processor, and how often they got one."""

    ns: int = 0
    times: int = 0

    def mean_us(self, since: ProcessorWaits) -> float:
        """How long a process waited each time since that earlier reading; 0 where there is nothing to tell."""
        times, ns = self.times - since.times, self.ns - since.ns
        return ns / times / 1000 if times > 0 and ns > 0 else 0.0


NO_WAITS: Final = ProcessorWaits()


def read_waits(pids: Iterable[int], proc: Path = _PROC) -> ProcessorWaits:
    """Their sum out of /proc/PID/schedstat (second and third field); 0 where the system keeps no such count."""
    ns = times = 0
    for pid in pids:
        try:
            _, waited, got = (proc / str(pid) / "schedstat").read_text().split()
        except (OSError, ValueError):  # it has ended, or this is no Linux
            continue
        ns, times = ns + int(waited), times + int(got)
    return ProcessorWaits(ns, times)
