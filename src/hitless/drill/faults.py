"""What a drill breaks on purpose while the load runs. One table; each fault says when the service has recovered.

Only processes that the engine itself has just named in its status are ever signalled.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hitless.drill.shipper import Shipper, stage_of
from hitless.errors import ConflictError, UsageError

Status = Mapping[str, Any]
Recovered = Callable[[Status], bool]
Kill = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`inject` does the harm and returns how to tell from a later status that all is well again."""

    name: str
    summary: str
    inject: Callable[[Shipper, str, Kill], Awaitable[Recovered]]


def kill(pid: int) -> None:
    """SIGKILL, to a process that may have just ended by itself."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


async def _kill_worker(shipper: Shipper, stage: str, kill: Kill) -> Recovered:
    before = _workers(await shipper.status(), stage)
    if not before:
        raise ConflictError("no worker runs that could be killed", hint="look at `hitless status`")
    victim = before[0]
    kill(victim)

    def recovered(status: Status) -> bool:
        now = _workers(status, stage)
        return victim not in now and len(now) >= len(before)

    return recovered


async def _kill_daemon(shipper: Shipper, stage: str, kill: Kill) -> Recovered:
    victim = (await shipper.status())["engine"]["pid"]
    kill(victim)
    await shipper.up()
    return lambda status: bool(status["engine"]["pid"] != victim and stage_of(status, stage).get("live"))


def _workers(status: Status, stage: str) -> list[int]:
    functions: Sequence[Mapping[str, Any]] = stage_of(status, stage).get("functions") or ()
    return [worker["pid"] for function in functions for worker in function["workers"] if worker["pid"]]


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill-worker", "SIGKILL of a worker of the live release", _kill_worker),
        Fault("kill-daemon", "SIGKILL of the engine's daemon, then `hitless up`", _kill_daemon),
    )
}


def choose(names: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of these names. Raises UsageError for an unknown one."""
    for name in names:
        if name not in FAULTS:
            raise UsageError(f"--faults: {name!r} is unknown", hint=f"known are {', '.join(FAULTS)}")
    return tuple(FAULTS[name] for name in names)
