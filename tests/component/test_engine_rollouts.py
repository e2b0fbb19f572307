"""Rollouts on a real state file, with fakes for workers and gateway: the order of steps, and every way to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from hitless.engine.engine import Engine
from hitless.engine.recovery import recover
from hitless.engine.releases import releases
from hitless.engine.retention import Retention
from hitless.errors import ConflictError, EngineError, UsageError
from hitless.gateway.counts import PoolCounts
from hitless.gateway.state import GatewayState
from hitless.rollout.pools import ReleasePools
from hitless.rollout.rollout import Rollout
from hitless.store.store import Store
from tests.fakes import FakeArtifacts, FakeClock, FakeGateway, FakeHooks, FakeWorkers, release_document

pytestmark = pytest.mark.component


class Bench:
    """An engine over fakes; `again()` is a daemon that starts after the first has died, over the same world."""

    def __init__(self, folder: Path, *, world: Bench | None = None, pools: int = 6) -> None:
        self.folder = folder
        self.diary: list[str] = world.diary if world else []
        self.store = Store(folder / "state.sqlite")
        self.workers: FakeWorkers = world.workers if world else FakeWorkers(self.diary)
        self.gateway: FakeGateway = (
            world.gateway if world else FakeGateway(self.diary, GatewayState.initial(["dev", "prod"], pools))
        )
        self.artifacts = FakeArtifacts()
        self.clock = FakeClock()
        self.hooks = FakeHooks(self.diary)
        release_pools = ReleasePools(cast(Any, self.workers), self.gateway, self.artifacts, self.store, folder / "logs")
        self.engine = Engine(
            service="shop",
            stages=("dev", "prod"),
            store=self.store,
            pools=release_pools,
            retention=Retention(self.store, self.artifacts, folder / "logs", self.clock),
            hooks=self.hooks,
            clock=self.clock,
        )

    def again(self) -> Bench:
        self.store.close()
        successor = Bench(self.folder, world=self)
        successor.engine.pools.living.update(cast(Any, self.workers.running))
        return successor

    async def deploy(self, *functions: str, force: bool = False, stage: str = "dev", **document: Any) -> dict[str, Any]:
        started = await self.engine.deploy(stage, release_document(*functions, **document), strategy=None, force=force)
        return await self.end(started)

    async def end(self, started: Rollout | dict[str, Any]) -> dict[str, Any]:
        if isinstance(started, dict):
            return started
        async for line in self.engine.follow(started):
            if "result" in line:
                await self.engine.idle()
                return cast(dict[str, Any], line["result"])
        raise AssertionError("a rollout without a result")


async def until(true: Callable[[], bool]) -> None:
    """Let the others run until it holds; the story's time-out is the deadline."""
    while not true():  # noqa: ASYNC110 - the fakes have no events to wait for
        await asyncio.sleep(0)


def run(tmp_path: Path, story: Callable[[Bench], Coroutine[Any, Any, None]], **options: Any) -> Bench:
    bench = Bench(tmp_path, **options)

    async def told() -> None:
        async with asyncio.timeout(20):
            await story(bench)

    asyncio.run(told())
    return bench


