"""Invokes scheduled functions of each stage's live release, at most once a time.

An event is recorded in the state file before its invocation, by stage, function, expression and input. So neither a
rollout nor a new daemon repeats it. A cron() event that falls into a time without a daemon is left out.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import datetime
from typing import Any

from hitless.clock import Clock
from hitless.engine.engine import Engine
from hitless.errors import HitlessError
from hitless.rollout.release import Release
from hitless.service.event_sources import Schedule
from hitless.service.model import Function
from hitless.service.schedules import falls_on, period_minutes
from hitless.worker.environment import ACCOUNT_ID


async def run_schedules(engine: Engine, clock: Clock) -> None:
    """Invoke what is due at the beginning of each minute, forever."""
    async with asyncio.TaskGroup() as invocations:
        while True:
            await clock.sleep(60 - clock.now().timestamp() % 60)
            minute = clock.now().replace(second=0, microsecond=0)
            for release in filter(None, map(engine.live_release, engine.stages)):
                for function in release.document.functions:
                    for number, schedule in enumerate(function.schedules, 1):
                        if _claim(engine, release, function, schedule, minute):
                            event = _event(release, function, schedule, number, minute)
                            invocations.create_task(_invoke(engine, release, function, schedule, event))


def _claim(engine: Engine, release: Release, function: Function, schedule: Schedule, minute: datetime) -> bool:
    period = period_minutes(schedule.expression)
    if period is None and not falls_on(schedule.expression, minute):
        return False
    name = f"schedule {release.stage} {function.name} {schedule.expression} {schedule.input or ''}"
    return engine.store.claim_minute(name, int(minute.timestamp()) // 60, period or 1, first=period is None)


def _event(release: Release, function: Function, schedule: Schedule, number: int, minute: datetime) -> Any:
    """The input that the file gives, or EventBridge's event."""
    if schedule.input is not None:
        return json.loads(schedule.input)
    region = release.document.region
    rule = f"{release.document.service}-{release.stage}-{function.name}-schedule-{number}"
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": minute.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": region,
        "resources": [f"arn:aws:events:{region}:{ACCOUNT_ID}:rule/{rule}"],
        "detail": {},
    }


async def _invoke(engine: Engine, release: Release, function: Function, schedule: Schedule, event: Any) -> None:
    title = f"{schedule.expression} of {function.name}, release {release.number}"
    try:
        result = await engine.parts.hooks.invoke(release, function, event)
    except Exception as error:  # noqa: BLE001 - it would end the schedules of other functions too
        why = error.message if isinstance(error, HitlessError) else f"{type(error).__name__}: {error}"
        return engine.say(f"{title} failed: {why}", release.stage)
    how = f"failed: {result.error}" if result.failed else "ran"
    return engine.say(f"{title} {how} ({result.duration_ms / 1000:.1f} s)", release.stage)
