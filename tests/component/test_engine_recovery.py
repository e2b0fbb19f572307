"""Interrupted rollouts and the daemon's next start: each is finished or rolled back."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hitless.engine.recovery import recover
from hitless.errors import ConflictError, EngineError, UsageError
from hitless.gateway.state import GatewayState
from hitless.rollout.rollout import Rollout
from hitless.store.store import StoreError
from tests.component.engine_bench import Bench, Dies, crash_when, run, until
from tests.fakes import release_document
from tests.support import release_keys

pytestmark = pytest.mark.component


def shipped_until(tmp_path: Path, instant: str) -> Bench:
    """A daemon that dies right after the gateway's change that the diary calls `instant`."""
    bench = Bench(tmp_path)

    async def story() -> None:
        await bench.deploy()
        bench.gateway.on_apply = crash_when(bench, instant)
        try:
            async with asyncio.timeout(5):
                started = await bench.engine.deploy(
                    "dev", release_document(digest="sha256:2"), strategy=None, force=False
                )
                assert isinstance(started, Rollout)
                tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
                await asyncio.gather(*tasks, return_exceptions=True)
        except Dies:
            pass

    try:
        asyncio.run(story())
    except Dies:
        pass
    bench.gateway.on_apply = None
    return bench


@pytest.mark.parametrize(
    ("instant", "live", "outcome"),
    [
        ("p01 has 2 servers", 1, "rolled_back"),
        ("routes of dev.1, dev.2", 1, "rolled_back"),
        ("dev → 2:None:0", 2, "live"),
        ("p00 has 0 servers", 2, "live"),
        ("routes of dev.2", 2, "live"),
    ],
)
def test_a_rollout_interrupted_at_any_instant_is_finished_or_rolled_back(
    tmp_path: Path, instant: str, live: int, outcome: str
) -> None:
    bench = shipped_until(tmp_path, instant).again()

    async def restart() -> None:
        await recover(bench.engine)
        await bench.engine.end_rollouts()

    asyncio.run(restart())
    assert bench.gateway.state.stage("dev").live == live
    assert bench.gateway.state.stage("dev").weight == 0
    assert release_keys(bench.gateway.state) == {f"dev.{live}"}
    assert {pool.spec.release for pool in bench.workers.running.values()} == {live}
    assert bench.store.rollouts("dev")[0].outcome == outcome
    assert bench.store.unfinished_rollouts() == ()
    known = bench.store.live("dev")
    assert known
    assert known[0] == live


