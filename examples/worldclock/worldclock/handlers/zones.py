"""`GET /zones` lists and searches; `GET /zones/{zone+}` is one zone now.

The path is greedy because a zone's name has one to three parts: UTC, Europe/Berlin, America/Argentina/Ushuaia.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlencode

from worldclock import fields, zones
from worldclock.api import entry, query, resolver
from worldclock.clock import local_json, state_json, utc_text
from worldclock.errors import UnknownZone
from worldclock.transitions import Transition, span_at

app = resolver()

_MOST_ZONES = 100
_DEFAULT_LIMIT = 50


@app.get("/zones")
def list_zones() -> dict[str, object]:
    asked = query(app.current_event, known={"q", "offset", "limit"})
    wanted = asked.optional("q", fields.text, "")
    offset = asked.optional("offset", fields.digits(0, 10_000), 0)
    limit = asked.optional("limit", fields.digits(1, _MOST_ZONES), _DEFAULT_LIMIT)

    found = zones.search(wanted)
    end = offset + limit
    following = {"q": wanted, "offset": end, "limit": limit} if wanted else {"offset": end, "limit": limit}
    return {
        "zones": [{"zone": name, "country": _country(name)} for name in found[offset:end]],
        "total": len(found),
        "offset": offset,
        "limit": limit,
        "next": f"/zones?{urlencode(following)}" if end < len(found) else None,
        "tzdata": zones.VERSION,
    }


@app.get("/zones/.+")
def show_zone() -> dict[str, object]:
    # API Gateway hands path parameters on as the client encoded them
    name = unquote(app.current_event.path_parameters.get("zone", ""))
    asked = query(app.current_event, known={"at"})
    at = asked.optional("at", fields.instant, datetime.now(UTC).replace(microsecond=0))
    if not zones.is_known(name):
        raise UnknownZone(f"there is no time zone {name}; GET /zones?q=TEXT finds one", zone=name)

    zone = zones.load(name)
    span = span_at(zone, at)
    return {
        "at": utc_text(at),
        **local_json(zone, at),
        "country": _country(name),
        "previous_transition": _transition(span.previous),
        "next_transition": _transition(span.next),
        "tzdata": zones.VERSION,
    }


def _country(zone_name: str) -> dict[str, str] | None:
    country = zones.COUNTRIES.get(zone_name)
    return {"code": country.code, "name": country.name} if country else None


def _transition(transition: Transition | None) -> dict[str, object] | None:
    if transition is None:
        return None
    shift = transition.after.offset - transition.before.offset
    return {
        "at": utc_text(transition.at),
        "before": state_json(transition.before),
        "after": state_json(transition.after),
        "shift_seconds": shift // timedelta(seconds=1),
    }


handler = entry(app)
