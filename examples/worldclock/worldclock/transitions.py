"""When the clocks of a zone change. `zoneinfo` knows the rules but not the instants, so they are worked out here.

A compiled zone (TZif, RFC 9636) lists its past transitions; after the last of them a rule in its footer holds for ever.
Listed instants are read from the file; those of the rule are found by asking `zoneinfo` week by week, and then halving
the week down to the second. No rule changes twice within a week (a test checks every zone).
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from worldclock import zones

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NONE = timedelta()
_STEP = timedelta(weeks=1)
_STEPS_AHEAD = 106  # two years: a rule that changes at all does so every year
_HEADER = struct.Struct(">4s c 15x 6l")


@dataclass(frozen=True, slots=True)
class ClockState:
    """How the clocks of a zone stand: offset from UTC, abbreviation, and whether they are ahead of standard time."""

    offset: timedelta
    abbreviation: str
    is_dst: bool


@dataclass(frozen=True, slots=True)
class Transition:
    """The instant (UTC) from which a zone's clocks stand differently."""

    at: datetime
    before: ClockState
    after: ClockState


@dataclass(frozen=True, slots=True)
class Span:
    """The time from one transition (inclusive) to the next; None where there is no such transition."""

    previous: Transition | None
    next: Transition | None

    def covers(self, instant: datetime) -> bool:
        return (self.previous is None or self.previous.at <= instant) and (self.next is None or instant < self.next.at)


def state_at(zone: ZoneInfo, instant: datetime) -> ClockState:
    """How the zone's clocks stand at an instant. Dublin's winter counts as standard time, as people there see it."""
    local = instant.astimezone(zone)
    is_dst = (local.dst() or _NONE) > _NONE
    return ClockState(local.utcoffset() or _NONE, local.tzname() or "", is_dst)


_latest_span: dict[str, Span] = {}


def span_at(zone: ZoneInfo, instant: datetime) -> Span:
    """The transitions before and after an instant. The zone's latest span is kept: most requests ask for now."""
    span = _latest_span.get(zone.key)
    if span is None or not span.covers(instant):
        span = _latest_span[zone.key] = Span(previous_transition(zone, instant), next_transition(zone, instant))
    return span


def next_transition(zone: ZoneInfo, instant: datetime) -> Transition | None:
    """The first transition after an instant, or None if the clocks never change again."""
    listed = _listed_instants(zone.key)
    for at in listed[bisect_right(listed, instant) :]:
        if (transition := _transition_at(zone, at)) is not None:
            return transition
    start = max(instant, listed[-1]) if listed else instant
    return _first_change(zone, start, start + _STEP * _STEPS_AHEAD)


def previous_transition(zone: ZoneInfo, instant: datetime) -> Transition | None:
    """The last transition at or before an instant, or None if there was none yet."""
    listed = _listed_instants(zone.key)
    if not listed or instant >= listed[-1]:
        end = instant
        while (not listed or end > listed[-1]) and end > instant - _STEP * _STEPS_AHEAD:
            start = max(end - _STEP, listed[-1]) if listed else end - _STEP
            if (transition := _first_change(zone, start, end)) is not None:
                return transition
            end = start
    for at in reversed(listed[: bisect_right(listed, instant)]):
        if (transition := _transition_at(zone, at)) is not None:
            return transition
    return None


def _first_change(zone: ZoneInfo, start: datetime, end: datetime) -> Transition | None:
    """The first transition in (start, end] of a zone's rule, to the second."""
    before = state_at(zone, start)
    while start < end:
        step_end = min(start + _STEP, end)
        if state_at(zone, step_end) != before:
            offsets = range(1, int((step_end - start).total_seconds()) + 2)
            first = bisect_left(offsets, True, key=lambda s: state_at(zone, start + timedelta(seconds=s)) != before)
            return _transition_at(zone, (start + timedelta(seconds=offsets[first])).replace(microsecond=0))
        start = step_end
    return None


def _transition_at(zone: ZoneInfo, at: datetime) -> Transition | None:
    before, after = state_at(zone, at - timedelta(seconds=1)), state_at(zone, at)
    return Transition(at, before, after) if before != after else None


@lru_cache(maxsize=128)
def _listed_instants(name: str) -> tuple[datetime, ...]:
    """The transitions that the zone's file lists. Some change nothing that a client can see."""
    data = zones.zone_file(name).read_bytes()
    _, version, *counts = _HEADER.unpack_from(data)
    start = _HEADER.size
    if version >= b"2":  # the same again with 64-bit times follows, and replaces the first part
        is_ut, is_std, leaps, times, types, characters = counts
        start += times * 5 + types * 6 + characters + leaps * 8 + is_std + is_ut
        _, _, *counts = _HEADER.unpack_from(data, start)
        start += _HEADER.size
    times = counts[3]
    seconds = struct.unpack_from(f">{times}{'q' if version >= b'2' else 'l'}", data, start)
    return tuple(_EPOCH + timedelta(seconds=s) for s in seconds if s > -(2**40))
