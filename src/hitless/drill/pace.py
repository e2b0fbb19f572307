"""When each request is due and which one it is: pure arithmetic, the same in every process of a drill.

Open loop: request n is due n / rate seconds after the start, whether or not earlier ones were answered. A stall of
the service therefore cannot slow the load that measures it. Instants are whole nanoseconds from exact fractions: hours
of load do not drift, and the number of requests is known before the first is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

NANOSECONDS = 1_000_000_000
MAX_RATE_PER_S = 100_000
MAX_DURATION_S = 86_400
_GOLDEN_32 = 2_654_435_769  # 2^32 divided by the golden ratio: successive multiples fill the circle evenly
_CIRCLE = 1 << 32


@dataclass(frozen=True, slots=True)
class Pace:
    """A constant rate. `period_ns = numerator / denominator`, kept exact."""

    numerator: int
    denominator: int

    @classmethod
    def of_rate(cls, rate_per_s: float) -> Pace:
        """The pace of `rate_per_s` requests a second (decimal fractions are taken as written: 0.1 is a tenth)."""
        period = Fraction(NANOSECONDS) / Fraction(str(rate_per_s))
        return cls(period.numerator, period.denominator)

    def due_ns(self, n: int) -> int:
        """Nanoseconds after the start at which request n (from 0) is due."""
        return n * self.numerator // self.denominator

    def count(self, elapsed_ns: int) -> int:
        """How many requests are due before `elapsed_ns` after the start: the n of the next one at or after it."""
        return max(0, -((-elapsed_ns * self.denominator) // self.numerator))


def total(rate_per_s: float, duration_s: float) -> int:
    """Requests of a drill of that rate and length: 2000/s for 60 s is 120,000 exactly."""
    return max(1, int(Fraction(str(rate_per_s)) * Fraction(str(duration_s))))


def share_of(first: int, stride: int, end: int) -> int:
    """How many of the requests 0 … end - 1 fall to the sender that sends first, first + stride, …"""
    return max(0, (end - first + stride - 1) // stride)


def opens_connection(n: int, percent: float) -> bool:
    """Whether request n goes on a new connection of its own, closed after the answer; so do `percent` of all.

    Spread by the golden ratio, so that the choice never falls into step with the order of the requests.
    """
    return (n * _GOLDEN_32) % _CIRCLE < percent * _CIRCLE / 100


def interleave(weights: Sequence[int]) -> tuple[int, ...]:
    """The order of one round: index i appears weights[i] times, each as evenly spread as it can be."""
    places = [((turn + 0.5) / weight, index) for index, weight in enumerate(weights) for turn in range(weight)]
    return tuple(index for _, index in sorted(places))
