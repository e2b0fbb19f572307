"""A rollout's receipt on AWS, from CloudWatch's sums per minute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from hitless.aws.buckets import Bucket
from hitless.aws.traffic import Alarm, Minute, Traffic
from hitless.cloud.records import receipt as made
from hitless.cloud.records.receipt import CountedRollout, Series
from hitless.cloud.records.records import Record, Rollouts
from hitless.documents import to_plain
from hitless.receipts.page import render
from hitless.receipts.text import in_full
from hitless.release.receipt import ClientCounts, HookEnd, ReceiptFacts
from hitless.release.result import Outcome, Step
from hitless.release.who import Who
from hitless.service.model import AlarmSettings

pytestmark = pytest.mark.unit

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATE = NOON + timedelta(hours=1)
NAMES = {"zones": "s-prod-zones", "meta": "s-prod-meta"}


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def rollout(**changed: Any) -> CountedRollout:
    given: dict[str, Any] = {
        "began": at(0.2),
        "ended": at(5.6),
        "names": NAMES,
        "candidate": {"zones": "8"},
        "live": {"zones": "7", "meta": "3"},
        "weights": [(at(0.2), 0), (at(1), 10), (at(4), 100)],
        "facts": ReceiptFacts(commit="1a2b3c", artifacts={"zones": "sha256:abc"}, who=Who("user/ada"), why="faster"),
    }
    return CountedRollout(**{**given, **changed})


def receipt_of(rollout: CountedRollout, series: Series, clients: ClientCounts | None, now: datetime) -> Any:
    return to_plain(made.receipt_of(rollout, series, clients, now))


def series(**candidate: Minute) -> dict[tuple[str, str], dict[datetime, Minute]]:
    mine = {at(int(name.removeprefix("m"))): minute for name, minute in candidate.items()}
    return {
        ("s-prod-zones", "8"): mine,
        ("s-prod-zones", "7"): {at(minute): Minute(90, 0, 0, 10.0) for minute in range(4)},
        ("s-prod-meta", "3"): {at(minute): Minute(100, 0, 0) for minute in range(5)},
    }


BAKED = series(m1=Minute(30, 0, 0, 12.0), m2=Minute(30, 1, 2, 16.0), m3=Minute(3, 3, 0), m4=Minute(200, 0, 0))


def test_requests_are_summed_per_release_and_an_unchanged_function_counts_as_live() -> None:
    receipt = receipt_of(rollout(), BAKED, None, LATE)
    assert receipt["candidate"]["functions"]["zones"]["requests"] == receipt["candidate"]["requests"] == 263
    assert (receipt["candidate"]["failed"], receipt["candidate"]["shielded"]) == (4, 2)
    assert receipt["candidate"]["by_class"] == {"5xx": 6}
    assert receipt["live"]["functions"]["zones"]["requests"] == 360
    assert receipt["live"]["requests"] == 860
    assert receipt["cost"] == {"requests": 1123, "failed": 4, "shielded": 2, "complete": True}
    assert receipt_of(rollout(live={}), BAKED, None, LATE)["live"] is None


def test_a_minutes_requests_count_for_the_weight_that_applied_longest_in_it() -> None:
    weights = receipt_of(rollout(), BAKED, None, LATE)["weights"]
    asked = [(each["asked_percent"], each["candidate"]["requests"], each["got_percent"]) for each in weights]
    assert asked == [(0, 0, 0.0), (10, 63, round(6300 / 633, 2)), (100, 200, round(20000 / 300, 2))]
    assert sum(each["live"]["requests"] for each in weights) == 860
    assert [(each["from"][14:19], each["to"][14:19]) for each in weights] == [
        ("00:12", "01:00"),
        ("01:00", "04:00"),
        ("04:00", "05:36"),
    ]


def test_each_point_is_the_sum_up_to_the_end_of_a_minute() -> None:
    points = receipt_of(rollout(), BAKED, None, LATE)["points"]
    assert points[0]["candidate"] == {"requests": 0, "failed": 0, "shielded": 0}
    assert points[-1]["candidate"] == {"requests": 263, "failed": 4, "shielded": 2}
    assert [point["at"][14:16] for point in points] == ["00", "01", "02", "03", "04", "05"]


def test_a_receipts_alarm_readings_follow_cloudwatchs_rules() -> None:
    alarms = receipt_of(rollout(), BAKED, None, LATE)["alarms"]
    assert alarms["verdicts"] == {"ok": 2, "alarm": 1, "not_enough_data": 1}
    assert [reading["verdict"] for reading in alarms["readings"]] == ["ok", "alarm", "not_enough_data", "ok"]
    assert alarms["readings"][1]["sentence"] == "zones: 3 of 30 requests failed"
    assert alarms["worst"]["error_rate_percent"]["figures"]["error_rate_percent"] == 10
    slow = AlarmSettings(p99_relative_percent=140, error_rate_percent=50)
    (rings,) = (
        one
        for one in receipt_of(rollout(alarms=slow), BAKED, None, LATE)["alarms"]["readings"]
        if one["verdict"] == "alarm"
    )
    assert rings["sentence"].endswith("p99 16 ms, alarm above 15 ms")


def test_a_rollout_without_a_bake_has_no_alarm_readings() -> None:
    alarms = receipt_of(rollout(weights=[(at(0.2), 0), (at(1), 100)]), BAKED, None, LATE)["alarms"]
    assert alarms == {"verdicts": {}, "readings": [], "worst": {}}


@pytest.mark.parametrize(
    ("changed", "clients", "now", "says"),
    [
        ({}, None, at(6), "ask again after 12:08 UTC"),
        (
            {},
            ClientCounts(1200, 9, {"4xx": 20, "5xx": 9, "other": 1171}),
            LATE,
            "answered 5 more with 5xx than the versions failed",
        ),
        ({"unwrapped": ["meta"]}, None, LATE, "that meta returned"),
    ],
    ids=["too early", "the gateway's own", "not wrapped"],
)
def test_an_incomplete_receipt_says_which_figures_may_be_missing(
    changed: dict[str, Any], clients: ClientCounts | None, now: datetime, says: str
) -> None:
    receipt = receipt_of(rollout(**changed), BAKED, clients, now)
    (sentence,) = receipt["missing"]
    assert says in sentence
    assert not receipt["complete"]


def test_responses_to_clients_are_counted_by_class() -> None:
    receipt = receipt_of(rollout(), BAKED, ClientCounts(1200, 4, {"4xx": 20, "5xx": 4, "other": 1176}), LATE)
    assert receipt["complete"]
    assert receipt["clients"] == {"requests": 1200, "failed": 4, "by_class": {"4xx": 20, "5xx": 4, "other": 1176}}


@dataclass
class InMemoryBucket(Bucket):
    """Documents; with `denies` it refuses to write."""

    held: dict[str, str] = field(default_factory=dict)
    denies: bool = False

    def get_json(self, key: str) -> tuple[Any, str] | None:
        return (json.loads(self.held[key]), str(hash(self.held[key]))) if key in self.held else None

    def put_json(self, key: str, document: Mapping[str, Any], *, new: bool = False, over: str = "") -> str:
        if self.denies:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")
        assert new == (key not in self.held)
        self.held[key] = json.dumps(document)
        return str(hash(self.held[key]))

    def keys(self, prefix: str) -> list[str]:
        return list(self.held)


@dataclass
class Late(Traffic):
    """CloudWatch: `known` are the figures that it has so far."""

    known: Mapping[tuple[str, str], Mapping[datetime, Minute]] = field(default_factory=dict)
    asked: int = 0

    def series(self, versions: Any, aliases: Any, *, since: datetime, until: datetime) -> Any:
        assert tuple(aliases) == ("live", "held")
        self.asked += 1
        return {version: self.known.get(version, {}) for version in versions}

    def answers(self, api: str, stage: str, *, since: datetime, until: datetime) -> ClientCounts:
        assert (api, stage) == ("prod-s", "prod")
        return ClientCounts(0, 0, {})

    def ringing(self, alarms: Any) -> list[str]:
        return []

    def alarms(self, names: Any) -> list[Alarm]:
        return []

    def requests(self, functions: Any, alias: str, *, until: datetime) -> dict[str, int]:
        return dict.fromkeys(functions, 0)

    def peak_concurrency(self, function: str, alias: str, *, until: datetime) -> int:
        return 0


@dataclass
class Clock:
    at: datetime

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits")


ENDED = Record(
    8, "s", "prod", "2026-11-24T12:00:12.000Z", "mark", "Canary10Percent5Minutes", outcome=Outcome.LIVE,
    steps=(Step("2026-11-24T12:00:12.000Z", "preparing", 0),),
)  # fmt: skip
API = ("prod-s", "prod")
RELEASE = {"release": 8, "stage": "prod", "live": True}


@pytest.mark.parametrize("denies", [False, True], ids=["writes", "only reads"])
def test_a_receipt_that_was_made_too_early_is_made_again_once(denies: bool) -> None:
    bucket, cloudwatch, clock = InMemoryBucket(), Late(), Clock(at(5.6))
    rollouts = Rollouts(bucket, "prod", cloudwatch, clock)
    first = rollouts.add(ENDED, rollout(api=API), verb="deploy", previous=7, duration_s=324.0)
    assert first.receipt is not None
    assert first.candidate is not None
    assert (first.receipt.complete, first.candidate.requests) == (False, 0)
    cloudwatch.known, clock.at, bucket.denies = BAKED, LATE, denies
    (entry,) = rollouts.of(8)
    assert entry.candidate
    assert to_plain(entry.receipt) == receipt_of(rollout(), BAKED, ClientCounts(0, 0, {}), LATE)
    assert (entry.candidate.requests, "counting" in to_plain(entry)) == (263, False)
    assert rollouts.of(8) == [entry]
    assert cloudwatch.asked == (3 if denies else 2)


def test_a_receipt_of_aws_is_shown_like_one_of_the_engine() -> None:
    bucket, cloudwatch, clock = InMemoryBucket(), Late(BAKED), Clock(LATE)
    rollouts = Rollouts(bucket, "prod", cloudwatch, clock)
    hooks = [HookEnd("2026-11-24T12:00:30.000Z", "BeforeAllowTraffic of s-prod-zones", "Succeeded")]
    rollouts.add(ENDED, rollout(hooks=hooks, api=API), verb="deploy", previous=7, duration_s=324.0)
    rollouts.add(ENDED, rollout(), verb="rollback", previous=7, duration_s=324.0)
    document = {**RELEASE, "rollouts": to_plain(rollouts.of(8))}
    assert [one.rollout for one in rollouts.of(8)] == [2, 1]
    text = in_full(document)
    assert "the rollback to release 8: 4 of 1,123 requests failed" in text
    assert "2 requests that it failed were answered by release 7" in text
    assert "user/ada" in text
    page = render(document)
    assert "release 8: 4 of 1,123 requests failed" in page
    assert "counted by Lambda and the wrapper" in page
    assert "BeforeAllowTraffic of s-prod-zones" in page
