"""When people in several places are all at work. Pure: intervals of instants, so date lines need no special case.

A working day is turned into instants by its own zone's rules. An edge that the clocks skip moves to the end of the
gap; of an edge that comes twice the reading that makes the day shorter is taken, so that nobody is asked in outside
their hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from worldclock.clock import read_edge

_ONE_DAY = timedelta(days=1)
# A night shift of the first participant may end a day later, local dates lie up to 26 hours apart, and a night shift
# that is still on began a day earlier.
_DAYS_AROUND = range(-3, 4)


@dataclass(frozen=True, slots=True)
class Participant:
    """Someone's working hours on the clocks of their own zone; `until` at or before `begin` is on the next day."""

    zone: ZoneInfo
    begin: time
    until: time


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A stretch of time from `begin` (inclusive) to `until`, both UTC."""

    begin: datetime
    until: datetime

    @property
    def length(self) -> timedelta:
        return self.until - self.begin


def common_windows(participants: Sequence[Participant], day: date, duration: timedelta) -> list[Window]:
    """Windows, in order and at least `duration` long, in which all are at work on the first participant's `day`."""
    first, *others = participants
    common = working_windows(first, [day])
    for participant in others:
        days = [day + _ONE_DAY * around for around in _DAYS_AROUND]
        common = intersect(common, working_windows(participant, days))
    return [window for window in common if window.length >= duration]


def working_windows(participant: Participant, days: Iterable[date]) -> list[Window]:
    """The hours of one person on those days; days without a break between them are one window."""
    windows: list[Window] = []
    for day in days:
        last_day = day if participant.begin < participant.until else day + _ONE_DAY
        begin = read_edge(participant.zone, datetime.combine(day, participant.begin), later=True)
        until = read_edge(participant.zone, datetime.combine(last_day, participant.until), later=False)
        if windows and begin <= windows[-1].until:
            windows[-1] = Window(windows[-1].begin, max(until, windows[-1].until))
        elif begin < until:
            windows.append(Window(begin, until))
    return windows


def intersect(left: Iterable[Window], right: Iterable[Window]) -> list[Window]:
    """What lies in a window of both."""
    overlaps = (Window(max(a.begin, b.begin), min(a.until, b.until)) for a in left for b in right)
    return sorted(window for window in overlaps if window.begin < window.until)
