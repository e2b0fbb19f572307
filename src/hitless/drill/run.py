"""Runs a drill: probes the requests, sends load, ships releases, injects faults, and returns to the first release.

The load continues until the last rollout has ended. However a drill ends, it stops its senders and removes its copy of
the service. At the end the release that was live at the start is live again, or the result says that it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hitless.clock import Clock
from hitless.drill.load import Load, senders_for
from hitless.drill.pace import interleave, most_per_s, total
from hitless.drill.plan import DrillPlan
from hitless.drill.progress import Snapshot, TerminalProgress
from hitless.drill.result import LATE_MS, DrillResult
from hitless.drill.schedule import DrillSchedule
from hitless.drill.shipper import Shipper, stage_of
from hitless.drill.tally import LAG_STEP_US, Tally, slot_s
from hitless.drill.target import Target, probe, resolve
from hitless.drill.timeline import MICROSECONDS, Timeline, WorkerWatch
from hitless.drill.wire import SenderPlan
from hitless.drill.workspace import Source, Workspace
from hitless.errors import ConflictError, UsageError

CPUS = os.cpu_count() or 1
TICK_S = 0.25
BUSY_LOAD_PER_CPU = 2.0
TAIL_S = 1.0  # load continues for this long after a last rollout that ended after the planned duration


async def run_drill(
    plan: DrillPlan,
    target: Target,
    *,
    shipper: Shipper | None,
    source: Source | None,
    data_dir: Path,
    progress: TerminalProgress,
    clock: Clock,
    stop: asyncio.Event,
    watched: bool = True,
) -> DrillResult:
    """Run a drill. `stop` ends it early, with a result. Releases and faults need a `shipper`; new releases, a `source`.

    `watched` samples the number of workers; on AWS there are none.

    Raises UsageError or ConflictError before the load begins (no 2xx response, no live release),
    MachineError if the target accepts no connection, EngineNotRunningError. Later failures are in the result.
    """
    live = await _live_at_start(plan, shipper)
    addresses = await asyncio.to_thread(resolve, target)
    requests, left_out = await probe(target, plan.requests, deadline_s=plan.deadline_s)
    for one in left_out:
        progress.say(f"left out: {one.request} {one.reason}")
    plan = replace(plan, requests=requests)
    timeline = Timeline()
    tally = Tally(slot_s=slot_s(plan.duration_s), deadline_s=plan.deadline_s, timeline=timeline)
    load = Load(_load_plan(plan, target, addresses), on_records=tally.add)
    async with _workspace(plan, source, data_dir) as workspace:
        schedule = DrillSchedule(plan, shipper, workspace, live, timeline, load.elapsed_us, progress, clock, stop)
        await load.start()
        started_at = clock.now()
        watch = WorkerWatch(shipper, plan.stage, load.elapsed_us) if shipper is not None and watched else None
        tasks = [asyncio.create_task(one) for one in (_tick(schedule, tally), *([watch.run()] if watch else ()))]
        try:
            await schedule.run()
            load.end(_last_request(plan, load, stopped=stop.is_set()))
            await load.wait()
        except BaseException:
            await load.stop()
            raise
        finally:
            await _cancel(tasks)
    tally.add_unsent(load.elapsed_us(), load.missing())
    tally.finish()
    return DrillResult(
        plan=plan,
        target=target.url,
        started_at=started_at,
        tally=tally,
        releases=tuple(schedule.shipped),
        restored=schedule.restored,
        faults=tuple(schedule.injected),
        left_out=left_out,
        samples=tuple(load.samples),
        connections=load.counts,
        workers=tuple(watch.samples) if watch is not None else (),
        notices=(*schedule.notices, *_generator_notices(load, tally), *machine_notices(os.getloadavg()[0], CPUS)),
        interrupted=stop.is_set(),
    )


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _live_at_start(plan: DrillPlan, shipper: Shipper | None) -> Mapping[str, Any]:
    """The stage's live release; empty without a shipper."""
    if shipper is None:
        if plan.scenarios or plan.faults:
            raise UsageError("releases and faults need an engine", hint="run the drill in the service's folder")
        return {}
    live: Mapping[str, Any] | None = stage_of(await shipper.status(), plan.stage).get("live")
    if live is None:
        raise ConflictError(f"stage {plan.stage} has no live release", hint="ship one: `hitless deploy`")
    return live


