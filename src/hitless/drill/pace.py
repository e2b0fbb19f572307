"""When each request is due, and which one it is. Pure arithmetic, the same in every process of a drill.

Open loop: request n is due when the rate, summed over time, reaches n, whether or not earlier ones got a response. A
stall of the service therefore cannot slow the load that measures it. Instants are whole nanoseconds. If the rate is
constant they come from exact fractions, so that load does not drift and the number of requests is known in advance.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from hitless.errors import UsageError

NANOSECONDS = 1_000_000_000
MAX_RATE_PER_S = 100_000
MAX_DURATION_S = 86_400
PROFILE_EXAMPLES = "ramp:50:3000 (over the whole drill), ramp:50:3000@5-25, step:50:3000@10, step:50:3000@10-40"
_DECIMAL = r"\d+(?:\.\d{1,6})?"
_PROFILE = re.compile(
    rf"(?P<kind>ramp|step):(?P<low>{_DECIMAL}):(?P<high>{_DECIMAL})(?:@(?P<start>{_DECIMAL})(?:-(?P<end>{_DECIMAL}))?)?",
    re.ASCII,
)
BLOCK = 1024
"""Poisson arrivals are drawn in blocks of this size, so that each sender can compute any request's instant."""
_GOLDEN_32 = 2_654_435_769  # 2^32 divided by the golden ratio: successive multiples fill the circle evenly
_CIRCLE = 1 << 32


@dataclass(frozen=True, slots=True)
class Piece:
    """From `start_s` on the rate goes from `from_per_s` to `to_per_s` within `span_s`; if both are equal it stays.

    A rate that changes stays at `to_per_s` after the span. Decimal fractions are taken as written: 0.1 is a tenth.
    """

    start_s: float
    from_per_s: float
    to_per_s: float
    span_s: float = 0.0


Pieces = tuple[Piece, ...]


def constant(rate_per_s: float) -> Pieces:
    return (Piece(0.0, rate_per_s, rate_per_s),)


def most_per_s(pieces: Pieces) -> float:
    """The greatest rate of all."""
    return max(max(piece.from_per_s, piece.to_per_s) for piece in pieces)


class _Poisson:
    """Random arrivals: `BLOCK` of them at random places within each stretch of that length, on the axis of
    summed-up rate.

    That is a Poisson process with one difference: each block has exactly `BLOCK` arrivals, so that a drill of a given
    length sends the expected number of requests. The last block's places are cached.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._number = -1
        self._places: list[float] = []

    def at(self, n: int) -> float:
        number, rest = divmod(n, BLOCK)
        return number * BLOCK + self._block(number)[rest]

    def before(self, place: float) -> int:
        number = max(0, int(place // BLOCK))
        return number * BLOCK + bisect_left(self._block(number), place - number * BLOCK)

    def _block(self, number: int) -> list[float]:
        if number != self._number:
            chance = random.Random(self._seed * 1_000_003 + number)
            self._places = sorted(chance.uniform(0.0, BLOCK) for _ in range(BLOCK))
            self._number = number
        return self._places


class Pace:
    """When the requests of `pieces` are due. With `seed`, arrivals are Poisson's, else evenly spaced."""

    def __init__(self, pieces: Pieces, seed: int | None = None) -> None:
        self.pieces = pieces
        self.seed = seed
        self._arrivals = None if seed is None else _Poisson(seed)
        self._stretches = _stretches(pieces)
        self._firsts = [float(stretch.first) for stretch in self._stretches]

    def due_ns(self, n: int) -> int:
        """Nanoseconds after the start at which request n (from 0) is due."""
        if self._arrivals is not None:
            place = self._arrivals.at(n)
            return self._stretch(place).instant_ns(place)
        return self._stretch(n).due_ns(n)

    def count(self, elapsed_ns: int) -> int:
        """How many requests are due before `elapsed_ns` after the start, which is the n of the next one."""
        if elapsed_ns <= 0:
            return 0
        sum_ = self.sum_until(Fraction(elapsed_ns, NANOSECONDS))
        return self._arrivals.before(float(sum_)) if self._arrivals is not None else ceil(sum_)

    def sum_until(self, at_s: Fraction) -> Fraction:
        """The sum of the rate until that time."""
        stretch = next(one for one in reversed(self._stretches) if one.start_s <= at_s or one is self._stretches[0])
        return stretch.sum_until(at_s)

    def _stretch(self, place: float) -> _Stretch:
        return self._stretches[max(0, bisect_right(self._firsts, place) - 1)]


