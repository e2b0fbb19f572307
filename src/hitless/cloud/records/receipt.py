"""A rollout's receipt on AWS, in the engine's form (docs/receipts.md): pure, from what CloudWatch summed by the minute.

CloudWatch knows whole minutes: a minute belongs to the weight that stood through most of it, and the first and the last
minute count whole. What each version did is Lambda's and the wrapper's count; what clients got is API Gateway's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hitless.aws.traffic import Answers, Minute
from hitless.clock import timestamp
from hitless.service.model import AlarmSettings

VERSION = 1
SETTLES_AFTER = timedelta(minutes=3)
"""CloudWatch has a minute's sums by then."""

READINGS_KEPT = 24
Version = tuple[str, str]
"""Lambda's name of a function, and a version of it."""

Series = Mapping[Version, Mapping[datetime, Minute]]


@dataclass(frozen=True, slots=True)
class Rollout:
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
    hooks: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    unwrapped: Sequence[str] = ()
    """Functions whose responses of 5xx nobody counts."""
    api: tuple[str, str] | None = None
    """The name and the stage by which API Gateway counts."""

    def versions(self) -> list[Version]:
        """Of both sides, each once."""
        both = [*self.candidate.items(), *self.live.items()]
        return list(dict.fromkeys((self.names[name], version) for name, version in both))


def receipt_of(rollout: Rollout, series: Series, clients: Answers | None, now: datetime) -> dict[str, Any]:
    """The whole document."""
    candidate = _side(rollout.names, rollout.candidate, series)
    live = _side(rollout.names, rollout.live, series) if rollout.live else None
    minutes = _minutes(rollout, series)
    missing = _missing(rollout, clients, [side for side in (candidate, live) if side], now)
    return {
        "version": VERSION,
        **rollout.facts,
        "counted_by": "by Lambda and the wrapper, by the minute",
        "complete": not missing,
        "missing": missing,
        "cost": _cost(candidate, live, complete=not missing),
        "candidate": candidate,
        "live": live,
        "clients": clients.to_json() if clients else None,
        "weights": _weights(rollout, minutes),
        "points": _points(minutes),
        "alarms": _alarms(rollout, series),
        "hooks": [dict(hook) for hook in rollout.hooks],
    }


@dataclass(frozen=True, slots=True)
class _Both:
    """One minute of both sides."""

    at: datetime
    candidate: Minute
    live: Minute


def _side(names: Mapping[str, str], versions: Mapping[str, str], series: Series) -> dict[str, Any]:
    by_function = {
        name: _counted(_sum(series.get((names[name], version), {}).values())) for name, version in versions.items()
    }
    whole = _sum(minute for name, one in versions.items() for minute in series.get((names[name], one), {}).values())
    return {**_counted(whole), "functions": by_function}


def _sum(minutes: Iterable[Minute]) -> Minute:
    total = Minute()
    for minute in minutes:
        total = total.plus(minute)
    return total


def _counted(minute: Minute) -> dict[str, Any]:
    """Of a version only the answers of 5xx are known by class."""
    bad = minute.failed + minute.shielded
    return {**minute.sums(), "by_class": {"5xx": bad} if bad else {}, "restarts": 0}


def _cost(candidate: Mapping[str, Any], live: Mapping[str, Any] | None, *, complete: bool) -> dict[str, Any]:
    names = ("requests", "failed", "shielded")
    return {**{name: candidate[name] + (live[name] if live else 0) for name in names}, "complete": complete}


def _missing(rollout: Rollout, clients: Answers | None, sides: Sequence[Mapping[str, Any]], now: datetime) -> list[str]:
    found = []
    if now < (settled := rollout.ended + SETTLES_AFTER):
        found.append(f"CloudWatch is minutes late: ask again after {timestamp(settled)[11:16]} UTC")
    failed = sum(side["failed"] for side in sides)
    if clients is not None and clients.failed > failed:
        more = clients.failed - failed
        found.append(f"API Gateway answered {more:,} more with 5xx than any version failed: out of time, or throttled")
    if rollout.unwrapped:
        found.append(f"answers of 5xx that {', '.join(rollout.unwrapped)} returned: nothing counts them")
    return found


