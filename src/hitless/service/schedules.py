"""`schedule` events: when the engine invokes a function by itself, by EventBridge's rate() and cron() expressions.

Source: docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html; for the forms `schedule.js` of
Serverless Framework (osls).
"""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from hitless.service.event_sources import Schedule
from hitless.service.reader import parsed
from hitless.service.value import Notices, Value

_RATE = re.compile(r"rate\((?:1 (minute|hour|day)|([2-9]|[1-9]\d+) (minute|hour|day)s)\)")
_CRON = re.compile(r"cron\(([\d*,/-]+) ([\d*,/-]+) (\S+) (\S+) (\S+) ([\d*,/-]+)\)")
_MINUTES = {"minute": 1, "hour": 60, "day": 1440}
_json = parsed(json.loads, "JSON", """write a map, or text such as '{"key": 1}'""")
_KEYS = {"rate", "enabled", "name", "description", "input"}


def read_schedules(function: Value, notices: Notices) -> Iterator[Schedule]:
    """A function's schedules. ServiceFileError for an expression that EventBridge would refuse."""
    for event in function.optional("events", Value.items, ()):
        schedule = event.get("schedule") if isinstance(event.data, Mapping) else None
        if schedule is None or schedule.data is None:
            continue
        own = schedule.data if isinstance(schedule.data, Mapping) else {"rate": schedule}
        rate = own.get("rate", schedule)
        rates = rate.items() if isinstance(rate.data, tuple) else (rate,)
        if others := sorted(own.keys() - _KEYS) or [one.path for one in rates if one.intrinsic()]:
            notices.add("schedule", schedule, f"this schedule does not run here, because of {', '.join(others)}")
        elif "enabled" not in own or own["enabled"].flag():
            given = _input(own["input"]) if "input" in own else None
            yield from (Schedule(_expression(one), given) for one in rates)


def period_minutes(expression: str) -> int | None:
    """The minutes between two events of a rate(); None for a cron()."""
    rate = _RATE.fullmatch(expression)
    return int(rate[2] or 1) * _MINUTES[rate[1] or rate[3]] if rate else None


def falls_on(expression: str, minute: datetime) -> bool:
    """Whether a cron() has an event in that minute of UTC."""
    crontab = _crontab(expression)
    return crontab is not None and bool(_croniter().match(crontab, minute))


def _expression(value: Value) -> str:
    text = value.text().strip()
    if period_minutes(text) is None and _crontab(text) is None:
        raise value.fault(
            f"{value.shown()} is not a schedule", "write rate(5 minutes), or cron(0 12 * * ? *) with one ?"
        )
    return text


def _crontab(expression: str) -> str | None:
    """The expression in croniter's form, in which Sunday is 0 and the last Sunday L0; None if it is no valid cron()."""
    cron = _CRON.fullmatch(expression)
    if cron is None or (cron[3] == "?") == (cron[5] == "?") or cron[5].startswith("0"):
        return None
    days = re.sub(r"(?<![#\d/])[1-7](?!\d)", lambda day: str(int(day[0]) - 1), cron[5])
    days = re.sub(r"^(\d)L$", r"L\1", "6" if days == "L" else days)
    crontab = f"{cron[1]} {cron[2]} {cron[3]} {cron[4]} {days} 0 {cron[6]}"
    return crontab if _croniter().is_valid(crontab) else None


def _croniter() -> Any:
    """Imported for a cron() only: most services have none."""
    return pkgutil.resolve_name("croniter:croniter")


def _input(value: Value) -> str:
    """The event as JSON, if the file gives it: text is JSON already."""
    return json.dumps(_json(value) if isinstance(value.data, str) else value.plain())
