"""Makes a rollout's receipt on AWS, in the engine's form (docs/receipts.md). Pure: from CloudWatch's sums by the
minute.

A minute belongs to the weight that stood through most of it; the first and the last minute count whole. Lambda and the
wrapper count each version's requests. API Gateway counts the responses that clients received.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from hitless.aws.traffic import Minute
from hitless.clock import timestamp
from hitless.release.receipt import (
    READINGS_KEPT,
    AlarmHistory,
    AlarmReading,
    ClassCounts,
    ClientCounts,
    HookEnd,
    Interval,
    ReceiptDocument,
    ReceiptFacts,
    ReceiptPoint,
    ReleaseCounts,
    Sums,
)
from hitless.service.model import AlarmSettings

SETTLES_AFTER = timedelta(minutes=3)
"""CloudWatch has a minute's sums after that time."""

Version = tuple[str, str]
"""Lambda's name of a function, and its version."""

Series = Mapping[Version, Mapping[datetime, Minute]]


@dataclass(frozen=True, slots=True)
class CountedRollout:
    """What a receipt is about. `candidate` and `live`: function's name in serverless.yml → version; `live` is empty for
    a first release. `weights`: (instant, percent) as they were seen on the aliases.
    """

    began: datetime
    ended: datetime
    names: Mapping[str, str]
    """The function's name in serverless.yml → Lambda's."""
    candidate: Mapping[str, str]
    live: Mapping[str, str]
    weights: Sequence[tuple[datetime, float]] = ()
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    hooks: Sequence[HookEnd] = ()
    facts: ReceiptFacts = field(default_factory=ReceiptFacts)
    unwrapped: Sequence[str] = ()
    """Functions whose 5xx responses are not counted."""
    api: tuple[str, str] | None = None
    """The name and the stage by which API Gateway counts."""

    def versions(self) -> list[Version]:
        """The functions of both sides, each once."""
        both = [*self.candidate.items(), *self.live.items()]
        return list(dict.fromkeys((self.names[name], version) for name, version in both))


def receipt_of(rollout: CountedRollout, series: Series, clients: ClientCounts | None, now: datetime) -> ReceiptDocument:
    """The whole document."""
    candidate = _side(rollout.names, rollout.candidate, series)
    live = _side(rollout.names, rollout.live, series) if rollout.live else None
    minutes = _minutes(rollout, series)
    missing = _missing(rollout, clients, [side for side in (candidate, live) if side], now)
    document = ReceiptDocument(
        **msgspec.structs.asdict(rollout.facts),
        counted_by="by Lambda and the wrapper, by the minute",
        complete=not missing,
        missing=tuple(missing),
        candidate=candidate,
        live=live,
        clients=clients,
        weights=_weights(rollout, minutes),
        points=_points(minutes),
        alarms=_alarms(rollout, series),
        hooks=tuple(rollout.hooks),
    )
    return msgspec.structs.replace(document, cost=document.total)


@dataclass(frozen=True, slots=True)
class _Both:
    """One minute of both sides."""

    at: datetime
    candidate: Sums
    live: Sums


def _side(names: Mapping[str, str], versions: Mapping[str, str], series: Series) -> ReleaseCounts:
    by_function = {
        name: ClassCounts(*_counts(_sum(series.get((names[name], version), {}).values())))
        for name, version in versions.items()
    }
    whole = _sum(minute for name, one in versions.items() for minute in series.get((names[name], one), {}).values())
    return ReleaseCounts(*_counts(whole), functions=by_function)


def _sum(parts: Iterable[Sums]) -> Sums:
    counted = [(one.requests, one.failed, one.shielded) for one in parts]
    return Sums(*map(sum, zip(*counted, strict=True))) if counted else Sums(0, 0, 0)


def _counts(whole: Sums) -> tuple[int, int, int, Mapping[str, int], int]:
    """The fields of ClassCounts. Of a version's responses only those of 5xx are known by class."""
    bad = whole.failed + whole.shielded
    return whole.requests, whole.failed, whole.shielded, {"5xx": bad} if bad else {}, 0


def _missing(
    rollout: CountedRollout, clients: ClientCounts | None, sides: Sequence[ReleaseCounts], now: datetime
) -> list[str]:
    found = []
    if now < (settled := rollout.ended + SETTLES_AFTER):
        found.append(f"CloudWatch is minutes late: ask again after {timestamp(settled)[11:16]} UTC")
    failed = sum(side.failed for side in sides)
    if clients is not None and clients.failed > failed:
        more = clients.failed - failed
        found.append(f"API Gateway answered {more:,} more with 5xx than the versions failed: time-outs, or throttled")
    if rollout.unwrapped:
        found.append(f"5xx responses that {', '.join(rollout.unwrapped)} returned are not counted")
    return found


