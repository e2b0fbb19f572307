"""Transitions against known instants, and against a slow search through every zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from worldclock import zones
from worldclock.transitions import next_transition, previous_transition, span_at, state_at

SECOND = timedelta(seconds=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


KNOWN = [
    # zone, instant, previous, next
    ("Europe/Berlin", "2026-01-15", "2025-10-26T01:00", "2026-03-29T01:00"),
    ("Europe/Berlin", "2026-07-01", "2026-03-29T01:00", "2026-10-25T01:00"),
    ("America/New_York", "2026-07-01", "2026-03-08T07:00", "2026-11-01T06:00"),
    ("America/New_York", "2499-07-01", "2499-03-08T07:00", "2499-11-01T06:00"),
    ("Australia/Lord_Howe", "2026-07-01", "2026-04-04T15:00", "2026-10-03T15:30"),
    ("Europe/Dublin", "2026-07-01", "2026-03-29T01:00", "2026-10-25T01:00"),
    ("America/Santiago", "2026-07-01", "2026-04-05T03:00", "2026-09-06T04:00"),
    ("Africa/Casablanca", "2025-03-01", "2025-02-23T02:00", "2025-04-06T02:00"),
    ("Asia/Kolkata", "2026-01-01", "1945-10-14T17:30", None),
    ("Pacific/Apia", "2011-12-30T00:00", "2011-09-24T14:00", "2011-12-30T10:00"),
    ("Europe/Berlin", "1800-01-01", None, "1893-03-31T23:06:32"),
    ("UTC", "2026-01-01", None, None),
]


@pytest.mark.parametrize(("name", "at", "previous", "following"), KNOWN)
def test_known_transitions_are_found(name: str, at: str, previous: str | None, following: str | None) -> None:
    span = span_at(zones.load(name), utc(at))

    assert (span.previous and span.previous.at) == (previous and utc(previous))
    assert (span.next and span.next.at) == (following and utc(following))


def test_lord_howe_moves_its_clocks_by_half_an_hour() -> None:
    transition = next_transition(zones.load("Australia/Lord_Howe"), utc("2026-07-01"))

    assert transition is not None
    assert transition.after.offset - transition.before.offset == timedelta(minutes=30)
    assert transition.after.is_dst


def test_dublins_winter_is_standard_time_although_its_rule_calls_it_saving() -> None:
    dublin = zones.load("Europe/Dublin")

    assert not state_at(dublin, utc("2026-01-15")).is_dst
    assert state_at(dublin, utc("2026-01-15")).abbreviation == "GMT"


def test_the_instant_of_a_transition_belongs_to_what_comes_after() -> None:
    zone, at = zones.load("Europe/Berlin"), utc("2026-03-29T01:00")

    assert previous_transition(zone, at - SECOND) == previous_transition(zone, utc("2026-01-01"))
    assert span_at(zone, at - SECOND).next == next_transition(zone, at - SECOND)  # and this span is kept
    for instant in (at, at + timedelta(microseconds=1)):
        span = span_at(zone, instant)
        assert span.previous is not None
        assert span.previous.at == at
    before = next_transition(zone, at - timedelta(microseconds=1))
    assert before is not None
    assert before.at == at


@pytest.mark.parametrize("name", zones.NAMES)
def test_every_zone_agrees_with_a_search_day_by_day(name: str) -> None:
    """Two stretches: listed transitions, with a day that Samoa skipped, and the rule of the far future."""
    zone = zones.load(name)
    for start, days in ((utc("2010-12-01"), 400), (utc("2088-01-01"), 400)):
        instants = [start + timedelta(days=day) for day in range(days + 1)]
        states = [state_at(zone, instant) for instant in instants]
        expected = [instants[day] for day in range(days) if states[day] != states[day + 1]]

        found: list[datetime] = []
        transition = next_transition(zone, start)
        while transition is not None and transition.at <= instants[-1]:
            assert transition.before == state_at(zone, transition.at - SECOND)
            assert transition.after == state_at(zone, transition.at) != transition.before
            assert previous_transition(zone, transition.at) == transition
            found.append(transition.at)
            transition = next_transition(zone, transition.at)
        assert [(at - SECOND).date() for at in found] == [day.date() for day in expected]
