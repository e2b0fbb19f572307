"""`hitless logs` on AWS: the handlers' lines in CloudWatch."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from hitless.aws.lambdas import Logs
from hitless.clock import timestamp
from hitless.cloud.stage.stage import function_names
from hitless.errors import UsageError
from hitless.homes.aws_stage import AwsStage, connected_stage
from hitless.homes.home import LogQuery, Workplace

DEFAULT_MINUTES = 15
FOLLOW_EVERY_S = 2.0
OVERLAP_MS = 10_000
"""Following reads the last seconds again, because lines reach CloudWatch late."""


@dataclass(frozen=True, slots=True)
class CloudWatchLine:
    """A line in CloudWatch; `event` is its id there."""

    at_ms: int
    function: str
    text: str
    event: str

    @property
    def at(self) -> str:
        return timestamp(datetime.fromtimestamp(self.at_ms / 1000, UTC))


def cloudwatch_lines(place: Workplace, query: LogQuery) -> Iterator[CloudWatchLine]:
    """The lines of the last minutes, oldest first; if the query follows, then new ones."""
    service = place.load_for_aws()
    if query.function is not None and service.function(query.function) is None:
        known = ", ".join(sorted(each.name for each in service.functions))
        raise UsageError(f"there is no function {query.function}", hint=f"known: {known}")
    with connected_stage(place, service) as stage:
        groups = _groups(stage, query.function, query.release)
        reader = Logs(stage.aws.client("logs"))
        lines = _lines(reader, groups, int((time.time() - 60 * (query.minutes or DEFAULT_MINUTES)) * 1000))
        yield from lines[-(query.limit or 0) :]
        while query.follow:
            seen = set(lines)
            time.sleep(FOLLOW_EVERY_S)
            lines = _lines(reader, groups, int(time.time() * 1000) - OVERLAP_MS)
            yield from (line for line in lines if line not in seen)


def _groups(stage: AwsStage, function: str | None, release: int | None) -> dict[str, str]:
    """Log group → the part of its streams' names that the release's version has; empty for any."""
    service = stage.service
    observed = stage.cloud.stack.observe()
    names = function_names(stage.cloud, observed, service=service.name, stage=service.stage)
    versions = dict(stage.cloud.records.require(release).versions) if release is not None else {}
    return {
        f"/aws/lambda/{lambda_name}": f"[{versions[name]}]" if name in versions else ""
        for lambda_name, name in sorted(names.items())
        if function in (None, name) and (release is None or name in versions)
    }


def _lines(reader: Logs, groups: dict[str, str], since_ms: int) -> list[CloudWatchLine]:
    """The lines of all groups, oldest first."""
    streams = [
        (
            CloudWatchLine(at, group.rpartition("/")[2], line, event)
            for at, event, line in reader.lines(group, since_ms=since_ms, stream_part=part)
        )
        for group, part in groups.items()
    ]
    return list(heapq.merge(*streams, key=lambda line: line.at_ms))
