"""The limits of a function's number of workers, in Lambda's words: pure."""

from __future__ import annotations

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
