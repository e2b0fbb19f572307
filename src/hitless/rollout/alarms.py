"""Alarms on the candidate's own traffic: pure, with a minimum number of requests, so that no verdict rests on noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hitless.service.model import AlarmSettings


class Verdict(StrEnum):
    """What an alarm says of the candidate now."""

    OK = "ok"
    ALARM = "alarm"
    NOT_ENOUGH_DATA = "not_enough_data"


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the alarms: the verdict and the sentence that explains it."""

    verdict: Verdict
    sentence: str
    figures: Mapping[str, float | None] = field(default_factory=dict)
    """What it rests on, by name with its unit: `requests`, `failed`, `error_rate_percent` …"""


def read_alarms(settings: AlarmSettings, *, requests: int, failed: int) -> Reading:
    """Judge the candidate by its requests so far. `failed` counts answers of 5xx and requests that got no answer."""
    rate_percent = 100 * failed / requests if requests else 0.0
    figures = {"requests": requests, "failed": failed, "error_rate_percent": round(rate_percent, 3)}
    if requests < settings.minimum_requests:
        return Reading(
            Verdict.NOT_ENOUGH_DATA, f"{requests} of {settings.minimum_requests} requests that a verdict needs", figures
        )
    if rate_percent > settings.error_rate_percent:
        return Reading(
            Verdict.ALARM,
            f"{failed} of {requests} requests failed"
            f" ({rate_percent:.2g} %, alarm above {settings.error_rate_percent:g} %)",
            figures,
        )
    return Reading(Verdict.OK, f"{failed} of {requests} requests failed", figures)
