"""What happens to pools, as the engine hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PoolEventKind(StrEnum):
    """The kinds; all but the last four come from a zygote."""

    WORKER_DIED = "worker_died"
    WORKER_RESTARTED = "worker_restarted"
    BACKING_OFF = "backing_off"
    BACKED_ON = "backed_on"
    TIMED_OUT = "timed_out"
    WOKEN = "woken"
    NO_MORE = "no_more"
    ZYGOTE_STUCK = "zygote_stuck"
    ZYGOTE_DIED = "zygote_died"
    ROOT_RESTARTED = "root_restarted"


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """One event. `sentence` is what the operator reads; `key` is empty for the root zygote."""

    key: str
    kind: PoolEventKind
    worker: int | None
    pid: int | None
    sentence: str
    generation: int = 0
