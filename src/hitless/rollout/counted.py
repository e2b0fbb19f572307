"""Requests counted by the gateway, by pool, function and status class; counts can be added and subtracted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from hitless.gateway.counts import CLASSES, HANDED_OVER, Counts
from hitless.release.receipt import ClassCounts, ReleaseCounts, SavedCounts, Sums

NOTHING: Final = SavedCounts(0, 0, 0, {}, 0)


class PoolId(NamedTuple):
    """A pool of workers; its key is never used again."""

    function: str
    key: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Requests of some pools, as the gateway counted them: their sum, and those of each pool."""

    total: ClassCounts
    pools: Mapping[PoolId, SavedCounts]

    @classmethod
    def of(cls, pools: Mapping[PoolId, SavedCounts]) -> Counted:
        """Those pools with their sum."""
        return cls(_sum(pools.values()), dict(pools))

    def minus(self, earlier: Counted) -> Counted:
        """The requests since an earlier reading. Pools that are not in the earlier reading count in full."""
        return Counted.of({pool: _less(part, earlier.pools.get(pool, NOTHING)) for pool, part in self.pools.items()})

    def without(self, candidate: Counted) -> Counted:
        """A live release's own requests, without those that it answered because the candidate failed. They count as the
        candidate's, so that each client request is counted once.
        """
        given: dict[str, Counter[str]] = defaultdict(Counter)
        for pool, part in candidate.pools.items():
            given[pool.function].update(part.handed_over)
        return Counted.of({pool: _without(part, given.pop(pool.function, {})) for pool, part in self.pools.items()})

    def sums(self) -> Sums:
        """The three numbers of every summary."""
        return Sums(self.total.requests, self.total.failed, self.total.shielded)

    def by_function(self) -> ReleaseCounts:
        """The document for users: the sums, and those of each function."""
        functions = {name: _sum(pools.values()) for name, pools in self.saved().items()}
        return ReleaseCounts(**msgspec.structs.asdict(self.total), functions=functions)

    def saved(self) -> dict[str, dict[str, SavedCounts]]:
        """Function → pool's key → counts, for `restored`."""
        grouped: dict[str, dict[str, SavedCounts]] = {}
        for pool, part in self.pools.items():
            grouped.setdefault(pool.function, {})[pool.key] = part
        return grouped

    @classmethod
    def restored(cls, saved: Mapping[str, Mapping[str, SavedCounts]]) -> Counted:
        """The inverse of `saved`."""
        return cls.of({PoolId(name, key): part for name, pools in saved.items() for key, part in pools.items()})


def pool_counts(now: Counts, before: Counts = MappingProxyType({})) -> SavedCounts:
    """One pool's counts between two readings of the gateway. A negative number (the gateway was restarted, or lost its
    record) counts as 0 and as a restart.
    """
    since = Counter(now)
    since.subtract(before)
    handed_over = {name: since[HANDED_OVER + name] for name in ("requests", *CLASSES)}
    return SavedCounts(
        max(0, since["requests"]),
        # not the pool's minus the shielded: a worker that dies on a connection in use gives its shield no response
        max(0, since["5xx"] - since["tried_5xx"] + since["shield_5xx"]),
        max(0, handed_over["requests"] - handed_over["5xx"]),
        {name: since[name] for name in CLASSES if since[name] > 0},
        max(0, since["restarts"], int(since["requests"] < 0)),
        {name: number for name, number in handed_over.items() if number > 0},
    )


def _sum(parts: Collection[SavedCounts]) -> ClassCounts:
    """All pools share one HAProxy, so its restarts are not added up."""
    return ClassCounts(
        sum(part.requests for part in parts),
        sum(part.failed for part in parts),
        sum(part.shielded for part in parts),
        {name: total for name in CLASSES if (total := sum(part.by_class.get(name, 0) for part in parts))},
        max((part.restarts for part in parts), default=0),
    )


def _without(part: SavedCounts, handed_over: Mapping[str, int]) -> SavedCounts:
    return msgspec.structs.replace(
        part,
        requests=max(0, part.requests - handed_over.get("requests", 0)),
        failed=max(0, part.failed - handed_over.get("5xx", 0)),
        by_class=_difference(part.by_class, handed_over),
    )


def _less(part: SavedCounts, earlier: SavedCounts) -> SavedCounts:
    return SavedCounts(
        max(0, part.requests - earlier.requests),
        max(0, part.failed - earlier.failed),
        max(0, part.shielded - earlier.shielded),
        _difference(part.by_class, earlier.by_class),
        max(0, part.restarts - earlier.restarts, int(part.requests < earlier.requests)),
        _difference(part.handed_over, earlier.handed_over),
    )


def _difference(numbers: Mapping[str, int], earlier: Mapping[str, int]) -> dict[str, int]:
    return {name: max(0, number - earlier.get(name, 0)) for name, number in numbers.items()}
