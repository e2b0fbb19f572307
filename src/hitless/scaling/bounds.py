"""A pool's limits (bounds): those of its function, as Lambda has them, and the memory budget of all workers. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from hitless.service.model import Function
from hitless.service.settings import MAX_WORKERS

WAITING_PER_WORKER: Final = 2
"""Requests that may wait per worker. Lambda throttles at once; a short wait here saves the client a retry."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The minimum and maximum number of workers, and the percentage of them that should be busy."""

    least: int
    most: int
    target_percent: int

    @property
    def fixed(self) -> bool:
        return self.least == self.most

    def clamp(self, workers: int) -> int:
        return min(max(workers, self.least), self.most)


def bounds_of(function: Function) -> Bounds:
    """The limits from `workers`, provisioned concurrency (at least this many) and reserved concurrency (never more).

    Reserved concurrency 0 lets no request through; one worker runs nevertheless, because a deploy tests it.
    """
    least = max(function.workers, function.provisioned_concurrency)
    most = max(function.max_workers or function.workers, least, 1)
    if function.reserved_concurrency is not None:
        most = min(most, max(function.reserved_concurrency, 1))
    most = min(most, MAX_WORKERS)
    return Bounds(min(least, most), most, function.target_percent)


def throttle_of(function: Function) -> int:
    """The number of requests in progress above which the next gets 429: those that may run, and twice as many waiting.

    0 if concurrency is not reserved: then requests wait up to the gateway's limit.
    """
    reserved = function.reserved_concurrency
    return 0 if reserved is None else reserved * (1 + WAITING_PER_WORKER) + 1


SHARE_OF_MACHINE: Final = 0.75
"""The budget without a setting. The rest is for HAProxy, the system and other processes."""

FIRST_GUESS_MB: Final = 16.0
"""The size of a worker that was not measured yet."""

LEAST_MB: Final = 2.0
"""The least memory to assume for a worker. Forks share nearly all of it at first; with 0, thousands could start."""


def taken_mb(workers: int, each_mb: float = FIRST_GUESS_MB) -> float:
    """The memory of that many workers with a mean share of `each_mb`."""
    return workers * max(each_mb, LEAST_MB)


def budget_mb(setting_mb: int | None, machine_mb: int | None) -> float | None:
    """The memory budget in MiB; None, no limit, if neither the setting nor the machine's size is known."""
    if setting_mb is not None:
        return setting_mb
    return None if machine_mb is None else machine_mb * SHARE_OF_MACHINE


def room_for(each_mb: float, budget: float | None, taken: float) -> int | None:
    """How many more workers of that size fit, in addition to the used MiB; at least 0, None without a limit."""
    if budget is None:
        return None
    return max(0, math.floor((budget - taken) / taken_mb(1, each_mb)))
