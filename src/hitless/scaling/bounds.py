"""The limits of a pool: those of a function, in Lambda's words, and the memory of all workers of an engine. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hitless.service.model import Function
from hitless.service.settings import MAX_WORKERS

WAITING_PER_WORKER: Final = 2
"""Lambda throttles at once; a moment's wait saves a client that would only come again."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Fewest and most workers, and the share of them in per cent that is to be at work."""

    least: int
    most: int
    target_percent: int

    @property
    def fixed(self) -> bool:
        """There is nothing to decide."""
        return self.least == self.most

    def clamp(self, workers: int) -> int:
        """The number within the limits that is nearest."""
        return min(max(workers, self.least), self.most)


def bounds_of(function: Function) -> Bounds:
    """`workers` with what Lambda calls provisioned concurrency (always warm: at least so many) and reserved concurrency
    (never more). Reserved concurrency 0 lets nothing through; one worker stands all the same, to be proved by a deploy.
    """
    least = max(function.workers, function.provisioned_concurrency)
    most = max(function.max_workers or function.workers, least, 1)
    if function.reserved_concurrency is not None:
        most = min(most, max(function.reserved_concurrency, 1))
    most = min(most, MAX_WORKERS)
    return Bounds(min(least, most), most, function.target_percent)


def throttle_of(function: Function) -> int:
    """At so many requests in hand the next is answered 429: as many as may run, and twice as many that wait for them.

    0 where concurrency is not reserved: then requests wait for as long as the gateway lets them.
    """
    reserved = function.reserved_concurrency
    return 0 if reserved is None else reserved * (1 + WAITING_PER_WORKER) + 1


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