class _Stretch:
    """A piece, or the constant rate after a ramp, as exact numbers: `first` requests come before `start_s`."""

    def __init__(self, start_s: Fraction, first: Fraction, rate_per_s: Fraction, slope: Fraction) -> None:
        self.start_s, self.first, self._rate, self._slope = start_s, first, rate_per_s, slope
        self._start_ns = start_s * NANOSECONDS
        if slope == 0:
            # due = start + (n - first) / rate, over one common denominator
            period = Fraction(NANOSECONDS) / rate_per_s
            offset = self._start_ns - first * period
            self._denominator = period.denominator * offset.denominator
            self._factor = period.numerator * offset.denominator
            self._offset = offset.numerator * period.denominator

    def due_ns(self, n: int) -> int:
        if self._slope == 0:
            return (n * self._factor + self._offset) // self._denominator
        return self.instant_ns(n)

    def instant_ns(self, place: float) -> int:
        """When the sum reaches `place`, in floating point: exact to far below a microsecond within a day."""
        if self._slope == 0:
            return int((place * self._factor + self._offset) / self._denominator)
        rate, slope, rest = float(self._rate), float(self._slope), max(0.0, place - float(self.first))
        root = max(0.0, rate * rate + 2 * slope * rest) ** 0.5
        return int((float(self.start_s) + 2 * rest / (rate + root)) * NANOSECONDS)

    def sum_until(self, at_s: Fraction) -> Fraction:
        passed_s = at_s - self.start_s
        return self.first + self._rate * passed_s + self._slope * passed_s * passed_s / 2


def _stretches(pieces: Pieces) -> list[_Stretch]:
    """The pieces in order; a ramp is followed by its last rate."""
    found: list[_Stretch] = []
    sum_ = Fraction(0)
    for piece, following in zip(pieces, (*pieces[1:], None), strict=True):
        start_s, low, high, span_s = (
            Fraction(str(number)) for number in (piece.start_s, piece.from_per_s, piece.to_per_s, piece.span_s)
        )
        end_s = Fraction(str(following.start_s)) if following is not None else None
        if low != high and span_s > 0:
            found.append(_Stretch(start_s, sum_, low, (high - low) / span_s))
            sum_ += (low + high) * span_s / 2
            start_s += span_s
        found.append(_Stretch(start_s, sum_, high, Fraction(0)))
        if end_s is not None:
            sum_ = found[-1].sum_until(end_s)
    return found


def total(pieces: Pieces, duration_s: float) -> int:
    """Requests of a drill of that rate and length: 2000/s for 60 s is 120,000 exactly."""
    return max(1, int(Pace(pieces).sum_until(Fraction(str(duration_s)))))


def share_of(first: int, stride: int, end: int) -> int:
    """How many of the requests 0 … end - 1 belong to the sender that sends first, first + stride, …"""
    return max(0, (end - first + stride - 1) // stride)


def opens_connection(n: int, percent: float) -> bool:
    """Whether request n gets its own connection, closed after the response, as `percent` of all do.

    Spread by the golden ratio, so that the choice never coincides with the order of the requests.
    """
    return (n * _GOLDEN_32) % _CIRCLE < percent * _CIRCLE / 100


def interleave(weights: Sequence[int]) -> tuple[int, ...]:
    """The order of one round: index i appears weights[i] times, each as evenly spread as it can be."""
    places = [((turn + 0.5) / weight, index) for index, weight in enumerate(weights) for turn in range(weight)]
    return tuple(index for _, index in sorted(places))


def parse_profile(text: str, duration_s: float) -> Pieces:
    """The pieces of a drill of that length. Raises UsageError.

    `ramp:A:B@S-E`: A requests a second until S seconds, then evenly changing, B from E on; without instants from the
    start to the end. `step:A:B@S`: A until S, then B at once; with `-E`, A again from E on.
    """
    form = _PROFILE.fullmatch(text)
    if form is None:
        raise _bad_profile(text, "is not a profile")
    low, high = float(form["low"]), float(form["high"])
    for rate in (low, high):
        if not 0 < rate <= MAX_RATE_PER_S:
            raise _bad_profile(text, f"{rate:g} requests a second are not above 0 and at most {MAX_RATE_PER_S}")
    start_s = float(form["start"]) if form["start"] else None
    end_s = float(form["end"]) if form["end"] else None
    if start_s is not None and not start_s < duration_s:
        raise _bad_profile(text, f"begins at {start_s:g} s, and the drill lasts {duration_s:g} s")
    if end_s is not None and not (start_s or 0.0) < end_s <= duration_s:
        raise _bad_profile(text, f"ends at {end_s:g} s, not between its start and the drill's end, {duration_s:g} s")
    if form["kind"] == "ramp":
        start_s = start_s or 0.0
        slope = Piece(start_s, low, high, (duration_s if end_s is None else end_s) - start_s)
        return (Piece(0.0, low, low), slope) if start_s else (slope,)
    if start_s is None:
        raise _bad_profile(text, "does not say when the rate changes")
    before, after = Piece(0.0, low, low), Piece(start_s, high, high)
    pieces = (before, after) if start_s else (after,)
    return pieces if end_s is None else (*pieces, Piece(end_s, low, low))


def _bad_profile(text: str, why: str) -> UsageError:
    return UsageError(f"--profile {text}: {why}", hint=f"write one such as {PROFILE_EXAMPLES}")
