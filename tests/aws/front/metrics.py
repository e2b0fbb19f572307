"""Metrics as Lambda publishes them: its own by alias and version, and those in a log's embedded metric format."""

from __future__ import annotations

import json
from typing import Any


def embedded_metrics(log: str) -> list[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """(namespace, metric, dimensions) of each counter in a log's lines of the embedded metric format, where it is 1."""
    found = []
    for line in log.splitlines():
        try:
            document = json.loads(line)
            directives = document["_aws"]["CloudWatchMetrics"]
        except (ValueError, TypeError, KeyError):
            continue
        for directive in directives:
            for metric in directive["Metrics"]:
                assert document[metric["Name"]] == 1, line
                for names in directive["Dimensions"]:
                    dimensions = tuple((name, str(document[name])) for name in names)
                    found.append((str(directive["Namespace"]), str(metric["Name"]), dimensions))
    return found


def data_of(key: tuple[str, str, str, str, str], count: int) -> list[dict[str, Any]]:
    _, function, qualifier, version, name = key
    return [
        {"MetricName": name, "Dimensions": dimensions, "Value": count, "Unit": "Count"}
        for dimensions in dimensions_of(function, qualifier, version)
    ]


def dimensions_of(function: str, qualifier: str, version: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The dimensions of the alias, and of a version's traffic through it."""
    by_alias = [{"Name": "FunctionName", "Value": function}, {"Name": "Resource", "Value": f"{function}:{qualifier}"}]
    return by_alias, [*by_alias, {"Name": "ExecutedVersion", "Value": version}]
