"""Hooks and alarms in a rollout, over fakes: when they run, and what their results cause."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.engine.recovery import finish_leftover_rollouts, recover
from hitless.errors import EngineError
from hitless.gateway.state import GatewayState
from hitless.release.result import Result
from hitless.rollout.hooks import Hook
from hitless.rollout.rollout import Rollout
from hitless.service.model import Function, Hooks, SmokeRequest
from tests.component.engine_bench import Bench, run, until
from tests.fakes import release_document

pytestmark = pytest.mark.component

BOTH = Hooks("check", "confirm")
CANARY = "Canary10Percent5Minutes"


async def begin(bench: Bench, **document: Any) -> Rollout:
    """Start shipping release 2 over release 1, with both hooks."""
    await bench.deploy()
    bench.diary.clear()
    wanted = release_document(digest="sha256:2", hooks=BOTH, **document)
    started = await bench.engine.deploy("dev", wanted, strategy=None, force=False)
    assert isinstance(started, Rollout)
    return started


def weights(bench: Bench) -> list[str]:
    return [line for line in bench.diary if line.startswith("dev →")]


def test_hooks_run_before_and_after_the_traffic_moves(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        started = await begin(bench, strategy=CANARY)
        result = await bench.end(started)
        assert result["outcome"] == "live"
        assert [step["state"] for step in result["steps"]] == [
            *("preparing", "testing", "shifting", "baking", "shifting", "confirming", "shifting", "draining")
        ]
        told = [line for line in bench.diary if line.startswith(("pre_", "post_", "dev →", "routes", "drain"))]
        assert told[:-1] == [
            "pre_traffic r2",
            "routes of dev.1, dev.2",
            "dev → 1:2:1000",
            "dev → 1:2:10000",
            "post_traffic r2",
            "dev → 2:None:0",
            "drain p00",
        ]
        assert [hook.status for hook in started.receipt.document().hooks] == ["Succeeded", "Succeeded"]

    run(tmp_path, story)


def test_a_failed_pre_traffic_hook_rolls_back_before_any_traffic(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.hooks.fails.add(Hook.PRE_TRAFFIC)
        started = await begin(bench)
        before = bench.gateway.state
        result = await bench.end(started)
        assert (result["outcome"], result["reason"]) == ("rolled_back", "pre_traffic hook check answered")
        assert bench.gateway.state == before
        assert weights(bench) == []
        assert started.receipt.document().hooks[0].status == "Failed"

    run(tmp_path, story)


@pytest.mark.parametrize("strategy", ["AllAtOnce", CANARY])
def test_a_failed_post_traffic_hook_moves_all_traffic_back(tmp_path: Path, strategy: str) -> None:
    async def story(bench: Bench) -> None:
        bench.hooks.fails.add(Hook.POST_TRAFFIC)
        result = await bench.end(await begin(bench, strategy=strategy))
        assert (result["outcome"], result["reason"]) == ("rolled_back", "post_traffic hook confirm answered")
        assert weights(bench)[-2:] == ["dev → 1:2:10000", "dev → 1:None:0"]
        assert bench.diary.index("dev → 1:None:0") < bench.diary.index("drain p01")
        live = bench.store.live("dev")
        assert live
        assert live[0] == 1

    run(tmp_path, story)


def test_a_first_release_is_rolled_back_if_its_post_traffic_hook_fails(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.hooks.fails.add(Hook.POST_TRAFFIC)
        assert (await bench.deploy(hooks=BOTH))["outcome"] == "rolled_back"
        assert bench.gateway.state.stage("dev").live is None
        assert bench.gateway.state.stage("dev").candidate is None
        bench.hooks.fails.clear()
        assert (await bench.deploy(hooks=BOTH))["outcome"] == "live"

    run(tmp_path, story)


def test_smoke_requests_run_before_the_hook(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        started = await begin(bench, smoke=(SmokeRequest("GET", "/nowhere"),))
        result = await bench.end(started)
        assert "no route of the candidate matches it" in result["reason"]
        assert "pre_traffic r2" not in bench.diary

    run(tmp_path, story)


@pytest.mark.parametrize(("hook", "weight"), [("pre_traffic", 0), ("post_traffic", 10_000)])
@pytest.mark.parametrize("by", ["abort", "supersede", "down"])
def test_stopping_a_rollout_in_a_hook_ends_the_hook(tmp_path: Path, hook: str, weight: int, by: str) -> None:
    async def story(bench: Bench) -> None:
        started = await begin(bench)
        bench.hooks.hold = asyncio.Event()
        if hook == "post_traffic":
            bench.hooks.hold.set()
            await until(lambda: "pre_traffic r2" in bench.diary)
            bench.hooks.hold = asyncio.Event()
        await until(lambda: f"{hook} r2" in bench.diary)
        assert bench.gateway.state.stage("dev").weight == weight
        newer = None
        if by == "supersede":
            newer = await bench.engine.deploy("dev", release_document(digest="sha256:3"), strategy=None, force=False)
        elif by == "abort":
            bench.engine.abort("dev")
        else:
            await bench.engine.end_rollouts()
        result = await bench.end(started)
        assert result["outcome"] == ("superseded" if by == "supersede" else "aborted")
        assert f"{hook} r2 is cut off" in bench.diary
        assert bench.gateway.state.stage("dev").weight == 0
        if newer is not None:
            assert (await bench.end(newer))["outcome"] == "live"

    run(tmp_path, story)


def test_an_alarm_during_the_post_traffic_hook_ends_the_hook(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        started = await begin(bench)
        bench.hooks.hold = asyncio.Event()
        bench.hooks.hold.set()
        await until(lambda: "pre_traffic r2" in bench.diary)
        bench.hooks.hold = asyncio.Event()
        await until(lambda: "post_traffic r2" in bench.diary)
        bench.gateway.requests["p01"] = {"requests": 50, "5xx": 50}
        result = await bench.end(started)
        assert (result["outcome"], "50 of 50 requests failed" in result["reason"]) == ("rolled_back", True)
        assert "post_traffic r2 is cut off" in bench.diary

    run(tmp_path, story)


def test_a_bake_without_enough_requests_continues_with_a_note(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.deploy()
        result = await bench.deploy(digest="sha256:2", strategy="Linear50PercentEvery1Minute")
        assert result["outcome"] == "live"
        assert result["alarms"]["verdict"] == "not_enough_data"
        doubt = "the alarms did not have enough data at 50% (error rate: 0 of 20 requests needed for a verdict)"
        notes = {step["weight_percent"]: step.get("note") for step in result["steps"] if step["state"] == "shifting"}
        assert notes == {50: None, 100: doubt}
        assert any(event.sentence == f"release 2 continues, although {doubt}" for event in bench.store.events())

    run(tmp_path, story)


def test_a_rollout_interrupted_in_its_post_traffic_hook_is_rolled_back(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.hooks.hold = asyncio.Event()
        bench.hooks.hold.set()
        await begin(bench)
        await until(lambda: "pre_traffic r2" in bench.diary)
        bench.hooks.hold = asyncio.Event()
        await until(lambda: "post_traffic r2" in bench.diary)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    bench = run(tmp_path, story).again()
    assert bench.gateway.state.stage("dev").weight == 10_000
    asyncio.run(recover(bench.engine))
    assert (bench.gateway.state.stage("dev").live, bench.gateway.state.stage("dev").weight) == (1, 0)
    rollout = bench.store.rollouts("dev")[0]
    assert (rollout.outcome, rollout.reason) == ("rolled_back", "the engine stopped while the rollout was confirming")
    assert {pool.spec.release for pool in bench.workers.running.values()} == {1}
    assert "hooks are cleared" in bench.diary


def test_a_withdrawal_is_retried_until_the_gateway_is_back(tmp_path: Path) -> None:
    away = [True]

    def refuse(state: GatewayState) -> None:
        if away[0] and state.stage("dev").candidate is None:
            raise EngineError("HAProxy is away")

    async def story(bench: Bench) -> None:
        await bench.deploy()
        started = await bench.engine.deploy(
            "dev", release_document(digest="sha256:2", strategy=CANARY), strategy=None, force=False
        )
        await until(lambda: bench.gateway.state.stage("dev").weight == 1000)
        # as the real gateway: a state that was not taken is not the state
        apply = bench.gateway.apply

        async def apply_or_not(new: GatewayState, *, drain_s: float | None = None) -> None:
            refuse(new)
            await apply(new, drain_s=drain_s)

        bench.gateway.apply = apply_or_not  # type: ignore[method-assign]
        bench.engine.abort("dev")
        result = await bench.end(started)
        assert "HAProxy is away" in result["reason"]
        assert bench.gateway.state.stage("dev").weight == 1000
        assert {pool.spec.release for pool in bench.workers.running.values()} == {1, 2}, "it still has requests"
        healer = asyncio.create_task(finish_leftover_rollouts(bench.engine, bench.clock))
        await until(lambda: any("cannot finish rollout 2 yet" in event.sentence for event in bench.store.events()))
        assert bench.gateway.state.stage("dev").weight == 1000
        away[0] = False
        await until(lambda: bench.store.unfinished_rollouts() == ())
        healer.cancel()
        assert (bench.gateway.state.stage("dev").live, bench.gateway.state.stage("dev").candidate) == (1, None)
        assert {pool.spec.release for pool in bench.workers.running.values()} == {1}
        assert bench.store.rollouts("dev")[0].reason == "aborted by hand"

    run(tmp_path, story)


def test_functions_without_routes_get_no_pool(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        document = release_document(hooks=BOTH)
        hooks = (Function("check", "handlers.check"), Function("confirm", "handlers.confirm"))
        document = replace(
            document,
            functions=(*document.functions, *hooks),
            artifacts=dict.fromkeys(("api", "check", "confirm"), document.artifacts["api"]),
        )
        started = await bench.engine.deploy("dev", document, strategy=None, force=False)
        assert (await bench.end(started))["outcome"] == "live"
        assert [row.function for row in bench.store.pools("dev")] == ["api"]
        unchanged = await bench.engine.deploy("dev", document, strategy=None, force=False)
        assert isinstance(unchanged, Result)
        assert unchanged.outcome == "unchanged"

    run(tmp_path, story)
