"""What was counted of a version's requests, from CloudWatch. It is minutes late: at a release's end the numbers are a
lower bound.

Requests and errors are Lambda's own metrics of the version's traffic through the alias. Answers of 5xx, and requests
that the live version answered in the candidate's place, are counted by the wrapper, in metrics by function and version.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from hitless.aws.layer.hitless_wrapper import FAILED, NAMESPACE, SHIELDED

QUERIES_LIMIT = 500
"""CloudWatch's limit on the queries of one GetMetricData."""


class Traffic:
    """Sums of metrics in CloudWatch. botocore's errors leave as they are."""

    def __init__(self, client: Any) -> None:
        self._cloudwatch = client

    def count(
        self, versions: Iterable[tuple[str, str, str]], *, since: datetime, until: datetime
    ) -> tuple[int, int, int]:
        """(requests, failed, shielded) of versions, each (function, alias, version), from the minute of `since` on."""
        wanted = list(enumerate(versions))
        queries = [query for at, version in wanted for query in _queries(at, *version)]
        sums = dict.fromkeys(("invocations", "errors", "failed", "shielded"), 0.0)
        begin, end = since.replace(second=0, microsecond=0), until + timedelta(minutes=1)
        for found in self._read(queries, begin, end):
            sums[found["Id"].rstrip("0123456789")] += sum(found.get("Values", ()))
        return int(sums["invocations"]), int(sums["errors"] + sums["failed"]), int(sums["shielded"])

    def most_at_once(self, function: str, alias: str, *, until: datetime) -> int:
        """How many invocations of the alias ran at once at most, in the hour before `until`; 0 where none is known."""
        query = {
            "Id": "most",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/Lambda",
                    "MetricName": "ConcurrentExecutions",
                    "Dimensions": _dimensions(function, alias),
                },
                "Period": 60,
                "Stat": "Maximum",
            },
        }
        found = [value for one in self._read([query], until - timedelta(hours=1), until) for value in one["Values"]]
        return math.ceil(max(found, default=0))

    def _read(self, queries: list[dict[str, Any]], begin: datetime, end: datetime) -> Iterator[dict[str, Any]]:
        for start in range(0, len(queries), QUERIES_LIMIT):
            pages = self._cloudwatch.get_paginator("get_metric_data").paginate(
                MetricDataQueries=queries[start : start + QUERIES_LIMIT], StartTime=begin, EndTime=end
            )
            for page in pages:
                yield from page["MetricDataResults"]


def _queries(at: int, function: str, alias: str, version: str) -> Iterator[dict[str, Any]]:
    executed = {"Name": "ExecutedVersion", "Value": version}
    lambdas, ours = [*_dimensions(function, alias), executed], [_dimensions(function, alias)[0], executed]
    for space, metric, dimensions in (
        ("AWS/Lambda", "Invocations", lambdas),
        ("AWS/Lambda", "Errors", lambdas),
        (NAMESPACE, FAILED, ours),
        (NAMESPACE, SHIELDED, ours),
    ):
        stat = {"Metric": {"Namespace": space, "MetricName": metric, "Dimensions": dimensions}, "Period": 60}
        yield {"Id": f"{metric.lower()}{at}", "MetricStat": {**stat, "Stat": "Sum"}}


def _dimensions(function: str, alias: str) -> list[dict[str, str]]:
    return [{"Name": "FunctionName", "Value": function}, {"Name": "Resource", "Value": f"{function}:{alias}"}]
