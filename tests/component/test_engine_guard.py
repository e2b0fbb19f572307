"""After AllAtOnce the previous release stays warm under the alarms, and returns if one fires."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.engine.recovery import recover
from hitless.engine.releases import releases
from hitless.errors import ConflictError, EngineError
from hitless.gateway.state import GatewayState
from hitless.rollout.rollout import Rollout
from hitless.service.model import AlarmSettings
from tests.component.engine_bench import Bench, Dies, run, until
from tests.fakes import release_document
from tests.support import release_keys

pytestmark = pytest.mark.component

GUARDED = AlarmSettings(1, 20, guard_s=30)


async def ship_guarded(bench: Bench) -> Rollout:
    """Ship release 2 over release 1; the deploy has ended, and time stands still in the guard."""
    await bench.deploy(alarms=GUARDED)
    bench.diary.clear()
    bench.clock.runs.clear()
    started = await bench.engine.deploy("dev", guarded(2), strategy=None, force=False)
    assert isinstance(started, Rollout)
    await until(lambda: started.result is not None)
    assert bench.engine.turn_of("dev").guard is not None
    return started


def guarded(number: int) -> Any:
    return release_document(digest=f"sha256:{number}", alarms=GUARDED)


def fails(bench: Bench, pool: str = "p01") -> None:
    bench.gateway.requests[pool] = {"requests": 100, "5xx": 30}


def releases_that_run(bench: Bench) -> set[int]:
    return {pool.spec.release for pool in bench.workers.running.values()}


def test_the_deploy_ends_at_the_swap_and_the_previous_release_is_retired_after_the_guard(
    tmp_path: Path,
) -> None:
    async def story(bench: Bench) -> None:
        started = await ship_guarded(bench)
        assert started.result
        assert started.result.outcome == "live"
        assert [step.state for step in started.result.steps] == ["preparing", "shifting"]
        assert releases_that_run(bench) == {1, 2}
        assert bench.diary[-1] == "dev → 2:None:0", "nothing of release 1 was touched"
        guard = bench.engine.turn_of("dev").guard
        assert guard
        assert (guard.previous.number, guard.left_s) == (1, 30)
        bench.clock.runs.set()
        await bench.engine.wait_until_idle()
        assert bench.clock.monotonic() == pytest.approx(30, abs=0.5)
        assert releases_that_run(bench) == {2}
        assert bench.diary[-4:] == ["drain p00", "p00 has 0 servers", "stop dev-r1-api-1", "routes of dev.2"]
        assert bench.store.rollouts("dev")[0].outcome == "live"

    run(tmp_path, story)


def test_an_alarm_during_the_guard_restores_the_previous_release_without_starting_workers(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await ship_guarded(bench)
        fails(bench)
        warnings = list[tuple[str, str | None]]()
        bench.engine.warn = lambda *warning: warnings.append(warning)
        bench.diary.clear()
        bench.clock.runs.set()
        await bench.engine.wait_until_idle()
        assert bench.diary[0] == "dev → 1:None:0", "one entry of one map, before anything else"
        assert not any(line.startswith("start") for line in bench.diary)
        assert bench.diary.index("drain p01") < bench.diary.index("p01 has 0 servers")
        assert releases_that_run(bench) == {1}
        assert bench.clock.monotonic() < 1
        guard, taken_back = bench.store.rollouts("dev")[:2]
        assert (guard.verb, guard.release, guard.outcome, guard.previous_release) == ("guard", 1, "live", 2)
        assert (taken_back.release, taken_back.outcome) == (2, "rolled_back")
        reason = "alarm after all traffic had moved: 30 of 100 requests failed (30 %, alarm above 1 %)"
        assert taken_back.reason == reason
        assert guard.reason == f"release 2: {reason}"
        assert warnings == [(f"rolling back release 2: {reason}", "dev")], "the stage's `notify` gets it"
        assert [(r.release, r.live, r.outcome) for r in releases(bench.engine.store, "dev")] == [
            (2, False, "rolled_back"),
            (1, True, "live"),
        ]
        with pytest.raises(ConflictError, match="no release that was live before"):
            await bench.engine.rollback("dev", None)

    run(tmp_path, story)


@pytest.mark.parametrize("refused", [False, True])
def test_a_restored_release_is_first_scaled_to_the_size_of_the_one_it_replaces(tmp_path: Path, refused: bool) -> None:
    def elastic(number: int) -> Any:
        made = guarded(number)
        return replace(made, functions=(replace(made.functions[0], workers=1, max_workers=8),))

    async def story(bench: Bench) -> None:
        await bench.end(await bench.engine.deploy("dev", elastic(1), strategy=None, force=False))
        bench.clock.runs.clear()
        started = await bench.engine.deploy("dev", elastic(2), strategy=None, force=False)
        assert isinstance(started, Rollout)
        await until(lambda: started.result is not None)
        row = bench.engine.pools.live_row("dev", "api")
        assert row is not None
        await bench.engine.pools.servers.scale(row, 5)
        bench.diary.clear()
        bench.workers.refuses_to_scale = refused
        fails(bench)
        bench.clock.runs.set()
        await bench.engine.wait_until_idle()
        assert bench.diary.index("scale dev-r1-api-1 to 5") < bench.diary.index("dev → 1:None:0")
        assert releases_that_run(bench) == {1}, "also where no workers were to be had"

    run(tmp_path, story)


def test_the_guards_rollout_cannot_be_stopped(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await ship_guarded(bench)
        fails(bench)
        counts, refused = bench.gateway.counts, []

        async def abort_meanwhile(pools: Collection[str] | None = None) -> Any:
            current = bench.engine.turn_of("dev").current
            if current is not None and current.verb == "guard" and current.state == "preparing":
                with pytest.raises(ConflictError):
                    bench.engine.abort("dev")
                refused.append(True)
            return await counts(pools)

        bench.gateway.counts = abort_meanwhile  # type: ignore[method-assign]
        bench.clock.runs.set()
        await bench.engine.wait_until_idle()
        assert refused
        assert bench.gateway.state.stage("dev").live == 1

    run(tmp_path, story)


def test_requests_before_the_release_do_not_trigger_its_alarms(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        fails(bench, "p01")
        await ship_guarded(bench)
        bench.clock.runs.set()
        await bench.engine.wait_until_idle()
        assert bench.store.live("dev") is not None
        assert [row.outcome for row in bench.store.rollouts("dev")] == ["live", "live"]

    run(tmp_path, story)


def test_the_next_deploy_ends_the_guard_and_drains_the_previous_release(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await ship_guarded(bench)
        started = await bench.engine.deploy("dev", guarded(3), strategy=None, force=False)
        assert isinstance(started, Rollout)
        await until(lambda: started.result is not None)
        assert bench.clock.monotonic() == 0
        assert (
            bench.diary.index("drain p00") < bench.diary.index("p00 has 0 servers") < bench.diary.index("start api r3")
        )
        assert releases_that_run(bench) == {2, 3}
        bench.clock.runs.set()
        await bench.engine.wait_until_idle()
        assert releases_that_run(bench) == {3}

    run(tmp_path, story)


def test_a_rollback_during_the_guard_starts_no_workers(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await ship_guarded(bench)
        bench.gateway.requests["p00"] = {"requests": 500, "5xx": 3}
        bench.diary.clear()
        started = await bench.engine.rollback("dev", None)
        assert isinstance(started, Rollout)
        result = await bench.end(started)
        assert (result["outcome"], result["release"]) == ("live", 1)
        assert bench.diary[0] == "dev → 1:None:0"
        assert not any(line.startswith("start") for line in bench.diary)
        assert result["candidate"]["requests"] == 0, "what it had served before is not this rollout's"
        assert releases_that_run(bench) == {1}
        assert bench.clock.monotonic() == 0, "a rollback is not guarded"

    run(tmp_path, story)


def test_abort_ends_the_guard_and_keeps_the_release(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        shipped = await ship_guarded(bench)
        assert bench.engine.abort("dev") is shipped
        result = await bench.end(shipped)
        assert result["outcome"] == "live"
        assert bench.engine.turn_of("dev").guard is None
        assert releases_that_run(bench) == {2}
        with pytest.raises(ConflictError, match="dev has no rollout in progress"):
            bench.engine.abort("dev")

    run(tmp_path, story)


def test_down_ends_the_guard(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await ship_guarded(bench)
        await bench.engine.end_rollouts()
        assert "drain p00" in bench.diary
        assert releases_that_run(bench) == {2}

    run(tmp_path, story)


@pytest.mark.parametrize("strategy", ["Canary10Percent5Minutes", "Linear40PercentEvery1Minute"])
def test_a_release_that_baked_is_not_guarded(tmp_path: Path, strategy: str) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy(alarms=GUARDED)
        result = await bench.deploy(digest="sha256:2", alarms=GUARDED, strategy=strategy)
        assert result["steps"][-1]["state"] == "draining"

    run(tmp_path, story)


def test_a_relative_alarm_reports_that_a_guarded_release_has_no_comparison(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        alarms = AlarmSettings(1, 20, p99_relative_percent=150, guard_s=1)
        await bench.deploy()
        started = await bench.engine.deploy(
            "dev", release_document(digest="sha256:2", alarms=alarms), strategy=None, force=False
        )
        assert isinstance(started, Rollout)
        await bench.end(started)
        assert started.reading
        assert started.reading.verdict == "not_enough_data"
        assert "no other release serves at the same time" in started.reading.sentence

    run(tmp_path, story)


async def dead_in_the_guard(bench: Bench) -> None:
    await ship_guarded(bench)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)


def after_the_death(tmp_path: Path, elapsed_s: float) -> Bench:
    bench = run(tmp_path, dead_in_the_guard).again()
    bench.clock.elapsed_s = elapsed_s
    return bench


def test_an_interrupted_guard_continues_for_its_remaining_time(tmp_path: Path) -> None:
    bench = after_the_death(tmp_path, 10)

    async def restart() -> None:
        bench.clock.runs.clear()
        await recover(bench.engine)
        await until(lambda: bench.engine.turn_of("dev").guard is not None)
        guard = bench.engine.turn_of("dev").guard
        assert guard
        assert guard.left_s == pytest.approx(20, abs=0.1)
        assert releases_that_run(bench) == {1, 2}
        bench.clock.runs.set()
        await bench.engine.wait_until_idle()
        assert releases_that_run(bench) == {2}

    asyncio.run(restart())


def test_an_alarm_in_a_resumed_guard_restores_the_previous_release(tmp_path: Path) -> None:
    bench = after_the_death(tmp_path, 10)

    async def restart() -> None:
        bench.clock.runs.clear()
        await recover(bench.engine)
        await until(lambda: bench.engine.turn_of("dev").guard is not None)
        fails(bench)
        bench.clock.runs.set()
        await bench.engine.wait_until_idle()
        assert bench.gateway.state.stage("dev").live == 1
        assert releases_that_run(bench) == {1}
        assert [(row.verb, row.outcome) for row in bench.store.rollouts("dev")][:2] == [
            ("guard", "live"),
            ("deploy", "rolled_back"),
        ]

    asyncio.run(restart())


def test_an_expired_guard_is_not_resumed(tmp_path: Path) -> None:
    bench = after_the_death(tmp_path, 31)

    async def restart() -> None:
        await recover(bench.engine)
        assert bench.engine.turn_of("dev").guard is None
        await bench.engine.wait_until_idle()
        assert releases_that_run(bench) == {2}

    asyncio.run(restart())


@pytest.mark.parametrize(
    "instant",
    [
        "before the swap",
        "dev → 1:None:0",
        "p01 has 0 servers",
    ],
)
def test_an_interrupted_rollback_by_the_guard_is_finished(tmp_path: Path, instant: str) -> None:
    bench = Bench(tmp_path)

    async def story() -> None:
        await ship_guarded(bench)
        fails(bench)

        def die(state: GatewayState) -> None:
            if instant in bench.diary:
                raise Dies

        async def die_before(new: GatewayState, *, drain_s: float | None = None) -> None:
            raise Dies

        bench.diary.clear()
        bench.gateway.on_apply = die
        if instant == "before the swap":
            bench.gateway.apply = die_before  # type: ignore[method-assign]
        bench.clock.runs.set()
        await bench.engine.wait_until_idle()

    try:
        asyncio.run(story())
    except Dies:
        pass
    assert [row.verb for row in bench.store.unfinished_rollouts()] == ["guard"]
    bench.gateway.on_apply = None
    bench.gateway.__dict__.pop("apply", None)
    successor = bench.again()
    successor.clock.elapsed_s = 5

    async def restart() -> None:
        await recover(successor.engine)
        await successor.engine.end_rollouts()

    asyncio.run(restart())
    assert successor.gateway.state.stage("dev").live == 1
    assert releases_that_run(successor) == {1}
    assert [(row.verb, row.outcome) for row in successor.store.rollouts("dev")][:2] == [
        ("guard", "live"),
        ("deploy", "rolled_back"),
    ]
    assert successor.store.unfinished_rollouts() == ()


def test_a_release_that_cannot_be_retired_is_retired_by_the_next_rollout(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await ship_guarded(bench)

        def away(state: GatewayState) -> None:
            raise EngineError("HAProxy is away")

        bench.gateway.on_apply = away
        bench.clock.runs.set()
        await bench.engine.wait_until_idle()
        assert any("cannot retire release 1 yet" in event.sentence for event in bench.store.events())
        bench.gateway.on_apply = None
        assert (await bench.deploy(digest="sha256:3"))["outcome"] == "live"
        assert releases_that_run(bench) == {3}
        assert release_keys(bench.gateway.state) == {"dev.3"}

    run(tmp_path, story)
