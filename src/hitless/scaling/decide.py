"""How many workers a function should have now: a pure decision with its reason in one sentence.

Fast out, slow in. Out at once, to what is needed: enough that the target's share of the workers is at work on average,
and that what waits is worked off in an instant. In only when the greatest need of a whole window was smaller, and a few
at a time, so that constant load never makes the number swing. At work is measured, not sampled: the workers' own
counters give the exact mean of busy workers between two looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from hitless.errors import MachineError
from hitless.scaling.bounds import Bounds

CATCH_UP_S: Final = 0.05
"""What waits should be gone in this time: each waiting request counts as the share of it that it takes to answer."""

MEAN_OVER_S: Final = 1.0
"""The target is held on average over about this time; shorter peaks only have to find enough workers."""

NOTHING: Final = 0.02
"""So little of a worker is none: the mean of what has ended never becomes quite 0."""

IN_WINDOW_S: Final = 60.0
WINDOW_VARIABLE: Final = "HITLESS_SCALE_IN_AFTER_S"
IN_EVERY_S: Final = 1.0
IN_SHARE: Final = 0.25
"""Of the surplus, that goes at a time; at least one worker."""

SPARE_SHARE: Final = 0.2
"""A smaller surplus than this share of the workers stays: chance would bring it back."""


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """What one look at a pool has found. `busy`: mean number of workers at work since the look before. `waiting`:
    requests that no worker has begun, at the gateway or in a socket. `ended`: requests answered since then; `service_s`
    is how long a worker takes for one, None while nobody knows.
    """

    busy: float
    waiting: int
    ended: int
    service_s: float | None
    took_s: float
    """How long ago the look before was."""


@dataclass(frozen=True, slots=True)
class LoadHistory:
    """What earlier looks leave: the mean load, what waited, and the greatest need of each second of the window."""

    mean: float = 0.0
    waiting: int = 0
    needs: tuple[tuple[float, int], ...] = field(default=())
    """Monotonic second → the greatest need in it, oldest first."""
    shrunk_at_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class ScaleInPace:
    """How slowly workers leave."""

    window_s: float = IN_WINDOW_S
    every_s: float = IN_EVERY_S

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ScaleInPace:
        """`HITLESS_SCALE_IN_AFTER_S`: the window in seconds, 1 to 3600. MachineError where it is none."""
        text = environ.get(WINDOW_VARIABLE)
        if text is None:
            return cls()
        try:
            window_s = float(text)
        except ValueError:
            window_s = math.nan
        if not 1 <= window_s <= 3600:
            raise MachineError(f"{WINDOW_VARIABLE} is {text!r}", hint="give seconds, 1 to 3600, or unset it")
        return cls(window_s, min(IN_EVERY_S, window_s / 10))


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers, and why. `memory` is for the next look."""

    workers: int
    reason: str
    memory: LoadHistory
    refused: bool = False
    """More were needed than the engine's memory has room for."""


def decide(
    bounds: Bounds,
    workers: int,
    load: PoolLoad,
    memory: LoadHistory,
    *,
    now_s: float,
    room: int | None = None,
    pace: ScaleInPace,
) -> Decision:
    """The number of workers from now on.

    `workers` is how many there are, `now_s` monotonic. `room`: how many more the memory budget allows, None for any.
    """
    share = min(1.0, load.took_s / MEAN_OVER_S)
    worth = 1.0 if load.service_s is None else min(1.0, load.service_s / CATCH_UP_S)
    backlog, coming = load.waiting * worth, max(0, load.waiting - memory.waiting) * worth
    mean = memory.mean + share * (load.busy + backlog - memory.mean)
    need = _need(bounds, workers, load, mean, backlog, coming)
    memory = replace(memory, mean=mean, waiting=load.waiting, needs=_noted(memory.needs, now_s, need, pace.window_s))
    wanted = bounds.clamp(need)
    if wanted > workers:
        return _out(bounds, workers, wanted, _why(load, mean, bounds), memory, room)
    peak = bounds.clamp(max(need for _, need in memory.needs))
    enough = workers if peak <= bounds.least else workers - math.floor(workers * SPARE_SHARE)
    if peak >= min(workers, enough + 1):
        return Decision(workers, _steady(bounds, workers, need, peak, pace), memory)
    if now_s - memory.shrunk_at_s < pace.every_s or now_s - memory.needs[0][0] < pace.window_s:
        return Decision(workers, f"{peak} would do, if that lasts", memory)
    fewer = max(peak, workers - max(1, math.floor((workers - peak) * IN_SHARE)))
    reason = f"{_at_most(peak)} needed in the last {pace.window_s:g} s"
    return Decision(fewer, reason, replace(memory, shrunk_at_s=now_s))


def _need(bounds: Bounds, workers: int, load: PoolLoad, mean: float, backlog: float, coming: float) -> int:
    target = bounds.target_percent / 100
    need = max(math.ceil(mean / target - NOTHING), math.ceil(load.busy + backlog - NOTHING))
    if backlog >= max(1.0, workers / 2):  # no chance cluster; and as much may come again before new workers are there
        need = max(need, math.ceil((load.busy + backlog + coming) / target - NOTHING))
    return max(need, 1) if load.ended or load.waiting or load.busy else need


def _noted(
    needs: tuple[tuple[float, int], ...], now_s: float, need: int, window_s: float
) -> tuple[tuple[float, int], ...]:
    second = math.floor(now_s)
    kept = needs
    while len(kept) > 1 and kept[1][0] <= second - window_s:  # the oldest shows that the window is full
        kept = kept[1:]
    if kept and kept[-1][0] == second:
        return (*kept[:-1], (second, max(kept[-1][1], need)))
    return (*kept, (second, need))


def _out(bounds: Bounds, workers: int, wanted: int, why: str, memory: LoadHistory, room: int | None) -> Decision:
    allowed = wanted if room is None else min(wanted, workers + max(room, 0))
    if allowed == wanted:
        capped = ", the most that it may have" if wanted == bounds.most else ""
        return Decision(wanted, f"{why}{capped}", memory)
    reason = f"{why}, which needs {_count(wanted)}, but the engine's memory has room for {allowed}"
    return Decision(allowed, reason, memory, refused=True)


def _why(load: PoolLoad, mean: float, bounds: Bounds) -> str:
    if not (load.ended or load.waiting or load.busy or mean > 0.05):
        return f"at least {_count(bounds.least)} {'is' if bounds.least == 1 else 'are'} always kept"
    if load.waiting:
        return f"{load.busy:.1f} at work and {load.waiting} waiting, {bounds.target_percent} % wanted"
    return f"{max(load.busy, mean):.1f} at work on average, {bounds.target_percent} % wanted"


def _steady(bounds: Bounds, workers: int, need: int, peak: int, pace: ScaleInPace) -> str:
    if need > bounds.most:
        return f"{need} are needed, {bounds.most} is the most that it may have"
    if workers <= bounds.least:
        return "as few as it may have"
    return "as many as are needed" if need >= workers else f"{_at_most(peak)} needed in the last {pace.window_s:g} s"


def _at_most(workers: int) -> str:
    return "none was" if not workers else f"at most {_count(workers)} {'was' if workers == 1 else 'were'}"


def _count(workers: int) -> str:
    return f"{workers} worker" if workers == 1 else f"{workers} workers"
