"""Measures what processes hold in memory. Linux only; elsewhere it is 0.

Counted are pages that the kernel cannot take back: not those of files. A worker's count includes the pages that it
shares with its zygote, because on Lambda each environment has its own. So `memorySize` does not depend on how many
workers share them. Pages that a worker shares with the processes of its handler count once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

MEASURE_ACTIVE_NS, LOOK_NS, MEASURE_IDLE_NS = 100_000_000, 1_000_000_000, 10_000_000_000
"""How often the memory of active workers is measured; how often an idle zygote looks for such workers, and how long
they count as active; how often the others are measured, because a handler can falsify its page.
"""
MEASURE_SHARE: Final = 20
"""At most one part in so many of a core measures memory: with 500 active workers, 100 ms apart, it took a third."""


def pause_ns(*, active: bool, spent_ns: int) -> int:
    """The time from one measurement of memory, which took so much processor time, to the next. Pure."""
    return max(MEASURE_ACTIVE_NS if active else LOOK_NS, spent_ns * MEASURE_SHARE)


def children(pid: int) -> list[int]:
    """A process's children, of all its threads."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def family(pid: int) -> list[int]:
    """A process and its descendants; the process first."""
    found = [pid]
    for each in found:
        found += children(each)
    return found


def held_mb(pids: Sequence[int], limit_mb: int) -> int:
    """The memory of processes in MB. Above the limit it is exact; below it, pages that forks share may count twice.

    A share takes the kernel a millisecond, and `status` a few microseconds.
    """
    held = [kib(f"{pid}/status", "RssAnon:", "RssShmem:", "VmSwap:") for pid in pids]
    if len(pids) > 1 and sum(held) > limit_mb << 10:
        shares = [kib(f"{pid}/smaps_rollup", "Pss_Anon:", "Pss_Shmem:", "SwapPss:") for pid in pids]
        return max(*held, sum(share or own for share, own in zip(shares, held, strict=True))) >> 10
    return sum(held) >> 10


def kib(file: str, *names: str) -> int:
    """The sum of these numbers in a file of /proc; 0 if it cannot be read, or does not have them."""
    with suppress(OSError):
        rows = map(str.split, Path("/proc", file).read_text().splitlines())
        return sum(int(row[1]) for row in rows if row and row[0] in names)
    return 0
