"""Decides how many workers a function should have now. A pure function; its reason is one sentence.

It adds workers at once and removes them slowly. It adds as many as keep the mean load at the target and as clear the
queue within `CATCH_UP_S`. It removes some only after a whole window with a smaller need, and a few at a time, so that
the number does not swing under constant load. The load is measured, not sampled: the workers' counters give the exact
mean of busy workers between two samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from hitless.errors import MachineError
from hitless.scaling.bounds import Bounds

CATCH_UP_S: Final = 0.05
"""The queue should be empty in this time. A waiting request counts as the fraction of it that its response takes."""

MEAN_OVER_S: Final = 1.0
"""The mean load over about this time is kept at the target. A shorter peak only needs enough workers."""

NEGLIGIBLE: Final = 0.02
"""A load below this share of a worker counts as none, because the mean never quite returns to 0."""

IN_WINDOW_S: Final = 60.0
WINDOW_VARIABLE: Final = "HITLESS_SCALE_IN_AFTER_S"
IN_EVERY_S: Final = 1.0
IN_SHARE: Final = 0.25
"""The share of the surplus that is removed at a time; at least one worker."""

SPARE_SHARE: Final = 0.2
"""A surplus below this share of the workers stays: random load would soon need it again."""


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """A sample of a pool. `busy`: mean number of busy workers since the last sample. `waiting`: requests that no worker
    has begun, at the gateway or in a socket. `ended`: requests answered since then; `service_s` is how long a worker
    takes for one, None while it is unknown.
    """

    busy: float
    waiting: int
    ended: int
    service_s: float | None
    took_s: float
    """Seconds since the last sample."""


@dataclass(frozen=True, slots=True)
class LoadHistory:
    """The results of earlier samples: mean load, waiting requests, the greatest need of each second of the window."""

    mean: float = 0.0
    waiting: int = 0
    needs: tuple[tuple[float, int], ...] = field(default=())
    """Monotonic second → the greatest need in it, oldest first."""
    shrunk_at_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class ScaleInPace:
    """How slowly workers are removed."""

    window_s: float = IN_WINDOW_S
    every_s: float = IN_EVERY_S

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ScaleInPace:
        """`HITLESS_SCALE_IN_AFTER_S`: the window in seconds, 1 to 3600. MachineError if it is not valid."""
        text = environ.get(WINDOW_VARIABLE)
        if text is None:
            return cls()
        try:
            window_s = float(text)
        except ValueError:
            window_s = math.nan
        if not 1 <= window_s <= 3600:
            raise MachineError(f"{WINDOW_VARIABLE}={text} is not a number of seconds from 1 to 3600", hint="unset it")
        return cls(window_s, min(IN_EVERY_S, window_s / 10))


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers, and why. `history` is for the next sample."""

    workers: int
    reason: str
    history: LoadHistory
    refused: bool = False
    """Whether a limit allowed fewer than needed."""


def decide(
    bounds: Bounds,
    workers: int,
    load: PoolLoad,
    history: LoadHistory,
    *,
    now_s: float,
    room: int | None = None,
    limit: str = "the engine's memory",
    pace: ScaleInPace,
) -> Decision:
    """The number of workers from now on.

    `workers` is how many there are, `now_s` monotonic. `room`: how many more the `limit` allows, None for any.
    """
    share = min(1.0, load.took_s / MEAN_OVER_S)
    worth = 1.0 if load.service_s is None else min(1.0, load.service_s / CATCH_UP_S)
    backlog, coming = load.waiting * worth, max(0, load.waiting - history.waiting) * worth
    mean = history.mean + share * (load.busy + backlog - history.mean)
    need = _need(bounds, workers, load, mean, backlog, coming)
    history = replace(history, mean=mean, waiting=load.waiting, needs=_noted(history.needs, now_s, need, pace.window_s))
    wanted = bounds.clamp(need)
    if wanted > workers:
        return _out(bounds, workers, wanted, _why(load, mean, bounds), history, room, limit)
    peak = bounds.clamp(max(need for _, need in history.needs))
    enough = workers if peak <= bounds.least else workers - math.floor(workers * SPARE_SHARE)
    if peak >= min(workers, enough + 1):
        return Decision(workers, _steady(bounds, workers, need, peak, pace), history)
    if now_s - history.shrunk_at_s < pace.every_s or now_s - history.needs[0][0] < pace.window_s:
        return Decision(workers, f"{_count(peak)} would be enough, if the load stays as low", history)
    fewer = max(peak, workers - max(1, math.floor((workers - peak) * IN_SHARE)))
    reason = f"{_at_most(peak)} needed in the last {pace.window_s:g} s"
    return Decision(fewer, reason, replace(history, shrunk_at_s=now_s))


def _need(bounds: Bounds, workers: int, load: PoolLoad, mean: float, backlog: float, coming: float) -> int:
    target = bounds.target_percent / 100
    need = max(math.ceil(mean / target - NEGLIGIBLE), math.ceil(load.busy + backlog - NEGLIGIBLE))
    if backlog >= max(
        1.0, workers / 2
    ):  # too many to be chance, and as many may arrive again before the new workers are ready
        need = max(need, math.ceil((load.busy + backlog + coming) / target - NEGLIGIBLE))
    return max(need, 1) if load.ended or load.waiting or load.busy else need


def _noted(
    needs: tuple[tuple[float, int], ...], now_s: float, need: int, window_s: float
) -> tuple[tuple[float, int], ...]:
    second = math.floor(now_s)
    kept = needs
    while len(kept) > 1 and kept[1][0] <= second - window_s:  # the oldest entry shows that the window is full
        kept = kept[1:]
    if kept and kept[-1][0] == second:
        return (*kept[:-1], (second, max(kept[-1][1], need)))
    return (*kept, (second, need))


def _out(
    bounds: Bounds, workers: int, wanted: int, why: str, history: LoadHistory, room: int | None, limit: str
) -> Decision:
    allowed = wanted if room is None else min(wanted, workers + max(room, 0))
    if allowed == wanted:
        capped = ", the maximum" if wanted == bounds.most else ""
        return Decision(wanted, f"{why}{capped}", history)
    reason = f"{why}: needs {_count(wanted)}, but {limit} has room for {allowed}"
    return Decision(allowed, reason, history, refused=True)


def _why(load: PoolLoad, mean: float, bounds: Bounds) -> str:
    if not (load.ended or load.waiting or load.busy or mean > 0.05):
        return f"at least {_count(bounds.least)} {'is' if bounds.least == 1 else 'are'} kept at all times"
    if load.waiting:
        return f"{load.busy:.1f} busy and {load.waiting} waiting, target {bounds.target_percent} %"
    return f"{max(load.busy, mean):.1f} busy on average, target {bounds.target_percent} %"


def _steady(bounds: Bounds, workers: int, need: int, peak: int, pace: ScaleInPace) -> str:
    if need > bounds.most:
        return f"{need} needed, {bounds.most} allowed at most"
    if workers <= bounds.least:
        return "the minimum"
    return "as many as needed" if need >= workers else f"{_at_most(peak)} needed in the last {pace.window_s:g} s"


def _at_most(workers: int) -> str:
    return "none was" if not workers else f"at most {_count(workers)} {'was' if workers == 1 else 'were'}"


def _count(workers: int) -> str:
    return f"{workers} worker" if workers == 1 else f"{workers} workers"
