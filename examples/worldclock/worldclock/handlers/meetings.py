"""`POST /meetings`: the hours of a day in which people in several zones are all at work."""

from __future__ import annotations

from datetime import time, timedelta

from worldclock import fields
from worldclock.api import body, entry, resolver
from worldclock.clock import utc_text
from worldclock.fields import Fields
from worldclock.meeting_hours import Participant, Window, common_windows

app = resolver()

_MOST_PARTICIPANTS = 20
_ONE_MINUTE = timedelta(minutes=1)


@app.post("/meetings")
def find_hours() -> dict[str, object]:
    asked = body(app.current_event, known={"date", "duration_minutes", "participants"})
    day = asked.required("date", fields.day)
    minutes = asked.required("duration_minutes", fields.integer(1, 24 * 60))
    participants = asked.required("participants", fields.many(_participant, most=_MOST_PARTICIPANTS))

    duration = timedelta(minutes=minutes)
    windows = common_windows(participants, day, duration)
    return {
        "date": day.isoformat(),
        "duration_minutes": minutes,
        "windows": [_window(window, duration, participants) for window in windows],
    }


def _participant(raw: object) -> Participant:
    given = Fields(fields.json_object(raw), known={"zone", "from", "until"})
    return Participant(
        given.required("zone", fields.zone),
        given.optional("from", fields.clock_time, time(9)),
        given.optional("until", fields.clock_time, time(17)),
    )


def _window(window: Window, duration: timedelta, participants: list[Participant]) -> dict[str, object]:
    return {
        "from": utc_text(window.begin),
        "until": utc_text(window.until),
        "latest_start": utc_text(window.until - duration),
        "minutes": window.length // _ONE_MINUTE,
        "local": [
            {
                "zone": participant.zone.key,
                "from": window.begin.astimezone(participant.zone).isoformat(),
                "until": window.until.astimezone(participant.zone).isoformat(),
            }
            for participant in participants
        ],
    }


handler = entry(app)