def _minutes(rollout: CountedRollout, series: Series) -> list[_Both]:
    """Each minute of the rollout in which a request came."""
    sides = [
        [series.get((rollout.names[name], version), {}) for name, version in versions.items()]
        for versions in (rollout.candidate, rollout.live)
    ]
    instants = sorted({at for side in sides for one in side for at in one})
    return [_Both(at, *(_sum(one[at] for one in side if at in one) for side in sides)) for at in instants]


def _weights(rollout: CountedRollout, minutes: Sequence[_Both]) -> tuple[Interval, ...]:
    weights = list(rollout.weights)
    ends = [*(at for at, _ in weights[1:]), rollout.ended]
    intervals = [(start, end, percent) for (start, percent), end in zip(weights, ends, strict=True)]
    held: list[list[_Both]] = [[] for _ in intervals]
    for minute in minutes:
        end = minute.at + timedelta(minutes=1)
        overlaps = [min(end, to) - max(minute.at, since) for since, to, _ in intervals]
        if overlaps and max(overlaps) > timedelta():
            held[overlaps.index(max(overlaps))].append(minute)
    return tuple(_interval(*interval, inside) for interval, inside in zip(intervals, held, strict=True))


def _interval(start: datetime, end: datetime, percent: float, minutes: Sequence[_Both]) -> Interval:
    candidate, live = _sum(one.candidate for one in minutes), _sum(one.live for one in minutes)
    requests = candidate.requests + live.requests
    return Interval(
        since=timestamp(start),
        to=timestamp(end),
        asked_percent=percent,
        got_percent=round(100 * candidate.requests / requests, 2) if requests else None,
        candidate=msgspec.structs.asdict(candidate),
        live=msgspec.structs.asdict(live),
    )


def _points(minutes: Sequence[_Both]) -> tuple[ReceiptPoint, ...]:
    """The sums at each minute's end."""
    candidate = live = _sum(())
    points = [ReceiptPoint(timestamp(minutes[0].at), candidate, live)] if minutes else []
    for minute in minutes:
        candidate, live = _sum((candidate, minute.candidate)), _sum((live, minute.live))
        points.append(ReceiptPoint(timestamp(minute.at + timedelta(minutes=1)), candidate, live))
    return tuple(points)


def _alarms(rollout: CountedRollout, series: Series) -> AlarmHistory:
    """What the alarms saw of each function's candidate, minute by minute while it baked, by their own arithmetic."""
    baking = [at for at, percent in rollout.weights if 0 < percent < 100]
    since = min(baking, default=datetime.max.replace(tzinfo=UTC)).replace(second=0, microsecond=0)
    readings = [
        _reading(rollout, name, at, minute, series.get((rollout.names[name], rollout.live.get(name, "")), {}).get(at))
        for name, version in rollout.candidate.items()
        if name in rollout.live
        for at, minute in series.get((rollout.names[name], version), {}).items()
        if at >= since
    ]
    readings.sort(key=lambda one: one.at)
    verdicts = [one.verdict for one in readings]
    edges = {0, len(readings) - 1} | {at for at in range(1, len(verdicts)) if verdicts[at] != verdicts[at - 1]}
    kept = [one for at, one in enumerate(readings) if at in edges]
    worst = {}
    for figure in ("error_rate_percent", "p99_ms"):
        judged = [one for one in readings if one.verdict != "not_enough_data" and one.figures[figure] is not None]
        if judged:
            worst[figure] = max(judged, key=lambda one: one.figures[figure] or 0)
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    last = kept[READINGS_KEPT - 1 :][-1:]
    return AlarmHistory(counts, (*kept[: READINGS_KEPT - 1], *last), worst)


def _reading(rollout: CountedRollout, name: str, at: datetime, seen: Minute, live: Minute | None) -> AlarmReading:
    limits, bad = rollout.alarms, seen.failed + seen.shielded
    percent = 100 * bad / seen.requests if seen.requests else 0.0
    live_ms = live.p99_ms if live and live.requests >= limits.minimum_requests else None
    sentence, rings = f"{name}: {bad:,} of {seen.requests:,} requests failed", percent > limits.error_rate_percent
    for limit_ms in (limits.p99_ms, _relative(limits, live_ms)):
        if limit_ms is not None and seen.p99_ms is not None and seen.p99_ms > limit_ms:
            sentence, rings = f"{sentence}; p99 {seen.p99_ms:.3g} ms, alarm above {limit_ms:.3g} ms", True
    verdict = "alarm" if rings else "ok"
    if seen.requests < limits.minimum_requests:
        sentence, verdict = f"{sentence}; {limits.minimum_requests} are needed for a verdict", "not_enough_data"
    figures = {
        "requests": seen.requests,
        "failed": bad,
        "error_rate_percent": round(percent, 3),
        "p99_ms": seen.p99_ms,
        "live_p99_ms": live_ms,
    }
    return AlarmReading(timestamp(at + timedelta(minutes=1)), verdict, sentence, figures)


def _relative(limits: AlarmSettings, live_ms: float | None) -> float | None:
    if limits.p99_relative_percent is None or live_ms is None:
        return None
    return max(live_ms * limits.p99_relative_percent / 100, live_ms + 5)