@pytest.mark.parametrize("truncated", [False, True])
def test_the_engine_serves_on_a_damaged_state_file_and_refuses_changes_until_it_is_restored(
    tmp_path: Path, truncated: bool
) -> None:
    file = tmp_path / "state.sqlite"

    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.store.back_up()
        with closing(sqlite3.connect(file)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with file.open("r+b") as damaged:
            damaged.truncate(file.stat().st_size // 2) if truncated else damaged.seek(4096)
            if not truncated:
                damaged.write(b"\xa5" * 8192)
        for change in (bench.deploy(digest="sha256:2"), bench.engine.rollback("dev", 1)):
            with pytest.raises(StoreError, match=r"state\.sqlite: the state file is damaged") as told:
                await change
            assert told.value.hint.startswith(f"`kill -9 {os.getpid()}` ends the daemon; requests are still served")
            assert f"cp {file}.backup {file}" in told.value.hint
        assert bench.gateway.state.stage("dev").live == 1
        assert set(bench.workers.running) == {"dev-r1-api-1"}

    bench = run(tmp_path, story)
    bench.store.close()
    for rest in ("-wal", "-shm"):
        file.with_name(file.name + rest).unlink(missing_ok=True)
    shutil.copy(f"{file}.backup", file)

    async def restart(bench: Bench) -> None:
        await recover(bench.engine)
        assert (await bench.deploy(digest="sha256:2"))["outcome"] == "live"

    asyncio.run(restart(bench.again()))


def test_a_clock_that_was_set_back_before_the_restart_gives_no_negative_duration(tmp_path: Path) -> None:
    bench = shipped_until(tmp_path, "dev → 2:None:0").again()
    bench.clock.elapsed_s -= 3600

    async def restart() -> None:
        await recover(bench.engine)
        await bench.engine.end_rollouts()

    asyncio.run(restart())
    result = bench.store.rollouts("dev")[0].result
    assert result is not None
    assert result.duration_s >= 0


def test_after_a_reboot_the_live_release_is_started_again(tmp_path: Path) -> None:
    first = run(tmp_path, lambda bench: _two_releases(bench))
    first.store.close()
    bench = Bench(tmp_path)

    async def restart() -> None:
        await recover(bench.engine)
        await bench.engine.end_rollouts()

    asyncio.run(restart())
    assert bench.gateway.state.stage("dev").live == 2
    assert [pool.spec.release for pool in bench.workers.running.values()] == [2]
    assert any("serves again" in event.sentence for event in bench.store.events())


async def _two_releases(bench: Bench) -> None:
    await bench.deploy()
    await bench.deploy(digest="sha256:2")


def test_old_releases_are_removed_except_those_kept_for_a_rollback(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        for number in range(1, 26):
            await bench.deploy(digest=f"sha256:{number}")
        assert len(bench.store.releases("dev")) == 25, "what shipped within the hour is kept"
        await bench.clock.sleep(7200)
        await bench.deploy(digest="sha256:26")
        kept = [row.release for row in bench.store.releases("dev")]
        assert kept == list(range(7, 27))
        assert bench.artifacts.pruned[-1] == {f"sha256:{number}" for number in kept}
        await bench.clock.sleep(7200)
        await bench.end(await bench.engine.rollback("dev", 7))
        await bench.deploy(digest="sha256:27")
        assert bench.store.releases("dev")[0].release == 7, "it was live a moment ago"

    run(tmp_path, story)


def test_a_rollout_whose_end_fails_blocks_nothing_and_is_ended_by_the_next_start(tmp_path: Path) -> None:
    def gateway_is_gone(state: GatewayState) -> None:
        if state.stage("dev").live == 2 and not state.pool("p00").servers:
            raise EngineError("HAProxy is gone")

    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.on_apply = gateway_is_gone
        result = await bench.deploy(digest="sha256:2")
        assert result["outcome"] == "live", "the candidate serves, though the old release could not be retired"
        assert result["reason"] == "it could not be ended while draining: HAProxy is gone"
        bench.gateway.on_apply = None
        assert (await bench.deploy(digest="sha256:3"))["outcome"] == "live", "the stage goes on"

    bench = run(tmp_path, story).again()
    asyncio.run(recover(bench.engine))
    assert bench.store.unfinished_rollouts() == ()
    assert {pool.spec.release for pool in bench.workers.running.values()} == {3}


def test_an_unwritable_state_file_ends_the_rollout_without_failing_other_work(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.on_apply = lambda state: bench.store.close() if state.stage("dev").live == 2 else None
        started = await bench.engine.deploy("dev", release_document(digest="sha256:2"), strategy=None, force=False)
        assert isinstance(started, Rollout)
        result = [line async for line in bench.engine.follow(started)][-1]["result"]
        assert "could not be ended" in result["reason"]
        await bench.engine.wait_until_idle()

    bench = run(tmp_path, story).again()
    bench.gateway.on_apply = None
    asyncio.run(recover(bench.engine))
    assert bench.store.rollouts("dev")[0].outcome == "live", "the gateway had it live"


def test_releases_of_an_unfinished_rollout_are_kept(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.store.begin_rollout(
            "dev", 1, verb="deploy", strategy="AllAtOnce", state="draining", previous=None, at="2026-11-20T00:00:00Z"
        )
        for number in range(2, 30):
            await bench.clock.sleep(7200)
            await bench.deploy(digest=f"sha256:{number}")
        assert bench.store.releases("dev")[0].release == 1

    bench = run(tmp_path, story).again()
    asyncio.run(recover(bench.engine))
    assert bench.store.unfinished_rollouts() == ()


def test_a_stopping_engine_refuses_releases_and_starts_no_waiting_one(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.workers.hold = asyncio.Event()
        running = await bench.engine.deploy("dev", release_document(digest="sha256:2"), strategy=None, force=False)
        await until(lambda: "start api r2" in bench.diary)
        waiting = await bench.engine.deploy("dev", release_document(digest="sha256:3"), strategy=None, force=False)
        await bench.engine.end_rollouts()
        assert isinstance(running, Rollout)
        assert isinstance(waiting, Rollout)
        assert running.result
        assert running.result.outcome == "superseded"
        assert waiting.result
        assert waiting.result.outcome == "aborted"
        assert "start api r3" not in bench.diary
        with pytest.raises(ConflictError, match="is stopping"):
            await bench.deploy(digest="sha256:4")
        with pytest.raises(ConflictError, match="is stopping"):
            await bench.engine.rollback("dev", 2)
        assert len(bench.store.releases("dev")) == 3

    run(tmp_path, story)


@pytest.mark.parametrize("instant", ["p00 has 0 servers", "routes of dev.2"])
def test_after_a_reboot_during_the_drain_the_rollout_counts_as_live(tmp_path: Path, instant: str) -> None:
    shipped_until(tmp_path, instant).store.close()
    bench = Bench(tmp_path)  # nothing runs, the gateway knows nothing

    async def restart() -> None:
        await recover(bench.engine)
        assert (await bench.engine.rollback("dev", None)).candidate.number == 1  # type: ignore[union-attr]
        await bench.engine.wait_until_idle()

    asyncio.run(restart())
    assert [rollout.outcome for rollout in bench.store.rollouts("dev")] == ["live"] * 3
    assert bench.gateway.state.stage("dev").live == 1


def test_recovery_records_a_rollouts_whole_duration(tmp_path: Path) -> None:
    bench = shipped_until(tmp_path, "p00 has 0 servers").again()
    bench.clock.elapsed_s = 90.0
    bench.clock.monotonic = lambda: 5000.0  # type: ignore[method-assign]
    asyncio.run(recover(bench.engine))
    result = bench.store.rollouts("dev")[0].result
    assert result
    assert result.duration_s == 90.0


async def _two_functions(bench: Bench) -> None:
    await bench.deploy("a", "b")


def test_a_live_release_that_cannot_start_is_shipped_again_although_unchanged(tmp_path: Path) -> None:
    run(tmp_path, _two_functions).store.close()
    bench = Bench(tmp_path)
    bench.workers.fails["b"] = "its artifact is gone"

    async def restart() -> None:
        await recover(bench.engine)
        assert bench.gateway.state.stage("dev").live is None
        bench.workers.fails.clear()
        assert (await bench.deploy("a", "b"))["release"] == 2
        assert bench.gateway.state.stage("dev").live == 2
        assert {pool.spec.release for pool in bench.workers.running.values()} == {2}

    asyncio.run(restart())


def test_a_forced_stop_does_not_drain_and_the_next_start_ends_the_rollout(tmp_path: Path) -> None:
    async def never(pool: str, *, deadline_s: float, readers: bool) -> bool:
        return await asyncio.Event().wait()

    async def story(bench: Bench) -> None:
        await bench.deploy()
        drained, bench.gateway.drained = bench.gateway.drained, never  # type: ignore[method-assign]
        await bench.engine.deploy("dev", release_document(digest="sha256:2"), strategy=None, force=False)
        await until(lambda: "dev → 2:None:0" in bench.diary)
        async with asyncio.timeout(3):
            await bench.engine.end_rollouts(force=True)
        bench.gateway.drained = drained  # type: ignore[method-assign]

    bench = run(tmp_path, story).again()
    asyncio.run(recover(bench.engine))
    assert bench.store.rollouts("dev")[0].outcome == "live"
    assert {pool.spec.release for pool in bench.workers.running.values()} == {2}


def test_releases_of_an_unknown_stage_are_refused_with_a_suggestion(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(UsageError, match="this engine has no stage prd") as refused:
        bench.engine.releases("prd")
    assert refused.value.hint == "did you mean prod?"
    assert bench.engine.releases("prod") == []
