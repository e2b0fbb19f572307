"""Working hours across date lines, night shifts, and the days on which clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest
from worldclock import zones
from worldclock.meeting_hours import Participant, Window, common_windows, working_windows

HALF_HOUR = timedelta(minutes=30)


def at_work(zone: str, begin: str = "09:00", until: str = "17:00") -> Participant:
    return Participant(zones.load(zone), time.fromisoformat(begin), time.fromisoformat(until))


def window(begin: str, until: str) -> Window:
    return Window(*(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (begin, until)))


def test_the_day_is_that_of_the_first_participant_on_whichever_side_of_the_date_line() -> None:
    auckland, angeles = at_work("Pacific/Auckland"), at_work("America/Los_Angeles")
    day = date(2026, 11, 25)

    assert common_windows([auckland, angeles], day, HALF_HOUR) == [window("2026-11-24T20:00", "2026-11-25T01:00")]
    assert common_windows([angeles, auckland], day, HALF_HOUR) == [window("2026-11-25T20:00", "2026-11-26T01:00")]


def test_zones_a_whole_day_apart_still_meet() -> None:
    kiritimati, niue = at_work("Pacific/Kiritimati"), at_work("Pacific/Niue")  # UTC+14 and UTC-11

    assert common_windows([kiritimati, niue], date(2026, 11, 25), HALF_HOUR) == [
        window("2026-11-24T20:00", "2026-11-25T03:00")
    ]


def test_a_day_is_shorter_in_instants_when_the_clocks_go_forward_in_it() -> None:
    assert working_windows(at_work("Europe/Berlin", "00:00", "12:00"), [date(2026, 3, 29)]) == [
        window("2026-03-28T23:00", "2026-03-29T10:00")
    ]


@pytest.mark.parametrize(
    ("begin", "until", "expected"),
    [
        ("02:30", "10:00", [window("2026-03-29T01:00", "2026-03-29T08:00")]),
        ("00:00", "02:30", [window("2026-03-28T23:00", "2026-03-29T01:00")]),
        ("02:10", "02:50", []),
    ],
)
def test_an_edge_that_is_skipped_moves_to_the_end_of_the_gap(begin: str, until: str, expected: list[Window]) -> None:
    assert working_windows(at_work("Europe/Berlin", begin, until), [date(2026, 3, 29)]) == expected


@pytest.mark.parametrize(
    ("begin", "until", "expected"),
    [
        ("02:30", "10:00", [window("2026-10-25T01:30", "2026-10-25T09:00")]),
        ("00:00", "02:30", [window("2026-10-24T22:00", "2026-10-25T00:30")]),
    ],
)
def test_of_an_edge_that_comes_twice_the_shorter_day_is_taken(begin: str, until: str, expected: list[Window]) -> None:
    assert working_windows(at_work("Europe/Berlin", begin, until), [date(2026, 10, 25)]) == expected


def test_a_day_that_the_calendar_skipped_has_no_hours() -> None:
    assert working_windows(at_work("Pacific/Apia"), [date(2011, 12, 30)]) == []


def test_a_night_shift_ends_on_the_next_day_and_meets_those_who_begin_then() -> None:
    night, morning = at_work("Europe/Berlin", "22:00", "06:00"), at_work("Asia/Tokyo")

    assert common_windows([night, morning], date(2026, 11, 24), HALF_HOUR) == [
        window("2026-11-25T00:00", "2026-11-25T05:00")
    ]
    assert common_windows([morning, night], date(2026, 11, 25), HALF_HOUR) == [
        window("2026-11-25T00:00", "2026-11-25T05:00")
    ]


def test_round_the_clock_is_one_window_without_a_seam_at_midnight() -> None:
    always, evening = at_work("Asia/Tokyo", "00:00", "00:00"), at_work("Europe/Berlin", "12:00", "20:00")

    assert common_windows([evening, always], date(2026, 11, 24), HALF_HOUR) == [
        window("2026-11-24T11:00", "2026-11-24T19:00")
    ]


def test_each_zone_changes_its_clocks_on_its_own_day() -> None:
    """Berlin falls back on 25 October, New York only on 1 November: five hours apart in the week between."""
    berlin, york = at_work("Europe/Berlin"), at_work("America/New_York")

    assert common_windows([berlin, york], date(2026, 10, 26), HALF_HOUR) == [
        window("2026-10-26T13:00", "2026-10-26T16:00")
    ]
    assert common_windows([berlin, york], date(2026, 11, 2), HALF_HOUR) == [
        window("2026-11-02T14:00", "2026-11-02T16:00")
    ]


@pytest.mark.parametrize(("minutes", "count"), [(180, 1), (181, 0)])
def test_a_window_must_hold_the_whole_meeting(minutes: int, count: int) -> None:
    participants = [at_work("Europe/Berlin"), at_work("UTC", "13:00", "20:00")]

    assert len(common_windows(participants, date(2026, 11, 24), timedelta(minutes=minutes))) == count
