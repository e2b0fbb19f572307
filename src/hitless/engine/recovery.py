"""After a start: bring what runs and what should run together, whatever instant the last daemon died at.

The rule for a rollout that was cut off: if the gateway's one entry for the stage names the candidate as live, the
swap has happened, and the rollout is finished; in every other case the candidate is withdrawn. What serves is never
guessed: it is read from the gateway, then from the state file.
"""

from __future__ import annotations

from datetime import datetime

from hitless.clock import timestamp
from hitless.engine.engine import Engine
from hitless.errors import HitlessError
from hitless.rollout.receipt import Receipt
from hitless.rollout.release import Release
from hitless.rollout.rollout import Rollout
from hitless.rollout.states import Outcome, State
from hitless.service.strategy import parse
from hitless.store.store import RolloutRow


async def recover(engine: Engine) -> None:
    """Finish or roll back what was cut off, remove what belongs to nothing, and see that each live release serves."""
    engine.parts.hooks.clear()
    for row in engine.store.unfinished_rollouts():
        await _conclude(engine, row)
    for stage in engine.stages:
        await _remove_strays(engine, stage)
        await _serve_live(engine, stage)


async def _conclude(engine: Engine, row: RolloutRow) -> None:
    release = engine.release(row.stage, row.release)
    entry = engine.pools.gateway_stage(row.stage)
    live = engine.live_release(row.stage)
    receipt = _receipt(engine, row, gateway_is_new=entry.live is None)
    # After a reboot the gateway knows nothing: then the state file, which follows the gateway, is the witness.
    serving = entry.live if entry.live is not None else live.number if live else None
    if serving == row.release and row.previous_release != row.release:
        engine.store.set_live(row.stage, row.release, timestamp(engine.clock.now()))
        previous = engine.release(row.stage, row.previous_release) if row.previous_release is not None else None
        engine.say(f"release {row.release} had become live when the engine stopped: its rollout is finished", row.stage)
        await _rollout(engine, row, release, previous, receipt).finish()
        return
    engine.say(f"the engine stopped before release {row.release} was live: it is withdrawn", row.stage)
    if entry.candidate is not None:
        await engine.pools.route_all_to(row.stage, live.number if live else None)
    reason = f"the engine stopped while the rollout was {row.state}"
    if live is None or live.number != release.number:
        counted = await engine.pools.retire(
            release, drain=row.state in (State.BAKING, State.SHIFTING, State.WITHDRAWING)
        )
        still = await engine.pools.count(row.stage, live.number) if live else None
        receipt.counted(counted, still, timestamp(engine.clock.now()))
        engine.store.save_receipt(row.rollout, receipt.to_json())
    engine.store.end_rollout(row.rollout, Outcome.ROLLED_BACK, reason, None, timestamp(engine.clock.now()))


async def _remove_strays(engine: Engine, stage: str) -> None:
    live = engine.live_release(stage)
    for number in {row.release for row in engine.store.pools(stage)}:
        if live is None or number != live.number:
            await engine.pools.retire(engine.release(stage, number), drain=True)


async def _serve_live(engine: Engine, stage: str) -> None:
    """Pools that do not run any more are started anew; the stage's entry names the live release."""
    live = engine.live_release(stage)
    if live is None:
        return
    try:
        started = await engine.pools.restore(live, ready_timeout_s=live.document.settings.ready_timeout_s)
    except HitlessError as error:
        engine.say(f"release {live.number} could not be brought back: {error.message}", stage)
        return
    await engine.pools.route_all_to(stage, live.number)
    if started:
        engine.say(f"release {live.number} serves again: started {', '.join(started)}", stage)


def _receipt(engine: Engine, row: RolloutRow, *, gateway_is_new: bool) -> Receipt:
    """What the last daemon recorded. The gateway went on counting, unless it had to be started anew."""
    recorded = engine.store.receipt(row.rollout)
    receipt = Receipt.from_json(recorded) if recorded else Receipt()
    if recorded is None:
        receipt.lacks("the engine stopped before the first figures were recorded")
    elif gateway_is_new:
        receipt.lacks("the gateway was started anew: what it had counted after the last record is not in these sums")
    return receipt


def _rollout(engine: Engine, row: RolloutRow, release: Release, previous: Release | None, receipt: Receipt) -> Rollout:
    lasted_s = (engine.clock.now() - datetime.fromisoformat(row.started_at)).total_seconds()
    rollout = engine.parts.rollout(row.rollout, row.verb, release, previous, parse(row.strategy), receipt)
    rollout.state, rollout.weight_percent, rollout.committed, rollout.guarded = State.SHIFTING, 100, True, False
    rollout.started_at_s = engine.clock.monotonic() - lasted_s
    return rollout
