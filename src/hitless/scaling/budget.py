"""How much memory all workers of an engine may take together, and how many more of a pool's that leaves: pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SHARE_OF_MACHINE: Final = 0.75
"""Without a setting; the rest is for HAProxy, the system and whatever else runs."""

FIRST_GUESS_MB: Final = 16.0
"""Of a worker that nobody has measured."""

LEAST_MB: Final = 2.0
"""Forks share nearly all at first; counting them as nothing would let thousands start."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One pool: how many workers, and the mean share in MiB of one."""

    workers: int
    each_mb: float = FIRST_GUESS_MB

    @property
    def total_mb(self) -> float:
        """All of them."""
        return self.workers * max(self.each_mb, LEAST_MB)


def budget_mb(setting_mb: int | None, machine_mb: int | None) -> float | None:
    """What there is to spend in MiB; None, no limit, where neither a setting nor the machine says."""
    if setting_mb is not None:
        return setting_mb
    return None if machine_mb is None else machine_mb * SHARE_OF_MACHINE


def room_for(each_mb: float, budget: float | None, taken: Iterable[Taken]) -> int | None:
    """How many more workers of that size fit; None where there is no limit. Not negative."""
    if budget is None:
        return None
    left_mb = budget - sum(pool.total_mb for pool in taken)
    return max(0, math.floor(left_mb / max(each_mb, LEAST_MB)))
