"""Comparing a case's expectation with what came back, and the verdict that follows from it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.conformance.engine import by_request
from tests.conformance.matching import Observed, Places, differences
from tests.conformance.run import Result, judge
from tests.conformance.table import Case, Deviation, Expected, Kind, load_cases

pytestmark = pytest.mark.unit

RESPONSE = Observed(
    status=200,
    headers=(("Content-Type", "application/json"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2")),
    body=b'{"a": {"b": 1, "c": null}, "list": ["x", 2]}',
    log=("START RequestId: 1 Version: 2", "[ERROR] x"),
)


def differ(**fields: Any) -> list[str]:
    return differences(msgspec.convert(fields, Expected), RESPONSE, Places({"base": "/dev"}))


@pytest.mark.parametrize(
    "fields",
    [
        {"status": 200},
        {"status": {"$not": 403}},
        {"headers": {"content-type": "application/json"}},
        {"headers": {"Set-Cookie": ["a=1", "b=2"]}},
        {"headers": {"X-None": {"$absent": True}, "content-type": {"$any": True}}},
        {"spelt": ["Content-Type"]},
        {"json": {"a": {"b": 1}}},
        {"json": {"a": {"c": None, "d": {"$absent": True}}, "list": ["x", 2]}},
        {"json": {"$keys": ["list", "a"]}},
        {"body": {"$regex": r"\{.*\}"}},
        {"log": ["^START", r"^\[ERROR\]"], "no_log": ["REPORT"]},
    ],
)
def test_a_matching_response_has_no_differences(fields: dict[str, Any]) -> None:
    assert differ(**fields) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": 201}, "status: expected 201, got 200"),
        ({"headers": {"content-type": "text/html"}}, "header content-type"),
        ({"headers": {"Set-Cookie": "a=1"}}, "header Set-Cookie"),
        ({"headers": {"X-None": {"$any": True}}}, "header X-None: expected a value"),
        ({"headers": {"X-None": {"$regex": ".*"}}}, "header X-None"),
        ({"headers": {"content-type": {"$absent": True}}}, "expected none"),
        ({"spelt": ["content-type"]}, "header content-type: not among"),
        ({"json": {"a": {"b": 2}}}, "json.a.b: expected 2, got 1"),
        ({"json": {"a": {"b": True}}}, "json.a.b: expected True, got 1"),
        ({"json": {"a": {"d": None}}}, "json.a.d: expected None, got (absent)"),
        ({"json": {"list": ["x"]}}, "json.list"),
        ({"json": {"$keys": ["a"]}}, "expected the keys"),
        ({"body": "x"}, "body: expected 'x'"),
        ({"log": ["^END"]}, "no line matches"),
        ({"no_log": ["ERROR"]}, "matches"),
    ],
)
def test_each_mismatch_is_described(fields: dict[str, Any], words: str) -> None:
    (found,) = differ(**fields)
    assert words in found


def test_a_placeholder_is_replaced_by_its_value() -> None:
    observed = Observed(body=b'{"path": "/dev/x"}')
    assert differences(Expected(json={"path": "${base}/x"}), observed, Places({"base": "/dev"})) == []
    assert differences(Expected(json={"path": "${base}/x"}), observed, Places({"base": ""})) != []


def test_a_missing_response_is_always_a_difference() -> None:
    assert differences(Expected(), Observed(error="no response: reset"), Places()) == ["no response: reset"]


@pytest.mark.parametrize(
    ("deviation", "status", "result"),
    [
        (None, 200, Result.PASSED),
        (None, 403, Result.FAILED),
        (Deviation(Kind.DEFECT, "known"), 403, Result.DEVIATES),
        (Deviation(Kind.DEFECT, "known"), 200, Result.FAILED),
    ],
)
def test_a_listed_deviation_fails_if_it_no_longer_deviates(
    deviation: Deviation | None, status: int, result: Result
) -> None:
    verdict = judge(case(deviation, Expected(status=200)), Observed(status=status), Places())
    assert verdict.result is result


def case(deviation: Deviation | None, expect: Expected) -> Case:
    return msgspec.structs.replace(load_cases()[0], deviation=deviation, expect=expect)


def test_an_invocations_log_lines_run_from_start_to_report() -> None:
    stamp = "2026-11-24T07:50:26.123Z\t"
    lines = [
        "START RequestId: a Version: 1",
        "x",
        "REPORT RequestId: a\tDuration",
        "START RequestId: b Version: 1",
        "y",
    ]
    assert by_request([stamp + line for line in lines]) == {
        "a": ("START RequestId: a Version: 1", "x", "REPORT RequestId: a\tDuration"),
        "b": ("START RequestId: b Version: 1", "y"),
    }
