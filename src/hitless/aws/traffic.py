"""Counts requests and reads alarms from CloudWatch, which is minutes late: at a release's end the numbers are a lower
bound.

Requests and errors are Lambda's own metrics of the version's traffic through its aliases. The wrapper counts responses
of 5xx and shielded requests, in metrics by function and version. What clients received is API Gateway's count for the
API's stage.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hitless.aws.layer.hitless_wrapper import FAILED, NAMESPACE, SHIELDED
from hitless.errors import UsageError
from hitless.release.receipt import ClientCounts, Sums

ALARMS_LIMIT = 100
"""CloudWatch's limit on the names of one DescribeAlarms."""

QUERIES_LIMIT = 500
"""CloudWatch's limit on the queries of one GetMetricData."""


class Minute(Sums, frozen=True):
    """A version's requests in one minute."""

    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm's state. A composite one combines others."""

    name: str
    rings: bool
    composite: bool = False


class Traffic:
    """Sums of metrics in CloudWatch. botocore's errors leave as they are."""

    def __init__(self, client: Any) -> None:
        self._cloudwatch = client

    def series(
        self, versions: Iterable[tuple[str, str]], aliases: Sequence[str], *, since: datetime, until: datetime
    ) -> dict[tuple[str, str], dict[datetime, Minute]]:
        """(function, version) → the minutes in which it had a request through one of the aliases, with the minute's
        beginning.

        The first minute is that of `since`. The p99 is that of the first alias.
        """
        wanted = dict(enumerate(versions))
        queries = [
            query for at, (function, version) in wanted.items() for query in _queries(at, function, aliases, version)
        ]
        read: dict[int, dict[datetime, dict[str, float]]] = {at: {} for at in wanted}
        for found in self._read(queries, since.replace(second=0, microsecond=0), until + timedelta(minutes=1)):
            kind, number, _ = found["Id"].split("_")
            for at, value in zip(found.get("Timestamps", ()), found.get("Values", ()), strict=True):
                sums = read[int(number)].setdefault(at, {})
                sums[kind] = sums.get(kind, 0) + value
        return {
            version: {at: _minute(values) for at, values in sorted(read[number].items())}
            for number, version in wanted.items()
        }

    def answers(self, api: str, stage: str, *, since: datetime, until: datetime) -> ClientCounts:
        """The responses of that stage of the REST API with that name, from the minute of `since` on."""
        dimensions = [{"Name": "ApiName", "Value": api}, {"Name": "Stage", "Value": stage}]
        names = {"requests": "Count", "refused": "4XXError", "failed": "5XXError"}
        queries = [_query(name, "AWS/ApiGateway", metric, dimensions) for name, metric in names.items()]
        sums = dict.fromkeys(names, 0)
        for found in self._read(queries, since.replace(second=0, microsecond=0), until + timedelta(minutes=1)):
            sums[found["Id"]] += int(sum(found.get("Values", ())))
        requests, refused, failed = sums.values()
        classes = {"4xx": refused, "5xx": failed, "other": requests - refused - failed}
        return ClientCounts(requests, failed, {name: number for name, number in classes.items() if number > 0})

    def ringing(self, alarms: Collection[str]) -> list[str]:
        """The named alarms that are in ALARM now. A missing one does not ring."""
        return [name for name, one in self._found(alarms).items() if one.rings]

    def alarms(self, names: Collection[str]) -> list[Alarm]:
        """The named alarms with their states. Raises UsageError if one is missing."""
        found = self._found(names)
        if missing := [name for name in names if name not in found]:
            raise UsageError(
                f"alarms.also: there is no alarm {missing[0]} in CloudWatch",
                hint="create it in the stage's region and account first, or remove it",
            )
        return [found[name] for name in names]

    def _found(self, names: Collection[str]) -> dict[str, Alarm]:
        found: dict[str, Alarm] = {}
        for start in range(0, len(names), ALARMS_LIMIT):
            answer = self._cloudwatch.describe_alarms(
                AlarmNames=list(names)[start : start + ALARMS_LIMIT], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
            )
            for kind, is_composite in (("MetricAlarms", False), ("CompositeAlarms", True)):
                for one in answer.get(kind, ()):
                    name = str(one["AlarmName"])
                    found[name] = Alarm(name, one["StateValue"] == "ALARM", is_composite)
        return found

    def peak_concurrency(self, function: str, alias: str, *, until: datetime) -> int:
        """The alias's highest concurrency in the hour before `until`; 0 if it is unknown."""
        query = _query("most", "AWS/Lambda", "ConcurrentExecutions", _dimensions(function, alias), "Maximum")
        found = [value for one in self._read([query], until - timedelta(hours=1), until) for value in one["Values"]]
        return math.ceil(max(found, default=0))

    def requests(self, functions: Sequence[str], alias: str, *, until: datetime) -> dict[str, int]:
        """Function → its requests through the alias in the hour before `until`."""
        queries = [
            _query(f"n_{at}", "AWS/Lambda", "Invocations", _dimensions(one, alias)) for at, one in enumerate(functions)
        ]
        sums = dict.fromkeys(functions, 0)
        for found in self._read(queries, until - timedelta(hours=1), until):
            sums[functions[int(found["Id"].partition("_")[2])]] += int(sum(found.get("Values", ())))
        return sums

    def _read(self, queries: list[dict[str, Any]], begin: datetime, end: datetime) -> Iterator[dict[str, Any]]:
        for start in range(0, len(queries), QUERIES_LIMIT):
            pages = self._cloudwatch.get_paginator("get_metric_data").paginate(
                MetricDataQueries=queries[start : start + QUERIES_LIMIT], StartTime=begin, EndTime=end
            )
            for page in pages:
                yield from page["MetricDataResults"]


def _minute(values: Mapping[str, float]) -> Minute:
    return Minute(
        int(values.get("invocations", 0)),
        int(values.get("errors", 0) + values.get("failed", 0)),
        int(values.get("shielded", 0)),
        values.get("duration"),
    )


def _queries(at: int, function: str, aliases: Sequence[str], version: str) -> Iterator[dict[str, Any]]:
    """Queries named KIND_VERSION_ALIAS. The wrapper's metrics have no alias."""
    executed = {"Name": "ExecutedVersion", "Value": version}
    for number, alias in enumerate(aliases):
        through = [*_dimensions(function, alias), executed]
        for metric in ("Invocations", "Errors"):
            yield _query(f"{metric.lower()}_{at}_{number}", "AWS/Lambda", metric, through)
    for metric in (FAILED, SHIELDED):
        ours = [{"Name": "FunctionName", "Value": function}, executed]
        yield _query(f"{metric.lower()}_{at}_0", NAMESPACE, metric, ours)
    yield _query(f"duration_{at}_0", "AWS/Lambda", "Duration", [*_dimensions(function, aliases[0]), executed], "p99")


def _query(name: str, space: str, metric: str, dimensions: list[dict[str, str]], stat: str = "Sum") -> dict[str, Any]:
    of = {"Namespace": space, "MetricName": metric, "Dimensions": dimensions}
    return {"Id": name, "MetricStat": {"Metric": of, "Period": 60, "Stat": stat}}


def _dimensions(function: str, alias: str) -> list[dict[str, str]]:
    return [{"Name": "FunctionName", "Value": function}, {"Name": "Resource", "Value": f"{function}:{alias}"}]