@contextlib.asynccontextmanager
async def _workspace(plan: DrillPlan, source: Source | None, data_dir: Path) -> AsyncIterator[Workspace | None]:
    scenarios = (*plan.scenarios, *(one.scenario for one in plan.faults if one.scenario))
    if source is None or all(scenario.rolls_back for scenario in scenarios):
        yield None
        return
    if source.has_scripts and (wrapping := [one.name for one in scenarios if one.wrapper]):
        raise UsageError(
            f"--scenarios: {wrapping[0]} wraps Python handlers, and this service has JavaScript",
            hint="Node.js handlers have good, canary, linear, rollback, import-crash and never-ready",
        )
    workspace = await asyncio.to_thread(Workspace, source, data_dir=data_dir)
    try:
        yield workspace
    finally:
        workspace.remove()


def _load_plan(plan: DrillPlan, target: Target, addresses: tuple[tuple[str, int], ...]) -> SenderPlan:
    return SenderPlan(
        host=target.host,
        addresses=addresses,
        tls=target.tls,
        requests=tuple(
            replace(one, path=target.base_path + one.path).to_wire(target.host_header) for one in plan.requests
        ),
        order=interleave([one.weight for one in plan.requests]),
        pieces=plan.pace.pieces,
        seed=plan.seed,
        senders=senders_for(most_per_s(plan.pace.pieces), CPUS, http2=plan.http2),
        new_connections_percent=plan.new_connections_percent,
        connections=plan.connections,
        deadline_s=plan.deadline_s,
        http2=plan.http2,
    )


def _last_request(plan: DrillPlan, load: Load, *, stopped: bool) -> int:
    """The total number of requests: the planned one, more if the rollouts took longer, or fewer if stopped."""
    elapsed_ns = load.elapsed_us() * 1000
    if stopped:
        return max(1, load.pace.count(elapsed_ns))
    planned = total(plan.pace.pieces, plan.duration_s)
    if elapsed_ns < plan.duration_s * 1e9:
        return planned
    return max(planned, load.pace.count(elapsed_ns + int(TAIL_S * 1e9)))


async def _tick(schedule: DrillSchedule, tally: Tally) -> None:
    while True:
        doing = schedule.timeline.windows[-1] if schedule.timeline.windows else None
        schedule.progress.tick(
            Snapshot(
                elapsed_s=schedule.elapsed_us() / MICROSECONDS,
                duration_s=schedule.plan.duration_s,
                requests=tally.requests,
                failed=tally.failed,
                releases_done=len(schedule.shipped),
                releases=len(schedule.plan.scenarios),
                p99_ms=tally.recent_p99_ms(),
                doing=doing.label if doing and doing.end_us is None else "steady",
            )
        )
        await asyncio.sleep(TICK_S)


def machine_notices(load_average: float, cpus: int) -> list[str]:
    """A notice if this machine was overloaded, because then time-outs say little about the service."""
    if load_average < BUSY_LOAD_PER_CPU * cpus:
        return []
    processors = "1 processor" if cpus == 1 else f"{cpus} processors"
    return [
        f"this machine was overloaded (load {load_average:.1f} on {processors}):"
        " it may have caused latencies and time-outs itself"
    ]


def _generator_notices(load: Load, tally: Tally) -> list[str]:
    """Notices about the generator's own delays and losses, which distort the figures."""
    late = sum(count for step, count in tally.lags.items() if step >= LATE_MS * 1000 / LAG_STEP_US)
    notices = []
    if late:
        share = 100 * late / max(1, tally.requests)
        notices.append(
            f"{late:,} requests ({share:.2f} %) were sent over {LATE_MS:g} ms late, because the generator or the"
            " machine was busy; their latencies include that delay"
        )
    if load.missing():
        notices.append(f"a sending process died: its {load.missing():,} requests are counted as not sent")
    return notices
