"""Requests counted by the gateway, by pool, function and status class; counts can be added and subtracted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hitless.gateway.counts import PoolCounts
from hitless.release.receipt import ClassCounts, ReleaseCounts, SavedCounts, Sums

CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "other")


class PoolId(NamedTuple):
    """A pool of workers; its key is never used again."""

    function: str
    key: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Requests of some pools, as the gateway counted them.

    `failed` are those that a client saw fail; `shielded` those that these pools failed and the live release answered.
    `by_class` are answers by status class (`2xx` …); requests in hand, and those whose client left, have none.
    `handed_over`: how many of them the live release was then asked, and its answers by class, as `requests`, `2xx` ….
    `restarts`: how often HAProxy was restarted meanwhile; its counts since its last reading are missing.
    """

    requests: int
    failed: int
    shielded: int = 0
    by_class: Mapping[str, int] = field(default_factory=dict, compare=False)
    restarts: int = field(default=0, compare=False)
    pools: Mapping[PoolId, Counted] = field(default_factory=dict, compare=False)
    handed_over: Mapping[str, int] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, pools: Mapping[PoolId, Counted]) -> Counted:
        """The sum of several pools. All share one HAProxy, so its restarts are not added up."""
        parts = pools.values()
        return cls(
            sum(part.requests for part in parts),
            sum(part.failed for part in parts),
            sum(part.shielded for part in parts),
            {name: total for name in CLASSES if (total := sum(part.by_class.get(name, 0) for part in parts))},
            max((part.restarts for part in parts), default=0),
            dict(pools),
        )

    @classmethod
    def of_counts(cls, counts: PoolCounts) -> Counted:
        """One pool's counts. Negative numbers (the gateway was restarted, or lost its record) count as none and as a
        restart.
        """
        by_class = {name: number for name in CLASSES if (number := max(0, counts.by_class.get(name, 0)))}
        return cls(
            max(0, counts.requests),
            max(0, counts.failed),
            max(0, counts.shielded),
            by_class,
            max(0, counts.restarts, int(counts.requests < 0)),
            handed_over={name: number for name, number in counts.handed_over.items() if number > 0},
        )

    def minus(self, earlier: Counted) -> Counted:
        """The requests since an earlier reading. Pools that are not in the earlier reading count in full."""
        return Counted.of({pool: part._less(earlier.pools.get(pool, NOTHING)) for pool, part in self.pools.items()})

    def without(self, candidate: Counted) -> Counted:
        """A live release's own requests, without those that it answered because the candidate failed: these are the
        candidate's, so that each request of a client counts once.
        """
        given: dict[str, Counter[str]] = {}
        for pool, part in candidate.pools.items():
            given.setdefault(pool.function, Counter()).update(part.handed_over)
        return Counted.of({pool: part._without(given.pop(pool.function, {})) for pool, part in self.pools.items()})

    def sums(self) -> Sums:
        """The three numbers of every summary."""
        return Sums(self.requests, self.failed, self.shielded)

    def by_function(self) -> ReleaseCounts:
        """For people: the sums, and those of each function."""
        functions = dict.fromkeys(pool.function for pool in self.pools)
        return ReleaseCounts(
            *self._counts(),
            functions={
                name: ClassCounts(*Counted.of({p: c for p, c in self.pools.items() if p.function == name})._counts())
                for name in functions
            },
        )

    def saved(self) -> dict[str, dict[str, SavedCounts]]:
        """Function → pool's key → counts, for `restored`."""
        grouped: dict[str, dict[str, SavedCounts]] = {}
        for pool, part in self.pools.items():
            grouped.setdefault(pool.function, {})[pool.key] = SavedCounts(*part._counts(), part.handed_over)
        return grouped

    @classmethod
    def restored(cls, saved: Mapping[str, Mapping[str, SavedCounts]]) -> Counted:
        """The inverse of `saved`."""
        return cls.of(
            {
                PoolId(function, key): cls(
                    *(one.requests, one.failed, one.shielded, one.by_class, one.restarts), handed_over=one.handed_over
                )
                for function, pools in saved.items()
                for key, one in pools.items()
            }
        )

    def _counts(self) -> tuple[int, int, int, Mapping[str, int], int]:
        return self.requests, self.failed, self.shielded, self.by_class, self.restarts

    def _without(self, handed_over: Mapping[str, int]) -> Counted:
        return replace(
            self,
            requests=max(0, self.requests - handed_over.get("requests", 0)),
            failed=max(0, self.failed - handed_over.get("5xx", 0)),
            by_class={name: max(0, number - handed_over.get(name, 0)) for name, number in self.by_class.items()},
        )

    def _less(self, earlier: Counted) -> Counted:
        return Counted(
            max(0, self.requests - earlier.requests),
            max(0, self.failed - earlier.failed),
            max(0, self.shielded - earlier.shielded),
            {name: max(0, number - earlier.by_class.get(name, 0)) for name, number in self.by_class.items()},
            max(0, self.restarts - earlier.restarts, int(self.requests < earlier.requests)),
            handed_over={
                name: max(0, number - earlier.handed_over.get(name, 0)) for name, number in self.handed_over.items()
            },
        )


NOTHING = Counted(0, 0)
