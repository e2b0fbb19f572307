"""Alarms on the candidate's own traffic: pure, with a minimum number of requests, so that no verdict rests on noise."""

from __future__ import annotations

from dataclasses import dataclass
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


def read_alarms(settings: AlarmSettings, *, requests: int, failed: int) -> Reading:
    """Judge the candidate by its requests so far. `failed` counts answers of 5xx and requests that got no answer."""
    if requests < settings.minimum_requests:
        return Reading(
            Verdict.NOT_ENOUGH_DATA, f"{requests} of {settings.minimum_requests} requests that a verdict needs"
        )
    rate_percent = 100 * failed / requests
    if rate_percent > settings.error_rate_percent:
        return Reading(
            Verdict.ALARM,
            f"{failed} of {requests} requests failed"
            f" ({rate_percent:.2g} %, alarm above {settings.error_rate_percent:g} %)",
        )
    return Reading(Verdict.OK, f"{failed} of {requests} requests failed")
