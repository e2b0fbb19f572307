"""The faults that a drill injects while the load runs. Each one says when the service has recovered.

Signals go only to processes that the engine's status has just named.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hitless.clock import Clock
from hitless.drill.shipper import Shipper, stage_of
from hitless.errors import ConflictError, UsageError

HANG_S = 2.0
Status = Mapping[str, Any]
Recovered = Callable[[Status], bool]


@dataclass(frozen=True, slots=True)
class FaultContext:
    """The stage of a fault, and the means to inject it."""

    shipper: Shipper
    stage: str
    send: Callable[[int, signal.Signals], None]
    clock: Clock


@dataclass(frozen=True, slots=True)
class Fault:
    """`inject` injects the fault and returns a check: whether a later status shows that the service has recovered."""

    name: str
    inject: Callable[[FaultContext], Awaitable[Recovered]]


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have just ended by itself."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


async def _kill_worker(context: FaultContext) -> Recovered:
    before = await _workers_now(context)
    victim = before[0]
    context.send(victim, signal.SIGKILL)

    def recovered(status: Status) -> bool:
        now = _workers(status, context.stage)
        return victim not in now and len(now) >= len(before)

    return recovered


async def _hang(context: FaultContext) -> Recovered:
    """Stop a worker as if it were swapping: its request waits, and nothing reports a failure."""
    before = await _workers_now(context)
    victim = before[0]
    context.send(victim, signal.SIGSTOP)
    try:
        await context.clock.sleep(HANG_S)
    finally:
        context.send(victim, signal.SIGCONT)
    return lambda status: len(_workers(status, context.stage)) >= len(before)


async def _kill_zygote(context: FaultContext) -> Recovered:
    status = await context.shipper.status()
    before = _workers(status, context.stage)
    function = next((one for one in _functions(status, context.stage) if one.get("zygote_pid")), None)
    if function is None:
        raise ConflictError("no zygote is running", hint="see `hitless status`")
    name, victim = function["name"], function["zygote_pid"]
    context.send(victim, signal.SIGKILL)

    def recovered(status: Status) -> bool:
        pids = {one["name"]: one.get("zygote_pid") for one in _functions(status, context.stage)}
        return pids.get(name) not in (None, victim) and len(_workers(status, context.stage)) >= len(before)

    return recovered


async def _kill_daemon(context: FaultContext) -> Recovered:
    victim = (await context.shipper.status())["engine"]["pid"]
    context.send(victim, signal.SIGKILL)
    await context.shipper.up()
    return lambda status: bool(status["engine"]["pid"] != victim and stage_of(status, context.stage).get("live"))


def _kill_of_engine(key: str) -> Callable[[FaultContext], Awaitable[Recovered]]:
    """The fault that kills the process which the status names `key`."""

    async def inject(context: FaultContext) -> Recovered:
        victim = (await context.shipper.status())["engine"].get(key)
        if not victim:
            raise ConflictError(f"the engine's status has no {key}", hint="see `hitless status --json`")
        context.send(victim, signal.SIGKILL)
        return lambda status: status["engine"].get(key) not in (None, victim)

    return inject


async def _workers_now(context: FaultContext) -> list[int]:
    workers = _workers(await context.shipper.status(), context.stage)
    if not workers:
        raise ConflictError(
            f"stage {context.stage} has no running worker to inject a fault into", hint="see `hitless status`"
        )
    return workers


def _functions(status: Status, stage: str) -> Sequence[Mapping[str, Any]]:
    return stage_of(status, stage).get("functions") or ()


def _workers(status: Status, stage: str) -> list[int]:
    return [worker["pid"] for function in _functions(status, stage) for worker in function["workers"] if worker["pid"]]


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill-worker", _kill_worker),
        Fault("kill-zygote", _kill_zygote),
        Fault("kill-daemon", _kill_daemon),
        Fault("kill-guardian", _kill_of_engine("guardian_pid")),
        Fault("kill-gateway", _kill_of_engine("gateway_pid")),
        Fault("hang", _hang),
    )
}
"""docs/drill.md says what each one does."""


def choose(names: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of these names. Raises UsageError for an unknown one."""
    for name in names:
        if name not in FAULTS:
            raise UsageError(f"--faults: {name!r} is unknown", hint=f"known: {', '.join(FAULTS)}")
    return tuple(FAULTS[name] for name in names)
