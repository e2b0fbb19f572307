"""What the engine does when a part of it dies while the daemon lives. Each pass says in one sentence what it did.

A worker's death is its zygote's business, HAProxy's death the guardian's: of these the engine only tells. A dead
zygote leaves workers that serve but that nobody would replace: the engine puts new ones beside them first, then lets
the old ones go.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from hitless.engine.engine import Engine
from hitless.errors import HitlessError
from hitless.gateway.gateway import GatewayEvent
from hitless.rollout.pools import RETIRE_GRACE_S
from hitless.store.store import PoolRow
from hitless.workers.pool import Pool, PoolEvent, PoolEventKind

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class HealingFleet(Protocol):
    """What healing needs of the workers' side."""

    @property
    def events(self) -> asyncio.Queue[PoolEvent]: ...
    async def replace_zygote(self, key: str) -> Pool: ...
    async def stop_old_generation(self, key: str, generation: int, *, grace_s: float) -> None: ...


class GatewayEvents(Protocol):
    """What the gateway's side tells of its own healing."""

    @property
    def events(self) -> asyncio.Queue[GatewayEvent]: ...


async def heal_workers(engine: Engine, fleet: HealingFleet) -> None:
    """Listen to the workers' side for ever; each pool that lost its zygote is renewed beside the others."""
    async with asyncio.TaskGroup() as renewals:
        while True:
            event = await fleet.events.get()
            row = _row(engine, event.key)
            engine.say(event.sentence, row.stage if row else None)
            if event.kind is PoolEventKind.ZYGOTE_DIED and row is not None:
                renewals.create_task(_replace_zygote(engine, fleet, event.key))


async def _replace_zygote(engine: Engine, fleet: HealingFleet, key: str) -> None:
    """Try until it works or the pool is not wanted any more: its workers serve, but nobody would replace them."""
    pause_s = FIRST_PAUSE_S
    old: Pool | None = None
    replaced = stands = False
    while (row := _row(engine, key)) is not None:
        try:
            if old is None or not replaced:
                if (old := engine.pools.living.get(key)) is None:
                    return
                await fleet.replace_zygote(key)
                replaced = True
            if not stands:
                await engine.pools.standing.agree(row)
                stands = True
                if key in engine.pools.living:
                    engine.say(f"pool {key} has a new zygote and new workers", row.stage)
            await fleet.stop_old_generation(key, old.generation, grace_s=old.spec.timeout_s + RETIRE_GRACE_S)
            return
        except Exception as error:  # noqa: BLE001 - an exception here would end the renewals of other pools too
            why = error.message if isinstance(error, HitlessError) else f"{type(error).__name__}: {error}"
            engine.say(f"pool {key}: its zygote could not be replaced: {why}", row.stage)
            await engine.clock.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _row(engine: Engine, key: str) -> PoolRow | None:
    return next((row for row in engine.store.pools() if row.key == key), None)


async def report_gateway_events(engine: Engine, gateway: GatewayEvents) -> None:
    """Pass on what the gateway's side did."""
    while True:
        engine.say((await gateway.events.get()).sentence)
