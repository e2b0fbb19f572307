"""Recovery after a start: makes the running processes match the recorded state, at whatever instant the last daemon
died.

An interrupted rollout is finished if the gateway's entry for the stage names the candidate as live, because then the
swap has happened. In every other case the candidate is withdrawn. The live release is read from the gateway, or else
from the state file, and never guessed.
"""

from __future__ import annotations

from datetime import datetime

from hitless.clock import Clock, timestamp
from hitless.engine.engine import Engine
from hitless.errors import HitlessError
from hitless.release.receipt import VERSION
from hitless.release.result import Outcome, RolloutVerb
from hitless.rollout.receipt import Receipt
from hitless.rollout.record import RolloutState
from hitless.rollout.release import Release, release_of
from hitless.rollout.rollout import Rollout
from hitless.service.strategy import parse
from hitless.store.store import RolloutRow

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

MAY_HAVE_REQUESTS = (RolloutState.BAKING, RolloutState.SHIFTING, RolloutState.CONFIRMING, RolloutState.WITHDRAWING)


async def recover(engine: Engine) -> None:
    """Finish or withdraw interrupted rollouts, retire other releases, and make each live release serve."""
    engine.parts.hooks.clear()
    for row in engine.store.unfinished_rollouts():
        await finish_or_withdraw(engine, row)
    for stage in tuple(engine.turns):
        guarded, left_s = _guarded_rollout(engine, stage)
        await _retire_others(engine, stage, keep=guarded.previous.number if guarded and guarded.previous else None)
        await _serve_live(engine, stage)
        if guarded:
            engine.say(f"guarding release {guarded.candidate.number} for another {left_s:.0f} s", stage)
            engine.resume_guard(guarded, left_s)


async def finish_leftover_rollouts(engine: Engine, clock: Clock) -> None:
    """Retry rollouts whose end failed (HAProxy away, disk full) until they end. Runs forever."""
    pause_s = FIRST_PAUSE_S
    while True:
        await clock.sleep(pause_s)
        for turn in tuple(engine.turns.values()):
            try:
                for number in sorted(turn.unfinished):
                    async with turn.lock:
                        for row in engine.store.unfinished_rollouts():
                            if row.rollout == number:
                                await finish_or_withdraw(engine, row)
                    turn.unfinished.discard(number)
                pause_s = FIRST_PAUSE_S
            except HitlessError as error:
                engine.say(f"cannot finish rollout {number} yet: {error}", turn.stage)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def finish_or_withdraw(engine: Engine, row: RolloutRow) -> None:
    release = engine.release(row.stage, row.release)
    entry = engine.pools.gateway_stage(row.stage)
    live = engine.live_release(row.stage)
    receipt = _receipt(engine, row, gateway_is_new=entry.live is None)
    # After a reboot the gateway knows nothing; the state file, which follows the gateway, has the last live release.
    serving = entry.live if entry.live is not None else live.number if live else None
    swapped = serving == row.release and row.previous_release != row.release
    previous = engine.release(row.stage, row.previous_release) if row.previous_release is not None else None
    if swapped:
        engine.store.set_live(row.stage, row.release, timestamp(engine.clock.now()))
        engine.say(f"release {row.release} had become live: finishing its rollout", row.stage)
        rollout = _rollout(engine, row, release, previous, receipt)
        await rollout.finish()
        _mark_rolled_back(engine, rollout)
    elif row.verb == RolloutVerb.GUARD and live is not None and engine.pools.runs(release):
        engine.say(f"continuing the return to release {row.release} after an alarm", row.stage)
        rollout = _rollout(engine, row, release, live, receipt)
        rollout.state, rollout.weight_percent = RolloutState.PREPARING, 0
        await rollout.run()
        _mark_rolled_back(engine, rollout)
    else:
        await _withdraw(engine, row, release, live, receipt)


def _mark_rolled_back(engine: Engine, rollout: Rollout) -> None:
    if rollout.verb == RolloutVerb.GUARD:
        engine.parts.mark_rolled_back(rollout, rollout.cause or "an alarm after all traffic had moved")


