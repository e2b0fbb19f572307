"""`GET` and `POST /convert`: an instant, or a time on one zone's clocks, as the clocks of other zones show it."""

from __future__ import annotations

from datetime import UTC

from worldclock import fields
from worldclock.api import body, entry, query, resolver
from worldclock.clock import Reading, local_json, read_local, utc_text
from worldclock.errors import MissingOffset
from worldclock.fields import Fields

app = resolver()

_KNOWN = {"instant", "from", "to", "when_ambiguous"}
_MOST_TARGETS = 20


@app.get("/convert")
def convert_query() -> dict[str, object]:
    return _convert(query(app.current_event, known=_KNOWN, lists=frozenset({"to"})))


@app.post("/convert")
def convert_body() -> dict[str, object]:
    return _convert(body(app.current_event, known=_KNOWN))


def _convert(asked: Fields) -> dict[str, object]:
    time = asked.required("instant", fields.date_time)
    source = asked.optional("from", fields.zone, None)
    targets = asked.required("to", fields.many(fields.zone, most=_MOST_TARGETS))
    later = asked.optional("when_ambiguous", fields.choice("earlier", "later"), "earlier") == "later"

    if time.tzinfo is not None:
        reading = Reading(time.astimezone(UTC), is_ambiguous=False)
    elif source is not None:
        reading = read_local(source, time, later=later)
    else:
        raise MissingOffset("instant: has no offset: add one (Z is UTC), or name the zone in `from`", field="instant")
    return {
        "instant": utc_text(reading.instant),
        "ambiguous": reading.is_ambiguous,
        "from": local_json(source, reading.instant) if source else None,
        "to": [local_json(zone, reading.instant) for zone in targets],
    }


handler = entry(app)