def test_a_release_goes_live_in_the_order_that_loses_nothing(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.diary.clear()
        result = await bench.deploy(digest="sha256:2")
        assert result["outcome"] == "live"
        assert [step["state"] for step in result["steps"]] == ["preparing", "shifting", "draining"]
        assert bench.diary == [
            "start api r2",
            "p01 has 2 servers",
            "routes of dev.1, dev.2",
            "dev → 2:None:0",
            "drain p00",
            "p00 has 0 servers",
            "stop dev-r1-api-1",
            "routes of dev.2",
        ]
        live = bench.store.live("dev")
        assert live
        assert live[0] == 2

    run(tmp_path, story)


@pytest.mark.parametrize(("live", "candidate"), [(1, 1), (2, 2), (16, 4)])
def test_a_candidate_begins_as_deep_as_the_live_pool_but_not_so_deep_that_a_slow_one_would_hurt(
    tmp_path: Path, live: int, candidate: int
) -> None:
    async def story(bench: Bench) -> None:
        pools = bench.engine.pools
        await bench.deploy("api")
        (first,) = bench.store.pools("dev", 1)
        assert pools.depth_of(first) == 1
        await pools.set_depth(first, live)
        depths: list[int] = []

        def note(state: GatewayState) -> None:
            depths.extend(
                pools.depth_of(row) for row in bench.store.pools("dev", 2) if state.pool(row.gateway_pool).servers
            )

        bench.gateway.on_apply = note
        await bench.deploy("api", force=True)
        assert set(depths) == {candidate}

    run(tmp_path, story)


def test_an_unchanged_release_is_not_shipped_unless_forced(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        again = await bench.deploy()
        assert (again["outcome"], again["release"]) == ("unchanged", 1)
        assert (await bench.deploy(force=True))["release"] == 2

    run(tmp_path, story)


def test_a_candidate_that_is_never_ready_leaves_the_live_release_untouched(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy("api", "search")
        before = bench.gateway.state
        bench.workers.fails["search"] = "ImportError: no module named index"
        result = await bench.deploy("api", "search", digest="sha256:2")
        assert result["outcome"] == "rolled_back"
        assert "no module named index" in result["reason"]
        assert bench.gateway.state == before, "nothing of the candidate reached the gateway"
        assert [pool.spec.release for pool in bench.workers.running.values()] == [1, 1]
        assert {row.release for row in bench.store.pools()} == {1}

    run(tmp_path, story)


def test_a_failed_first_release_leaves_the_stage_without_one(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.workers.fails["api"] = "SyntaxError"
        assert (await bench.deploy())["outcome"] == "rolled_back"
        assert bench.store.live("dev") is None
        assert bench.gateway.state.stage("dev").live is None
        assert not bench.workers.running

    run(tmp_path, story)


def test_the_newest_deploy_supersedes_the_one_under_way(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.workers.hold = asyncio.Event()
        first = await bench.engine.deploy("dev", release_document(digest="sha256:2"), strategy=None, force=False)
        await until(lambda: "start api r2" in bench.diary)
        second = await bench.engine.deploy("dev", release_document(digest="sha256:3"), strategy=None, force=False)
        third = await bench.engine.deploy("dev", release_document(digest="sha256:4"), strategy=None, force=False)
        bench.workers.hold.set()
        results = await asyncio.gather(bench.end(first), bench.end(second), bench.end(third))
        assert [result["outcome"] for result in results] == ["superseded", "superseded", "live"]
        assert "start api r3" not in bench.diary, "what was overtaken while it waited never started"
        assert {pool.spec.release for pool in bench.workers.running.values()} == {4}

    run(tmp_path, story)


def test_abort_stops_a_canary_and_puts_its_weight_to_zero(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        started = await bench.engine.deploy(
            "dev", release_document(digest="sha256:2", strategy="Canary10Percent5Minutes"), strategy=None, force=False
        )
        await until(lambda: bench.gateway.state.stage("dev").weight == 1000)
        bench.engine.abort("dev")
        result = await bench.end(started)
        assert (result["outcome"], result["reason"]) == ("aborted", "aborted by hand")
        stage = bench.gateway.state.stage("dev")
        assert (stage.live, stage.candidate, stage.weight) == (1, None, 0)
        assert bench.diary.index("dev → 1:None:0") < bench.diary.index("drain p01")

    run(tmp_path, story)


def test_abort_without_a_rollout_is_refused_with_a_hint(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        with pytest.raises(ConflictError, match="no rollout is under way") as caught:
            bench.engine.abort("dev")
        assert caught.value.hint

    run(tmp_path, story)


def test_a_canary_bakes_its_time_and_walks_to_all(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        began = bench.clock.monotonic()
        result = await bench.deploy(digest="sha256:2", strategy="Linear40PercentEvery1Minute")
        assert result["outcome"] == "live"
        assert bench.clock.monotonic() - began >= 120
        assert [step["weight_percent"] for step in result["steps"] if step["state"] == "shifting"] == [40, 80, 100]

    run(tmp_path, story)


def test_an_alarm_on_the_candidates_own_traffic_shifts_back(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.requests["p01"] = PoolCounts(requests=1000, by_class={"5xx": 500})

        def traffic(state: GatewayState) -> None:
            if state.stage("dev").weight:
                bench.gateway.requests["p01"] = PoolCounts(requests=1100, by_class={"5xx": 503})

        bench.gateway.on_apply = traffic
        result = await bench.deploy(digest="sha256:2", strategy="Canary10Percent5Minutes")
        assert result["outcome"] == "rolled_back"
        assert "3 of 100 requests failed" in result["reason"], (
            "what the backend had counted before is not the candidate's"
        )
        assert result["candidate"] == {"requests": 100, "failed": 3, "shielded": 0}

    run(tmp_path, story)


def test_rollback_ships_the_release_that_was_live_before_under_its_own_number(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        await bench.deploy(digest="sha256:2")
        result = await bench.end(await bench.engine.rollback("dev", None))
        assert (result["outcome"], result["release"]) == ("live", 1)
        assert bench.gateway.state.stage("dev").live == 1
        assert {pool.spec.release for pool in bench.workers.running.values()} == {1}
        back = await bench.end(await bench.engine.rollback("dev", None))
        assert back["release"] == 2, "a second rollback returns to where the first came from"

    run(tmp_path, story)


def test_rollback_without_an_earlier_release_or_to_an_unknown_one_is_refused(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        with pytest.raises(ConflictError, match="no release that was live before"):
            await bench.engine.rollback("dev", None)
        with pytest.raises(UsageError, match="no release 9") as caught:
            await bench.engine.rollback("dev", 9)
        assert "kept releases: 1" in caught.value.hint

    run(tmp_path, story)


def test_stages_do_not_disturb_each_other(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await asyncio.gather(bench.deploy(), bench.deploy(stage="prod"))
        assert (bench.gateway.state.stage("dev").live, bench.gateway.state.stage("prod").live) == (1, 1)
        assert bench.gateway.state.release_keys() == {"dev.1", "prod.1"}

    run(tmp_path, story)


def test_another_service_and_an_unknown_stage_are_refused(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        with pytest.raises(ConflictError, match="runs the service shop, not bakery"):
            await bench.deploy(service="bakery")
        with pytest.raises(UsageError, match="no stage qa"):
            await bench.deploy(stage="qa")
        assert bench.store.releases("dev") == ()

    run(tmp_path, story)


def test_a_deploy_without_a_free_pool_is_refused_and_rolled_back(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy("a", "b")
        result = await bench.deploy("a", "b", digest="sha256:2")
        assert result["outcome"] == "rolled_back"
        assert "free pools" in result["reason"]
        assert bench.gateway.state.stage("dev").live == 1

    run(tmp_path, story, pools=3)


class Dies(BaseException):
    """The daemon's death at a chosen instant."""


def crash_when(bench: Bench, instant: str) -> Callable[[GatewayState], None]:
    begun = len(bench.diary)

    def look(state: GatewayState) -> None:
        if instant in bench.diary[begun:]:
            raise Dies

    return look


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
def test_a_rollout_cut_off_at_any_instant_is_finished_or_rolled_back(
    tmp_path: Path, instant: str, live: int, outcome: str
) -> None:
    bench = shipped_until(tmp_path, instant).again()

    async def restart() -> None:
        await recover(bench.engine)
        await bench.engine.settle()

    asyncio.run(restart())
    assert bench.gateway.state.stage("dev").live == live
    assert bench.gateway.state.stage("dev").weight == 0
    assert bench.gateway.state.release_keys() == {f"dev.{live}"}
    assert {pool.spec.release for pool in bench.workers.running.values()} == {live}
    assert bench.store.rollouts("dev")[0].outcome == outcome
    assert bench.store.unfinished_rollouts() == ()
    known = bench.store.live("dev")
    assert known
    assert known[0] == live


def test_after_a_reboot_the_live_release_is_started_again(tmp_path: Path) -> None:
    first = run(tmp_path, lambda bench: _two_releases(bench))
    first.store.close()
    bench = Bench(tmp_path)

    async def restart() -> None:
        await recover(bench.engine)
        await bench.engine.settle()

    asyncio.run(restart())
    assert bench.gateway.state.stage("dev").live == 2
    assert [pool.spec.release for pool in bench.workers.running.values()] == [2]
    assert any("serves again" in event.sentence for event in bench.store.events())


async def _two_releases(bench: Bench) -> None:
    await bench.deploy()
    await bench.deploy(digest="sha256:2")


def test_old_releases_are_forgotten_but_never_those_that_rollback_needs(tmp_path: Path) -> None:
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


def test_a_rollout_whose_end_fails_keeps_nobody_waiting_and_is_ended_by_the_next_start(tmp_path: Path) -> None:
    def gateway_is_gone(state: GatewayState) -> None:
        if state.stage("dev").live == 2 and not state.pool("p00").servers:
            raise EngineError("HAProxy is gone")

    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.on_apply = gateway_is_gone
        result = await bench.deploy(digest="sha256:2")
        assert result["outcome"] == "live", "the candidate serves, though the old release could not be retired"
        assert result["reason"] == "it could not be ended while it was draining: HAProxy is gone"
        bench.gateway.on_apply = None
        assert (await bench.deploy(digest="sha256:3"))["outcome"] == "live", "the stage goes on"

    bench = run(tmp_path, story).again()
    asyncio.run(recover(bench.engine))
    assert bench.store.unfinished_rollouts() == ()
    assert {pool.spec.release for pool in bench.workers.running.values()} == {3}


def test_a_state_file_that_takes_nothing_ends_the_rollout_and_fails_no_event(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.on_apply = lambda state: bench.store.close() if state.stage("dev").live == 2 else None
        started = await bench.engine.deploy("dev", release_document(digest="sha256:2"), strategy=None, force=False)
        assert isinstance(started, Rollout)
        result = [line async for line in bench.engine.follow(started)][-1]["result"]
        assert "could not be ended" in result["reason"]
        await bench.engine.idle()

    bench = run(tmp_path, story).again()
    bench.gateway.on_apply = None
    asyncio.run(recover(bench.engine))
    assert bench.store.rollouts("dev")[0].outcome == "live", "the gateway had it live"


def test_releases_of_an_unfinished_rollout_are_not_forgotten(tmp_path: Path) -> None:
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


def test_an_engine_that_stops_takes_no_release_and_begins_none_that_waited(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.workers.hold = asyncio.Event()
        running = await bench.engine.deploy("dev", release_document(digest="sha256:2"), strategy=None, force=False)
        await until(lambda: "start api r2" in bench.diary)
        waiting = await bench.engine.deploy("dev", release_document(digest="sha256:3"), strategy=None, force=False)
        await bench.engine.settle()
        assert isinstance(running, Rollout)
        assert isinstance(waiting, Rollout)
        assert running.result
        assert running.result["outcome"] == "superseded"
        assert waiting.result
        assert waiting.result["outcome"] == "aborted"
        assert "start api r3" not in bench.diary
        with pytest.raises(ConflictError, match="being stopped"):
            await bench.deploy(digest="sha256:4")
        with pytest.raises(ConflictError, match="being stopped"):
            await bench.engine.rollback("dev", 2)
        assert len(bench.store.releases("dev")) == 3

    run(tmp_path, story)


@pytest.mark.parametrize("instant", ["p00 has 0 servers", "routes of dev.2"])
def test_after_a_reboot_in_mid_drain_the_rollout_is_known_to_have_gone_live(tmp_path: Path, instant: str) -> None:
    shipped_until(tmp_path, instant).store.close()
    bench = Bench(tmp_path)  # nothing runs, the gateway knows nothing

    async def restart() -> None:
        await recover(bench.engine)
        assert (await bench.engine.rollback("dev", None)).candidate.number == 1  # type: ignore[union-attr]
        await bench.engine.idle()

    asyncio.run(restart())
    assert [rollout.outcome for rollout in bench.store.rollouts("dev")] == ["live"] * 3
    assert bench.gateway.state.stage("dev").live == 1


def test_a_rollout_that_recovery_ends_lasted_from_its_start_to_its_end(tmp_path: Path) -> None:
    bench = shipped_until(tmp_path, "p00 has 0 servers").again()
    bench.clock.elapsed_s = 90.0
    bench.clock.monotonic = lambda: 5000.0  # type: ignore[method-assign]
    asyncio.run(recover(bench.engine))
    receipt = bench.store.rollouts("dev")[0].receipt
    assert receipt
    assert receipt["duration_s"] == 90.0


async def _two_functions(bench: Bench) -> None:
    await bench.deploy("a", "b")


def test_a_live_release_that_cannot_be_brought_back_is_shipped_anew_though_nothing_has_changed(tmp_path: Path) -> None:
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


def test_a_stop_by_force_waits_for_no_drain_and_the_next_start_ends_the_rollout(tmp_path: Path) -> None:
    async def never(pool: str, *, deadline_s: float) -> bool:
        return await asyncio.Event().wait()

    async def story(bench: Bench) -> None:
        await bench.deploy()
        drained, bench.gateway.drained = bench.gateway.drained, never  # type: ignore[method-assign]
        await bench.engine.deploy("dev", release_document(digest="sha256:2"), strategy=None, force=False)
        await until(lambda: "dev → 2:None:0" in bench.diary)
        async with asyncio.timeout(3):
            await bench.engine.settle(force=True)
        bench.gateway.drained = drained  # type: ignore[method-assign]

    bench = run(tmp_path, story).again()
    asyncio.run(recover(bench.engine))
    assert bench.store.rollouts("dev")[0].outcome == "live"
    assert {pool.spec.release for pool in bench.workers.running.values()} == {2}


def test_the_releases_of_a_stage_that_is_not_there_are_refused_by_the_nearest_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(UsageError, match="this engine has no stage prd") as refused:
        releases(bench.engine, "prd")
    assert refused.value.hint == "did you mean prod?"
    assert releases(bench.engine, "prod") == []
