"""Rollouts on a real state file, with fakes for workers and gateway: the order of steps, and every outcome."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from hitless.documents import convert
from hitless.engine.status import candidate_of
from hitless.errors import ConflictError, UsageError
from hitless.gateway.state import GatewayState
from hitless.release.smoke import first_request
from hitless.release.status import CandidateStatus
from hitless.rollout.pools import STARTS_AT_ONCE
from hitless.service.event_sources import Route
from hitless.service.model import Function, SmokeRequest
from tests.component.engine_bench import Bench, run, until
from tests.fakes import release_document
from tests.support import release_keys

pytestmark = pytest.mark.component


def test_a_release_goes_live_by_steps_in_the_safe_order(tmp_path: Path) -> None:
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


def test_slow_readers_keep_an_old_release_but_do_not_delay_the_deploy(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.reading["p00"] = 1
        bench.diary.clear()
        assert (await bench.deploy(digest="sha256:2"))["outcome"] == "live"
        await until(lambda: "wait for readers of p00" in bench.diary)
        assert "stop dev-r1-api-1" not in bench.diary
        bench.gateway.reading.clear()
        bench.gateway.read.set()
        await until(lambda: "stop dev-r1-api-1" in bench.diary)
        await until(lambda: release_keys(bench.gateway.state) == {"dev.2"})
        assert [row.release for row in bench.store.pools("dev")] == [2]

    run(tmp_path, story)


def test_a_release_that_waits_for_slow_readers_is_kept_if_it_ships_again(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.reading["p00"] = 1
        await bench.deploy(digest="sha256:2")
        bench.gateway.reading.clear()
        assert (await bench.end(await bench.engine.rollback("dev", 1)))["outcome"] == "live"
        bench.gateway.read.set()
        await bench.engine.end_rollouts()
        assert [row.release for row in bench.store.pools("dev")] == [1]
        assert "start api r1" not in bench.diary[bench.diary.index("start api r2") :]
        assert "stop dev-r1-api-1" not in bench.diary

    run(tmp_path, story)


def test_slow_readers_of_an_old_release_are_cut_off_if_its_pools_are_needed_or_on_a_stop(
    tmp_path: Path,
) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.reading = {"p00": 1, "p01": 1}
        await bench.deploy(digest="sha256:2")
        assert [row.release for row in bench.store.pools("dev")] == [1, 2]
        assert (await bench.deploy(digest="sha256:3"))["outcome"] == "live", "there are two pools: release 1 goes"
        assert [row.release for row in bench.store.pools("dev")] == [2, 3]
        await bench.engine.end_rollouts()
        assert [row.release for row in bench.store.pools("dev")] == [3]

    run(tmp_path, story, pools=2)


def test_the_first_request_is_a_get_to_a_route_without_parameters() -> None:
    def asked(*routes: str) -> list[str]:
        named = [Route(*route.split(" ")) for route in routes]
        return [f"{one.method} {one.path}" for one in first_request([Function("a", "h.a", routes=tuple(named))])]

    assert asked("ANY /any", "POST /x", "GET /{id}", "GET /zones", "GET /") == ["GET /zones"]
    assert asked("POST /x", "GET /{id}", "ANY /any", "ANY /{proxy+}") == ["GET /any"]
    assert asked("POST /x", "ANY /{proxy+}") == []


@pytest.mark.parametrize(
    ("verb", "smoke", "told"),
    [
        ("deploy", (), ["release 1: GET /api: no response"]),
        ("promote", (), []),
        (
            "deploy",
            (SmokeRequest("GET", "/api"),),
            ["deploy of release 1 ended: rolled_back (smoke request GET /api: no response"],
        ),
    ],
)
def test_only_a_deploy_without_smoke_requests_sends_a_first_request(
    tmp_path: Path, verb: str, smoke: tuple[SmokeRequest, ...], told: list[str]
) -> None:
    """The workers are fakes without a socket, so nothing responds."""
    document = release_document(smoke=smoke)
    asked = replace(document, functions=(replace(document.functions[0], routes=(Route("GET", "/api"),)),))

    async def story(bench: Bench) -> None:
        await bench.end(await bench.engine.deploy("dev", asked, strategy=None, force=False, verb=verb))
        sentences = [event.sentence for event in bench.store.events(after=0, limit=9, stage="dev")]
        assert [one.partition(" (FileNotFoundError")[0] for one in sentences if "GET /api" in one] == told

    run(tmp_path, story)


@pytest.mark.parametrize(("live", "candidate"), [(1, 1), (2, 2), (16, 4)])
def test_a_candidate_starts_with_the_live_pools_depth_up_to_a_limit(tmp_path: Path, live: int, candidate: int) -> None:
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


def test_a_failed_first_release_leaves_the_stage_without_a_release(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.workers.fails["api"] = "SyntaxError"
        assert (await bench.deploy())["outcome"] == "rolled_back"
        assert bench.store.live("dev") is None
        assert bench.gateway.state.stage("dev").live is None
        assert not bench.workers.running

    run(tmp_path, story)


def test_a_release_of_many_functions_starts_a_few_at_a_time(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        unpacked: list[str] = []
        unpack = bench.artifacts.unpack

        def noted(digest: str) -> Path:
            unpacked.append(digest)
            return unpack(digest)

        bench.artifacts.unpack = noted  # type: ignore[method-assign]
        bench.workers.hold = asyncio.Event()
        names = [f"f{number}" for number in range(3 * STARTS_AT_ONCE)]
        started = await bench.engine.deploy("dev", release_document(*names), strategy=None, force=False)
        await until(lambda: len(unpacked) == len(names))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert sum(line.startswith("start ") for line in bench.diary) == STARTS_AT_ONCE
        bench.workers.hold.set()
        assert (await bench.end(started))["outcome"] == "live"

    run(tmp_path, story, pools=30)


def test_the_newest_deploy_supersedes_the_current_one(tmp_path: Path) -> None:
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


def test_abort_stops_a_canary_and_sets_its_weight_to_zero(tmp_path: Path) -> None:
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
        with pytest.raises(ConflictError, match="dev has no rollout in progress") as caught:
            bench.engine.abort("dev")
        assert caught.value.hint

    run(tmp_path, story)


def test_a_canary_bakes_and_then_gets_all_traffic(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        began = bench.clock.monotonic()
        result = await bench.deploy(digest="sha256:2", strategy="Linear40PercentEvery1Minute")
        assert result["outcome"] == "live"
        assert bench.clock.monotonic() - began >= 120
        assert [step["weight_percent"] for step in result["steps"] if step["state"] == "shifting"] == [40, 80, 100]

    run(tmp_path, story)


def test_an_alarm_on_the_candidates_own_traffic_rolls_it_back(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        bench.gateway.requests["p01"] = {"requests": 1000, "5xx": 500}

        def traffic(state: GatewayState) -> None:
            if state.stage("dev").weight:
                bench.gateway.requests["p01"] = {"requests": 1100, "5xx": 503}

        bench.gateway.on_apply = traffic
        result = await bench.deploy(digest="sha256:2", strategy="Canary10Percent5Minutes")
        assert result["outcome"] == "rolled_back"
        assert "3 of 100 requests failed" in result["reason"], (
            "what the backend had counted before is not the candidate's"
        )
        assert result["candidate"] == {"requests": 100, "failed": 3, "shielded": 0}

    run(tmp_path, story)


def test_rollback_ships_the_previously_live_release_under_its_own_number(tmp_path: Path) -> None:
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


def test_a_rollback_after_a_drill_returns_to_the_release_before_the_drill(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        await bench.deploy(digest="sha256:2")
        await bench.deploy(digest="sha256:3", message="drill: good, 1 of 2")
        await bench.deploy(digest="sha256:4", message="drill: good, 2 of 2")
        within = await bench.end(await bench.engine.rollback("dev", None))
        assert within["release"] == 3, "the drill's own rollback stays among the drill's releases"
        await bench.end(await bench.engine.rollback("dev", 2))
        assert (await bench.end(await bench.engine.rollback("dev", None)))["release"] == 1

    run(tmp_path, story)


def test_rollback_without_an_earlier_release_or_to_an_unknown_one_is_refused(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        with pytest.raises(ConflictError, match="no release that was live before"):
            await bench.engine.rollback("dev", None)
        with pytest.raises(UsageError, match="no release 9") as caught:
            await bench.engine.rollback("dev", 9)
        assert "dev has these releases: 1" in caught.value.hint

    run(tmp_path, story)


def test_rollouts_of_different_stages_are_independent(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await asyncio.gather(bench.deploy(), bench.deploy(stage="prod"))
        assert (bench.gateway.state.stage("dev").live, bench.gateway.state.stage("prod").live) == (1, 1)
        assert release_keys(bench.gateway.state) == {"dev.1", "prod.1"}

    run(tmp_path, story)


def test_a_deploy_of_another_service_or_to_an_unknown_stage_is_refused(tmp_path: Path) -> None:
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


def test_a_follower_sees_both_releases_during_a_bake(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        canary = release_document(digest="sha256:2", strategy="Canary10Percent30Seconds")
        started = await bench.engine.deploy("dev", canary, strategy=None, force=False)
        seen = []
        async for line in bench.engine.follow(started, glance=candidate_of, every_s=0):
            if "progress" in line:
                seen.append(convert(line["progress"], CandidateStatus, "progress") if line["progress"] else None)
        baking = [one for one in seen if one is not None and one.state == "baking"]
        assert {one.weight_percent for one in baking} == {10}
        assert all(0 < one.left_s <= 30 for one in baking if one.left_s)
        assert any(one.left_s and one.live for one in baking)
        assert [line async for line in bench.engine.follow(started)][-1]["result"]["outcome"] == "live"

    run(tmp_path, story)
