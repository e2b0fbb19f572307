"""When a dead worker is forked again: a pure decision.

Killed from outside (SIGKILL: an operator, a drill, the kernel short of memory) it is replaced at once; which of them it
was nobody can tell, so that many deaths in a short window back off too. One that dies by itself is replaced at once the
first time, then waits, twice as long each time, because its next request would probably end it again and each death
costs somebody an answer. A crash loop never takes the pool down: the gateway tries a request that kills on two workers,
and the last one that serves waits only for a moment, whatever it has done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 10.0
WINDOW_S: Final = 2.0
DEATHS_IN_WINDOW: Final = 50
"""25 forks a second cost a few per cent of a core: what one who kills workers by hand or by a drill never reaches."""
HEALTHY_AFTER_S: Final = 30.0
"""A worker that lived this long has earned a clean slate."""


@dataclass(frozen=True, slots=True)
class DeathHistory:
    """A worker's past deaths: how many in a row count against it, and when the latest were (monotonic seconds)."""

    failures: int = 0
    deaths_s: tuple[float, ...] = field(default=())


def after_death(
    history: DeathHistory, *, now_s: float, lived_s: float, by_itself: bool, alone: bool
) -> tuple[DeathHistory, float]:
    """The history with this death in it, and the delay in seconds before the next fork (0: at once).

    `alone`: no other worker of the pool runs.
    """
    recent = (*(at for at in history.deaths_s if now_s - at < WINDOW_S), now_s)
    failures = 0 if lived_s >= HEALTHY_AFTER_S else history.failures
    too_many = len(recent) >= DEATHS_IN_WINDOW
    if not by_itself and not too_many:
        return DeathHistory(failures, recent), 0.0
    if not failures and not too_many:
        return DeathHistory(1, recent), 0.0
    delay = min(FIRST_DELAY_S * 2 ** min(max(failures - 1, 0), 16), LONGEST_DELAY_S)
    return DeathHistory(failures + 1, recent), min(delay, FIRST_DELAY_S) if alone else delay
