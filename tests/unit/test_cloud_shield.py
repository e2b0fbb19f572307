"""The shield of a shift: put up and taken down; and a version's requests from CloudWatch's sums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from hitless.aws.api_stages import ApiStage, ApiStages
from hitless.aws.codedeploy import CodeDeploy, Move
from hitless.aws.traffic import Alarm, Minute, Traffic
from hitless.cloud.stage.shield import IN_HAND_S, SPREADS_S, Shield
from hitless.cloud.transform.model import FunctionIds
from hitless.errors import UsageError
from hitless.release.receipt import ClientCounts
from tests.aws.front.unspread import REFUSALS

pytestmark = pytest.mark.unit

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
STAGE = ApiStage("api", "prod")
ZONES, META = FunctionIds("Zones"), FunctionIds("Meta")
NAMES = {ZONES: "s-prod-zones", META: "s-prod-meta"}
MOVES = {ids: Move(name, ids.base, "live", "4", "5") for ids, name in NAMES.items()}


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "Operation")


@dataclass
class Fake:
    """API Gateway's variables and Lambda's permissions; `refuses` has a call's error by function, or by "set"."""

    held: dict[str, str] = field(default_factory=dict)
    allowed: set[tuple[str, str, str]] = field(default_factory=set)
    refuses: dict[str, ClientError] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    allowed_in_waits: list[int] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        assert seconds in (IN_HAND_S, SPREADS_S)
        self.allowed_in_waits.append(len(self.allowed))

    def variables(self, stage: ApiStage) -> dict[str, str]:
        return dict(self.held)

    def set(self, stage: ApiStage, variables: Mapping[str, str]) -> None:
        if "set" in self.refuses:
            raise self.refuses["set"]
        self.held.update(variables)

    def drop(self, stage: ApiStage, names: Iterable[str]) -> None:
        for name in names:
            del self.held[name]

    def allow_invoke(self, function: str, version: str, *, role_of: str) -> None:
        if function in self.refuses:
            raise self.refuses[function]
        self.allowed.add((function, version, role_of))

    def revoke_invoke(self, function: str, version: str) -> None:
        self.allowed = {one for one in self.allowed if one[:2] != (function, version)}

    @property
    def shield(self) -> Shield:
        return Shield(cast(Any, self), cast(Any, self), self.said.append, self.wait)


def test_the_candidate_may_invoke_the_live_version_only_while_the_shield_is_up() -> None:
    fake = Fake(held={"theirs": "1"})
    fake.shield.up(STAGE, MOVES)
    assert fake.held == {"theirs": "1", "hitlessShieldZones": "4:5", "hitlessShieldMeta": "4:5"}
    assert fake.allowed == {("s-prod-zones", "4", "5"), ("s-prod-meta", "4", "5")}
    assert fake.allowed_in_waits == [2], "no traffic before AWS knows the permissions everywhere"
    fake.shield.down(STAGE, NAMES)
    assert (fake.held, fake.allowed) == ({"theirs": "1"}, set())
    assert fake.allowed_in_waits == [2, 2], "what a candidate has in hand is still answered"
    fake.shield.down(STAGE, NAMES)
    assert fake.allowed_in_waits == [2, 2], "where none stands nobody waits"


def test_the_shield_of_a_deleted_function_is_removed_too() -> None:
    fake = Fake(held={"hitlessShieldGone": "1:2"})
    fake.shield.down(STAGE, NAMES)
    assert fake.held == {}


@pytest.mark.parametrize(
    ("what", "held"), [("set", {}), ("s-prod-zones", {"hitlessShieldMeta": "4:5"})], ids=["all", "one function"]
)
def test_without_the_permission_a_release_continues_unshielded_with_a_message(what: str, held: dict[str, str]) -> None:
    fake = Fake(refuses={what: refused("AccessDeniedException")})
    fake.shield.up(STAGE, MOVES)
    assert fake.held == held
    (said,) = fake.said
    assert "not shielded" in said


def test_a_role_that_lambda_does_not_know_in_time_leaves_its_function_unshielded() -> None:
    _, code, message = REFUSALS["lambda:AddPermission"]
    unknown = ClientError({"Error": {"Code": code, "Message": message}}, "AddPermission")
    fake = Fake(refuses={"s-prod-zones": unknown})
    fake.shield.up(STAGE, MOVES)
    assert fake.held == {"hitlessShieldMeta": "4:5"}
    assert "s-prod-zones is not shielded" in fake.said[0]


def test_any_other_error_is_not_swallowed() -> None:
    fake = Fake(refuses={"s-prod-meta": refused("ServiceException")})
    with pytest.raises(ClientError):
        fake.shield.up(STAGE, MOVES)


class FakeGateway:
    """A stage whose update fails after another process has done it."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.left = variables

    def update_stage(self, **_: Any) -> None:
        raise refused("BadRequestException")

    def get_stage(self, **_: Any) -> dict[str, Any]:
        return {"variables": self.left}


def test_removing_a_stage_variable_that_is_already_gone_succeeds() -> None:
    ApiStages(FakeGateway({"theirs": "1"})).drop(STAGE, ["ours"])
    with pytest.raises(ClientError):
        ApiStages(FakeGateway({"ours": "1"})).drop(STAGE, ["ours"])


class FakeCodeDeploy:
    """A group with two alarms of its own and one of the user's."""

    def __init__(self) -> None:
        self.created: dict[str, Any] = {}

    def get_deployment_group(self, **_: Any) -> dict[str, Any]:
        alarms = [{"name": name} for name in ("failing", "slow", "disk")]
        return {"deploymentGroupInfo": {"alarmConfiguration": {"enabled": True, "alarms": alarms}}}

    def create_deployment(self, **given: Any) -> dict[str, str]:
        self.created = given
        return {"deploymentId": "d-1"}


