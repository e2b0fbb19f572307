"""Words and plots of the dashboard's pages, made from the documents of `status`, `releases` and `pipeline`.

Pure functions: they read no file and ask no engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from markupsafe import Markup, escape

from hitless.charts import Axes, element, nice_ticks, points
from hitless.pipeline.runs import RETRIABLE, RunDocument, RunState
from hitless.receipts.words import seconds_between
from hitless.release.history import RolloutDocument
from hitless.release.receipt import Sums
from hitless.release.status import FunctionStatus, StageStatus, Status
from hitless.service.model import AlarmSettings

UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
TONES = {
    **dict.fromkeys(("live", "succeeded", "ok"), "good"),
    **dict.fromkeys(("rolled_back", "failed", "rejected", "alarm"), "bad"),
    **dict.fromkeys(("waiting_for_approval", "waiting", "interrupted", "not_enough_data"), "warn"),
    **dict.fromkeys(("running", "queued"), "busy"),
}
SIGNS = {"good": "✓", "bad": "✕", "warn": "!", "busy": "↻"}
"""A state has a sign as well as a colour, for people who do not tell the colours apart."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A stage on the track. `against`: how its code compares with the stage before it; `behind`: whether it differs."""

    stage: StageStatus
    rate: float | None
    requests: int
    failed: int
    p99_ms: float | None
    against: str | None
    behind: bool
    before: str | None


def ago(at: str | None, now: datetime) -> str:
    """`3 min`, `2 h`, `5 d`; `-` if it is unknown."""
    if not at:
        return "-"
    seconds = max(0, int((now - datetime.fromisoformat(at)).total_seconds()))
    return next((f"{seconds // unit} {name}" for unit, name in UNITS if seconds >= unit), f"{seconds} s")


def tone(state: str | None) -> str:
    """The CSS class of a state or outcome; none for a neutral one."""
    return TONES.get(str(state), "")


def words(state: object) -> str:
    return str(state).replace("_", " ")


def track(status: Status, rates: Mapping[str, float]) -> list[Stop]:
    """The stages in the file's order, each compared with the one before it."""
    before = [None, *status.stages]
    return [_stop(stage, earlier, rates) for stage, earlier in zip(status.stages, before, strict=False)]


def _stop(stage: StageStatus, before: StageStatus | None, rates: Mapping[str, float]) -> Stop:
    against, behind = None, False
    if before and before.live:
        behind = stage.live is None or dict(stage.live.artifacts) != dict(before.live.artifacts)
        against = f"differs from {before.stage}" if behind else f"same code as {before.stage}"
    p99s = [one.latency_ms.p99 for one in stage.functions if one.latency_ms]
    requests, failed = (sum(getattr(one, name) or 0 for one in stage.functions) for name in ("requests", "failed"))
    name = before.stage if before else None
    rate = rates.get(stage.stage)
    return Stop(stage, rate, requests, failed, max(p99s, default=None), against, behind, name)


def requests_of(status: Status) -> dict[str, int]:
    """Each stage's requests so far, at its workers."""
    return {stage.stage: sum(one.requests or 0 for one in stage.functions) for stage in status.stages}


def functions_of(status: Status | None, stage: str | None) -> Iterator[tuple[StageStatus, FunctionStatus]]:
    for one in (*status.stages, *status.previews) if status else ():
        if stage in (None, "", one.stage):
            yield from ((one, function) for function in one.functions)


def actions(run: RunDocument) -> list[str]:
    """The verbs that the run accepts now."""
    if run.state is RunState.WAITING:
        return ["approve", "reject"]
    return ["retry"] if run.state in RETRIABLE else [] if run.state.has_ended else ["stop"]


def error_plot(rollout: RolloutDocument, limits: AlarmSettings | None) -> Markup | None:
    """The candidate's failed requests in per cent of its own since the start, with the alarm's limit and readings.

    A shielded request counts as failed, as it does for the alarm. None before the first two readings.
    """
    receipt = rollout.receipt
    if receipt is None or len(receipt.points) < 2:
        return None
    seen = [
        (seconds_between(rollout.started_at, point.at), 100 * (point.candidate.failed + point.candidate.shielded) / of)
        for point in receipt.points
        if isinstance(point.candidate, Sums) and (of := point.candidate.requests)
    ]
    if not seen:
        return None
    limit = limits.error_rate_percent if limits else None
    span_s = max(seconds_between(rollout.started_at, receipt.points[-1].at), 1.0)
    ticks = nice_ticks(max([limit or 0.5, *(value for _, value in seen)]) * 1.25, 4)
    axes = Axes(span_s, ticks[-1], height=220)
    marks = [*axes.grid(ticks, [f"{tick:g} %" for tick in ticks]), *axes.times()]
    steps = axes.steps([(x, end, value) for (x, value), (end, _) in pairwise([*seen, (span_s, 0.0)])])
    floor = [(steps[-1][0], axes.floor), (steps[0][0], axes.floor)]
    marks.append(element("polygon", class_="area", points=points([*steps, *floor])))
    marks.append(element("polyline", class_="line", points=points(steps)))
    if limit is not None:
        y = axes.y(limit)
        marks.append(element("line", class_="limit", x1=axes.left, x2=axes.end, y1=y, y2=y))
        marks.append(element("text", f"alarm above {limit:g} %", class_="limit-text", x=axes.left + 6, y=y - 6))
    for reading in receipt.alarms.readings:
        if reading.verdict == "alarm":
            x = axes.x(seconds_between(rollout.started_at, reading.at))
            marks.append(element("line", title=reading.sentence, class_="rang", x1=x, x2=x, y1=axes.top, y2=axes.floor))
            marks.append(element("text", "alarm", class_="rang-text", x=x - 6, y=axes.top + 10, text_anchor="end"))
    label = f"Failed requests of the candidate: {seen[-1][1]:.3g} % at the end"
    return Markup(axes.svg(label, marks))


def escaped(text: str) -> str:
    return str(escape(text))