async def _withdraw(engine: Engine, row: RolloutRow, release: Release, live: Release | None, receipt: Receipt) -> None:
    engine.say(f"release {row.release} had not become live: withdrawing it", row.stage)
    if engine.pools.gateway_stage(row.stage).candidate is not None:
        await engine.pools.route_all_to(row.stage, live.number if live else None)
    if live is None or live.number != release.number:
        counted = await engine.pools.retire(release, drain=row.state in MAY_HAVE_REQUESTS)
        still = await engine.pools.count(row.stage, live.number) if live else None
        receipt.add_counts(counted, still, timestamp(engine.clock.now()))
        engine.store.save_receipt(row.rollout, receipt.document())
    notes = [step.note for step in engine.store.steps(row.rollout) if step.state == RolloutState.WITHDRAWING]
    reason = notes[-1] if notes else f"the engine stopped while the rollout was {row.state}"
    engine.store.end_rollout(row.rollout, Outcome.ROLLED_BACK, reason, None, timestamp(engine.clock.now()))


def _guarded_rollout(engine: Engine, stage: str) -> tuple[Rollout | None, float]:
    """The stage's last rollout and the seconds left of its guard; None if none are left, or a release is gone."""
    row = next(iter(engine.store.rollouts(stage, limit=1)), None)
    if row is None or row.outcome != Outcome.LIVE or row.ended_at is None or row.previous_release is None:
        return None, 0.0
    live = engine.live_release(stage)
    kept = engine.store.release(stage, row.previous_release)
    if live is None or live.number != row.release or kept is None or not engine.pools.runs(release_of(kept)):
        return None, 0.0
    rollout = _rollout(engine, row, live, release_of(kept), _receipt(engine, row, gateway_is_new=False), guarded=True)
    rollout.state, rollout.result = RolloutState.ENDED, row.result
    left_s = rollout.guard_s - (engine.clock.now() - datetime.fromisoformat(row.ended_at)).total_seconds()
    return (rollout, min(left_s, rollout.guard_s)) if left_s > 0 else (None, 0.0)


async def _retire_others(engine: Engine, stage: str, *, keep: int | None) -> None:
    live = engine.live_release(stage)
    for number in {row.release for row in engine.store.pools(stage)} - {keep}:
        if live is None or number != live.number:
            await engine.pools.retire(engine.release(stage, number), drain=True)


async def _serve_live(engine: Engine, stage: str) -> None:
    """Start the live release's missing pools and route the stage to it."""
    live = engine.live_release(stage)
    if live is None:
        return
    try:
        started = await engine.pools.restore(live, ready_timeout_s=live.document.settings.ready_timeout_s)
    except HitlessError as error:
        engine.say(f"cannot start release {live.number} again: {error.message}", stage)
        return
    await engine.pools.route_all_to(stage, live.number)
    if started:
        engine.say(f"release {live.number} serves again: started {', '.join(started)}", stage)


def _receipt(engine: Engine, row: RolloutRow, *, gateway_is_new: bool) -> Receipt:
    """The receipt that the last daemon recorded. The gateway's counts continue unless a new one was started."""
    recorded = engine.store.receipt(row.rollout)
    receipt = Receipt.resumed(recorded) if recorded and recorded.version == VERSION else Receipt()
    if recorded is None:
        receipt.add_missing("the engine stopped before the first figures were recorded")
    elif recorded.version != VERSION:
        receipt.add_missing("another version of hitless had recorded the figures up to the engine's stop")
    elif gateway_is_new:
        receipt.add_missing("the gateway was restarted: its counts since the last record are not in these sums")
    return receipt


def _rollout(
    engine: Engine,
    row: RolloutRow,
    release: Release,
    previous: Release | None,
    receipt: Receipt,
    *,
    guarded: bool = False,
) -> Rollout:
    lasted_s = (engine.clock.now() - datetime.fromisoformat(row.started_at)).total_seconds()
    rollout = engine.parts.rollout(row.rollout, row.verb, release, previous, parse(row.strategy), receipt)
    rollout.state, rollout.weight_percent = RolloutState.SHIFTING, 100
    rollout.committed, rollout.guarded = True, guarded
    rollout.started_at_s = engine.clock.monotonic() - max(0.0, lasted_s)  # below 0: the clock was set back
    rollout.cause = receipt.facts.why or None if row.verb == RolloutVerb.GUARD else None
    return rollout