def test_a_deployment_ignores_only_the_users_alarms_that_were_already_active() -> None:
    client = FakeCodeDeploy()
    codedeploy = CodeDeploy(client, "s-prod")
    codedeploy.start(MOVES[ZONES], configuration="c", description="d", hooks={}, ignoring=["disk"])
    assert client.created["overrideAlarmConfiguration"] == {
        "enabled": True,
        "alarms": [{"name": "failing"}, {"name": "slow"}],
    }
    codedeploy.start(MOVES[ZONES], configuration="c", description="d", hooks={})
    assert "overrideAlarmConfiguration" not in client.created


def test_active_alarms_are_found_and_a_missing_alarm_is_reported() -> None:
    traffic = Traffic(FakeCloudWatch())
    assert traffic.ringing(["disk", "queue"]) == ["disk"]
    assert traffic.ringing([]) == []
    assert traffic.ringing(["disk", "gone"]) == ["disk"]
    assert traffic.alarms(["queue", "all"]) == [Alarm("queue", rings=False), Alarm("all", rings=True, composite=True)]
    with pytest.raises(UsageError, match="no alarm dsik"):
        traffic.alarms(["disk", "dsik"])


class FakeCloudWatch:
    """Each metric has a different value; `disk` is active, `queue` is not; `all` is an active composite alarm."""

    def describe_alarms(self, **given: Any) -> dict[str, Any]:
        states = {"disk": "ALARM", "queue": "OK"}
        known = [name for name in given["AlarmNames"] if name in states]
        made = {"MetricAlarms": [{"AlarmName": name, "StateValue": states[name]} for name in known]}
        if "CompositeAlarm" in given["AlarmTypes"] and "all" in given["AlarmNames"]:
            made["CompositeAlarms"] = [{"AlarmName": "all", "StateValue": "ALARM"}]
        return made

    def __init__(self) -> None:
        self.queries: list[dict[str, Any]] = []

    def get_paginator(self, name: str) -> FakeCloudWatch:
        assert name == "get_metric_data"
        return self

    def paginate(self, **given: Any) -> Iterator[dict[str, Any]]:
        self.queries += given["MetricDataQueries"]
        read: dict[str, list[float]] = {
            "Invocations": [60, 40],
            "Errors": [1],
            "Failed": [2],
            "Shielded": [3, 4],
            "Duration": [12.5, 13],
            "ConcurrentExecutions": [7],
            "Count": [90, 30],
            "4XXError": [5],
            "5XXError": [2],
        }
        for query in given["MetricDataQueries"]:
            values = read[query["MetricStat"]["Metric"]["MetricName"]]
            instants = [NOON + timedelta(minutes=at) for at in range(len(values))]
            yield {"MetricDataResults": [{"Id": query["Id"], "Values": values, "Timestamps": instants}]}


def test_a_versions_total_failed_and_shielded_requests_are_read_per_minute() -> None:
    cloudwatch = FakeCloudWatch()
    versions = [("s-prod-zones", "12"), ("s-prod-meta", "3")]
    read = Traffic(cloudwatch).series(versions, ("live",), since=NOON, until=NOON)
    both = {NOON: Minute(60, 3, 3, 12.5), NOON + timedelta(minutes=1): Minute(40, 0, 4, 13)}
    assert read == {("s-prod-zones", "12"): both, ("s-prod-meta", "3"): both}
    assert len({query["Id"] for query in cloudwatch.queries}) == 10
    assert Traffic(cloudwatch).peak_concurrency("s-prod-zones", "live", until=NOON) == 7
    assert Traffic(cloudwatch).requests(["s-prod-zones", "s-prod-meta"], "live", until=NOON) == {
        "s-prod-zones": 100, "s-prod-meta": 100,
    }  # fmt: skip
    assert Traffic(cloudwatch).answers("prod-s", "prod", since=NOON, until=NOON) == ClientCounts(
        120, 2, {"4xx": 5, "5xx": 2, "other": 113}
    )
    assert Traffic(cloudwatch).series([], ("live",), since=NOON, until=NOON) == {}


def test_lambdas_counts_are_summed_over_aliases_but_the_wrappers_counts_are_not() -> None:
    cloudwatch = FakeCloudWatch()
    read = Traffic(cloudwatch).series([("s-prod-zones", "12")], ("live", "held"), since=NOON, until=NOON)
    assert list(read["s-prod-zones", "12"].values()) == [Minute(120, 4, 3, 12.5), Minute(80, 0, 4, 13)]
    assert len({query["Id"] for query in cloudwatch.queries}) == 7
    named = [one for query in cloudwatch.queries for one in query["MetricStat"]["Metric"]["Dimensions"]]
    through = [one["Value"] for one in named if one["Name"] == "Resource"]
    assert [through.count(f"s-prod-zones:{alias}") for alias in ("live", "held")] == [3, 2]
