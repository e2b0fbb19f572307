"""Instants and local times: what a local time means, with its gaps and repeated hours, and how one is shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from worldclock.errors import NonexistentTime
from worldclock.transitions import ClockState, next_transition, state_at


@dataclass(frozen=True, slots=True)
class Reading:
    """What a local time means: the instant (UTC), and whether the clock shows that time twice."""

    instant: datetime
    is_ambiguous: bool


def read_local(zone: ZoneInfo, wall: datetime, *, later: bool = False) -> Reading:
    """The instant at which the zone's clocks show `wall` (naive). `later` picks the second of two.

    Raises NonexistentTime for one that the clocks skip.
    """
    first, second = _candidates(zone, wall)
    if second < first:  # in a gap: the two readings change places
        gap_end = _gap_end(zone, second).astimezone(zone)
        raise NonexistentTime(
            f"{wall.isoformat()} does not exist in {zone.key}: the clocks go forward then",
            zone=zone.key,
            next_local=gap_end.isoformat(),
        )
    return Reading(second if later else first, first != second)


def read_edge(zone: ZoneInfo, wall: datetime, *, later: bool) -> datetime:
    """As `read_local`, for the edge of a stretch of time: a local time that is skipped counts as the end of the gap."""
    first, second = _candidates(zone, wall)
    if second < first:
        return _gap_end(zone, second)
    return second if later else first


def _gap_end(zone: ZoneInfo, before_gap: datetime) -> datetime:
    transition = next_transition(zone, before_gap)
    assert transition is not None, "a gap ends with a transition"
    return transition.at


def _candidates(zone: ZoneInfo, wall: datetime) -> tuple[datetime, datetime]:
    """Equal for a time that comes once, rising for one that comes twice, falling for one that never comes (PEP 495)."""
    return (
        wall.replace(tzinfo=zone, fold=0).astimezone(UTC),
        wall.replace(tzinfo=zone, fold=1).astimezone(UTC),
    )


def utc_text(instant: datetime) -> str:
    """`2026-11-24T12:00:00Z`."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def offset_text(offset: timedelta) -> str:
    """`+05:30`, and `+00:53:28` for the local mean time of old."""
    sign = "-" if offset < timedelta() else "+"
    text = str(abs(offset)).zfill(8)
    return sign + (text.removesuffix(":00"))


def state_json(state: ClockState) -> dict[str, object]:
    return {"offset": offset_text(state.offset), "abbreviation": state.abbreviation, "dst": state.is_dst}


def local_json(zone: ZoneInfo, instant: datetime) -> dict[str, object]:
    """An instant as the clocks of a zone show it."""
    return {
        "zone": zone.key,
        "local": instant.astimezone(zone).isoformat(),
        **state_json(state_at(zone, instant)),
    }
