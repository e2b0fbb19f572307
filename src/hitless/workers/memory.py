"""What worker processes take of the machine's memory, and how much there is.

A worker's share is its PSS: pages that it has to itself, and its part of those that forks share. Linux tells both;
where nothing tells, the answers are None.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_CGROUP_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def share_mb(pid: int) -> float | None:
    """A process's PSS in MiB: a millisecond's work for the kernel. None where it is gone or nothing tells."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), None)


def mean_share_mb(pids: Iterable[int]) -> float | None:
    """Their mean; None where none of them could be asked."""
    shares = [share for pid in pids if (share := share_mb(pid)) is not None]
    return sum(shares) / len(shares) if shares else None


def machine_mb() -> int | None:
    """The memory of this machine, or of the cgroup that it is confined to, in MiB."""
    found = [_total_mb(), *map(_limit_mb, _CGROUP_LIMITS)]
    return min((each for each in found if each is not None), default=None)


def _total_mb() -> int | None:
    try:
        lines = (_PROC / "meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("MemTotal:")), None)


def _limit_mb(path: str) -> int | None:
    try:
        return int(Path(path).read_text()) >> 20  # "max" is no number, and no limit
    except (OSError, ValueError):
        return None
