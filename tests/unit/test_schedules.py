"""Schedules as EventBridge documents them: which expressions are valid, and when their events are.

AWS: docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html: the examples of its table; "You
can't specify the Day-of-month and Day-of-week fields in the same cron expression"; "If the value is equal to 1, then
the unit must be singular".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hitless.errors import ServiceFileError
from hitless.service.event_sources import Schedule
from hitless.service.load import parse_yaml
from hitless.service.schedules import falls_on, period_minutes, read_schedules
from hitless.service.value import Notices

pytestmark = pytest.mark.unit


def read(schedule: str, notices: Notices | None = None) -> tuple[Schedule, ...]:
    function = parse_yaml(f"events: [http: GET /, schedule: {schedule}]", "f.yml")
    return tuple(read_schedules(function, notices or Notices()))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("rate(1 minute)", [("rate(1 minute)", None)]),
        ("{rate: [rate(2 hours), 'cron(0 12 * * ? *)']}", [("rate(2 hours)", None), ("cron(0 12 * * ? *)", None)]),
        ("{rate: rate(10 days), name: n, description: d, enabled: true}", [("rate(10 days)", None)]),
        ("{rate: rate(10 days), enabled: false}", []),
        ("{rate: rate(5 minutes), input: {a: [1, b]}}", [("rate(5 minutes)", '{"a": [1, "b"]}')]),
        ("""{rate: rate(5 minutes), input: '{"a": 1}'}""", [("rate(5 minutes)", '{"a": 1}')]),
    ],
)
def test_the_forms_of_a_schedule(schedule: str, expected: list[Any]) -> None:
    notices = Notices()
    assert [(one.expression, one.input) for one in read(schedule, notices)] == expected
    assert not notices.sentences()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("inputPath: $.a", "inputPath"),
        ("method: scheduler, timezone: Europe/Berlin", "method, timezone"),
        ("inputTransformer: {inputTemplate: x}", "inputTransformer"),
    ],
)
def test_a_schedule_that_does_not_run_here_is_named(more: str, named: str) -> None:
    notices = Notices()
    assert read(f"{{rate: rate(1 minute), {more}}}", notices) == ()
    assert notices.sentences()[0].endswith(f"this schedule does not run here, because of {named}")
    assert read("{rate: [{Ref: Rate}]}", notices) == ()


@pytest.mark.parametrize(
    "expression",
    [
        *("rate(0 minutes)", "rate(1 minutes)", "rate(2 minute)", "rate(5 seconds)", "rate(5minutes)", "every day", ""),
        *("cron(0 12 * * *)", "cron(0 12 * * * *)", "cron(0 12 ? * ? *)", "cron(60 12 * * ? *)", "cron(0 12 32 * ? *)"),
        *(
            "cron(0 12 ? * 8 *)",
            "cron(0 12 ? * 0 *)",
            "cron(0 12 LW * ? *)",
            "cron(R 12 * * ? *)",
            "cron(0 12 ? * 6#6 *)",
        ),
    ],
)
def test_an_expression_that_eventbridge_would_refuse_is_an_error(expression: str) -> None:
    with pytest.raises(ServiceFileError, match="is not a schedule"):
        read(f"'{expression}'")
    with pytest.raises(ServiceFileError, match="input: Expecting value"):
        read("{rate: rate(1 minute), input: text}")


@pytest.mark.parametrize(
    ("expression", "events", "others"),
    [
        ("cron(0 10 * * ? *)", ["11-30 10:00"], ["11-30 10:01", "11-30 22:00"]),
        ("cron(0 18 ? * MON-FRI *)", ["11-30 18:00", "11-27 18:00"], ["11-29 18:00", "11-28 18:00"]),
        ("cron(0 18 ? * 2-6 *)", ["11-30 18:00", "11-27 18:00"], ["11-29 18:00", "11-28 18:00"]),
        ("cron(0/15 * * * ? *)", ["11-30 10:45"], ["11-30 10:50"]),
        ("cron(0/30 20-2 ? * MON-FRI *)", ["11-30 20:30", "11-30 02:00"], ["11-30 03:00"]),
        ("cron(0 8 1 * ? *)", ["12-01 08:00"], ["11-30 08:00"]),
        ("cron(0 8 L * ? *)", ["11-30 08:00"], ["11-29 08:00"]),
        ("cron(0 8 15W * ? *)", ["11-16 08:00"], ["11-15 08:00"]),
        ("cron(0 9 ? * 2#5 *)", ["11-30 09:00"], ["11-23 09:00"]),
        ("cron(0 9 ? * 6L *)", ["11-27 09:00"], ["11-20 09:00", "11-29 09:00"]),
        ("cron(0 9 ? * L *)", ["11-28 09:00", "11-21 09:00"], ["11-29 09:00"]),
        ("cron(0 9 ? * 1 *)", ["11-29 09:00"], ["11-30 09:00"]),
        ("cron(0 9 30 JAN,NOV ? 2026-2027)", ["11-30 09:00"], ["12-30 09:00"]),
        ("cron(0 9 30 11 ? 2025)", [], ["11-30 09:00"]),
        ("cron(0 9 31 2 ? *)", [], ["02-28 09:00"]),
    ],
)
def test_when_a_cron_expression_has_an_event(expression: str, events: list[str], others: list[str]) -> None:
    def found(instants: list[str]) -> list[bool]:
        each = (datetime.strptime(f"2026-{one}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC) for one in instants)
        return [falls_on(expression, one) for one in each]

    assert read(f"'{expression}'")
    assert (found(events), found(others)) == ([True] * len(events), [False] * len(others))
    assert period_minutes(expression) is None


def test_a_rate_is_a_number_of_minutes() -> None:
    rates = ("rate(1 minute)", "rate(90 minutes)", "rate(1 hour)", "rate(12 hours)", "rate(7 days)")
    assert [period_minutes(rate) for rate in rates] == [1, 90, 60, 720, 10080]
