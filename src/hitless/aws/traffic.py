"""What Lambda counted of a version's requests. CloudWatch is minutes late: the numbers are a lower bound at the end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any


class Traffic:
    """Sums of Lambda's metrics in CloudWatch. botocore's errors leave as they are."""

    def __init__(self, client: Any) -> None:
        self._cloudwatch = client

    def count(self, versions: Iterable[tuple[str, str, str]], *, since: datetime, until: datetime) -> tuple[int, int]:
        """(requests, failed) of the versions, each (function, alias, version), from the minute of `since` on."""
        queries = [
            {
                "Id": f"{metric.lower()}{at}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/Lambda",
                        "MetricName": metric,
                        "Dimensions": [
                            {"Name": "FunctionName", "Value": function},
                            {"Name": "Resource", "Value": f"{function}:{alias}"},
                            {"Name": "ExecutedVersion", "Value": version},
                        ],
                    },
                    "Period": 60,
                    "Stat": "Sum",
                },
            }
            for at, (function, alias, version) in enumerate(versions)
            for metric in ("Invocations", "Errors")
        ]
        if not queries:
            return 0, 0
        begin = since.replace(second=0, microsecond=0)
        answer = self._cloudwatch.get_metric_data(
            MetricDataQueries=queries, StartTime=begin, EndTime=until + timedelta(minutes=1)
        )
        sums = {found["Id"]: sum(found.get("Values", ())) for found in answer["MetricDataResults"]}
        requests = sum(value for name, value in sums.items() if name.startswith("invocations"))
        return int(requests), int(sum(sums.values()) - requests)
