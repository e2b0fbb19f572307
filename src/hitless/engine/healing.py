"""Replaces zygotes that die while the daemon runs, and reports what the gateway and the workers repaired themselves.

Zygotes replace dead workers, and the guardian restarts HAProxy; the engine only records these events. The workers of a
dead zygote keep serving, but nothing would replace them. So the engine starts new ones beside them first, then stops
the old ones.
"""

from __future__ import annotations

import asyncio

from hitless.engine.engine import Engine
from hitless.errors import HitlessError
from hitless.gateway.gateway import Gateway
from hitless.rollout.pools import RETIRE_GRACE_S
from hitless.store.store import PoolRow
from hitless.workers.fleet import Fleet
from hitless.workers.pool import Pool

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


async def heal_workers(engine: Engine, fleet: Fleet) -> None:
    """Record the workers' events, forever, and replace each zygote that died."""
    async with asyncio.TaskGroup() as replacements:
        while True:
            event = await fleet.events.get()
            row = _row(engine, event.key)
            engine.say(event.sentence, row.stage if row else None)
            if event.zygote_died and row is not None:
                replacements.create_task(replace_zygote(engine, fleet, event.key))


async def replace_zygote(engine: Engine, fleet: Fleet, key: str, *, once: bool = False) -> None:
    """Retry until the pool has a new zygote and workers, or is no longer wanted.

    With `once` it raises the error of the first start, which leaves the pool as it was.
    """
    pause_s = FIRST_PAUSE_S
    old: Pool | None = None
    replaced = reconciled = False
    while (row := _row(engine, key)) is not None:
        try:
            if old is None or not replaced:
                if (old := engine.pools.living.get(key)) is None:
                    return
                await fleet.replace_zygote(key)
                replaced = True
            if not reconciled:
                await engine.pools.servers.reconcile(row)
                reconciled = True
                if key in engine.pools.living:
                    engine.say(f"pool {key} has a new zygote and new workers", row.stage)
            await fleet.stop_old_generation(key, old.generation, grace_s=old.spec.timeout_s + RETIRE_GRACE_S)
            return
        except Exception as error:
            if once and not replaced:
                raise
            why = error.message if isinstance(error, HitlessError) else f"{type(error).__name__}: {error}"
            engine.say(f"pool {key}: cannot replace its zygote: {why}", row.stage)
            await engine.clock.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _row(engine: Engine, key: str) -> PoolRow | None:
    return next((row for row in engine.store.pools() if row.key == key), None)


async def report_gateway_events(engine: Engine, gateway: Gateway) -> None:
    while True:
        engine.say(await gateway.events.get())