def _minutes(rollout: Rollout, series: Series) -> list[_Both]:
    """Each minute of the rollout in which a request came."""
    sides = [
        [series.get((rollout.names[name], version), {}) for name, version in versions.items()]
        for versions in (rollout.candidate, rollout.live)
    ]
    instants = sorted({at for side in sides for one in side for at in one})
    return [_Both(at, *(_sum(one[at] for one in side if at in one) for side in sides)) for at in instants]


def _weights(rollout: Rollout, minutes: Sequence[_Both]) -> list[dict[str, Any]]:
    weights = list(rollout.weights)
    ends = [*(at for at, _ in weights[1:]), rollout.ended]
    intervals = [(start, end, percent) for (start, percent), end in zip(weights, ends, strict=True)]
    held: list[list[_Both]] = [[] for _ in intervals]
    for minute in minutes:
        end = minute.at + timedelta(minutes=1)
        overlaps = [min(end, to) - max(minute.at, since) for since, to, _ in intervals]
        if overlaps and max(overlaps) > timedelta():
            held[overlaps.index(max(overlaps))].append(minute)
    return [_interval(*interval, inside) for interval, inside in zip(intervals, held, strict=True)]


def _interval(start: datetime, end: datetime, percent: float, minutes: Sequence[_Both]) -> dict[str, Any]:
    candidate, live = _sum(one.candidate for one in minutes), _sum(one.live for one in minutes)
    requests = candidate.requests + live.requests
    return {
        "from": timestamp(start),
        "to": timestamp(end),
        "asked_percent": percent,
        "got_percent": round(100 * candidate.requests / requests, 2) if requests else None,
        "candidate": candidate.sums(),
        "live": live.sums(),
    }


def _points(minutes: Sequence[_Both]) -> list[dict[str, Any]]:
    """The sums at each minute's end."""
    points, candidate, live = [], Minute(), Minute()
    if minutes:
        points.append({"at": timestamp(minutes[0].at), "candidate": candidate.sums(), "live": live.sums()})
    for minute in minutes:
        candidate, live = candidate.plus(minute.candidate), live.plus(minute.live)
        at = timestamp(minute.at + timedelta(minutes=1))
        points.append({"at": at, "candidate": candidate.sums(), "live": live.sums()})
    return points


def _alarms(rollout: Rollout, series: Series) -> dict[str, Any]:
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
    readings.sort(key=lambda one: str(one["at"]))
    verdicts = [one["verdict"] for one in readings]
    edges = {0, len(readings) - 1} | {at for at in range(1, len(verdicts)) if verdicts[at] != verdicts[at - 1]}
    kept = [one for at, one in enumerate(readings) if at in edges]
    worst = {}
    for figure in ("error_rate_percent", "p99_ms"):
        judged = [one for one in readings if one["verdict"] != "not_enough_data" and one["figures"][figure] is not None]
        if judged:
            worst[figure] = max(judged, key=lambda one: float(one["figures"][figure]))
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    return {
        "verdicts": counts,
        "readings": [*kept[: READINGS_KEPT - 1], *kept[READINGS_KEPT - 1 :][-1:]],
        "worst": worst,
    }


def _reading(rollout: Rollout, name: str, at: datetime, seen: Minute, live: Minute | None) -> dict[str, Any]:
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
    figures = {"requests": seen.requests, "failed": bad, "error_rate_percent": round(percent, 3)}
    return {
        "at": timestamp(at + timedelta(minutes=1)),
        "verdict": verdict,
        "sentence": sentence,
        "figures": {**figures, "p99_ms": seen.p99_ms, "live_p99_ms": live_ms},
    }


def _relative(limits: AlarmSettings, live_ms: float | None) -> float | None:
    if limits.p99_relative_percent is None or live_ms is None:
        return None
    return max(live_ms * limits.p99_relative_percent / 100, live_ms + 5)
