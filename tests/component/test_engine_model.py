"""Any order of deploys, promotions, aborts, rollbacks, stalls, crashes and reboots, drawn by Hypothesis.

A crash ends the daemon after any of its effects: a transaction, or a change of the gateway. What tasks of the dead
daemon still do is undone, and the next one starts with the processes and the gateway as they were.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from hitless.engine.recovery import recover
from hitless.errors import ConflictError
from hitless.gateway.state import GatewayState
from hitless.rollout.rollout import Rollout
from hitless.service.model import AlarmSettings, Hooks
from hitless.store.store import RolloutRow, Store
from tests.component.engine_bench import Bench, Dies
from tests.fakes import release_document
from tests.support import release_keys

pytestmark = [  # the tasks of a dead daemon end before they begin
    pytest.mark.component,
    pytest.mark.filterwarnings(
        "ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]

STAGES = st.sampled_from(["dev", "prod"])
STRATEGIES = st.sampled_from(["AllAtOnce", "Canary10Percent5Minutes", "Linear20PercentEvery1Minute"])
GUARDS = st.sampled_from([0, 60])


class Fuse:
    """Counts the daemon's effects down, and ends the daemon at the last."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.burnt: tuple[GatewayState, dict[str, Any]] | None = None

    def effect(self, bench: Bench) -> None:
        if self.burnt is None and self.left is not None:
            self.left -= 1
            if self.left <= 0:
                self.burnt = bench.gateway.state, dict(bench.workers.running)
        if self.burnt is not None:
            raise Dies


class FusedStore(Store):
    """A state file whose daemon may die right after a transaction. A dead one writes nothing."""

    fuse: Fuse | None = None
    bench: Bench

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        if self.fuse and self.fuse.burnt:
            raise Dies
        with super().transaction() as db:
            yield db
        if self.fuse:
            self.fuse.effect(self.bench)


class EngineModel(RuleBasedStateMachine):
    """The daemon, its crashes, and what must hold after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.digests = 0
        self.ended: dict[int, RolloutRow] = {}
        self.events = 0
        self.live: dict[str, int] = {}
        """The release that each stage certainly serves: set when a result says so, or when all has settled."""
        self.results: dict[int, asyncio.Task[dict[str, Any]]] = {}
        """What the daemon tells of its rollouts, by number."""
        self._begin(Bench(self.folder, pools=12, store=FusedStore))

    def _begin(self, bench: Bench) -> None:
        self.bench, self.fuse = bench, Fuse()
        assert isinstance(bench.store, FusedStore)
        bench.store.fuse, bench.store.bench = self.fuse, bench
        bench.gateway.on_apply = lambda _: self.fuse.effect(bench)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def within() -> Any:
            async with asyncio.timeout(120):  # a rollout of minutes writes hundreds of receipts
                return await work

        return self.runner.run(within())

    async def _verb(self, work: Any) -> None:
        try:
            started = await work
        except (ConflictError, Dies):
            return
        if isinstance(started, Rollout):
            self.results[started.number] = asyncio.ensure_future(self.bench.end(started))

    @rule(stage=STAGES, strategy=STRATEGIES, functions=st.integers(1, 2), guard_s=GUARDS, fails=st.booleans())
    def deploy(self, stage: str, strategy: str, functions: int, guard_s: int, fails: bool) -> None:
        self.digests += 1
        names = ("api", "broken" if fails else "more")[: functions + fails]
        self.bench.workers.fails = {"broken": "it does not start"}
        document = release_document(
            *names, strategy=strategy, digest=f"sha256:{self.digests}", alarms=AlarmSettings(1, 20, guard_s=guard_s),
            hooks=Hooks(pre_traffic="api"),
        )  # fmt: skip
        self._run(self._verb(self.bench.engine.deploy(stage, document, strategy=None, force=False)))

    @rule()
    def promote(self) -> None:
        live = self.bench.engine.live_release("dev")
        if live is not None:
            ship = self.bench.engine.deploy("prod", live.document, strategy=None, force=False, verb="promote")
            self._run(self._verb(ship))

    @rule(stage=STAGES, back=st.integers(0, 3))
    def rollback(self, stage: str, back: int) -> None:
        numbers = [row.release for row in self.bench.store.releases(stage)]
        target = numbers[-back] if 0 < back <= len(numbers) else None
        self._run(self._verb(self.bench.engine.rollback(stage, target)))

    @rule(stage=STAGES)
    def abort(self, stage: str) -> None:
        async def work() -> None:
            try:
                self.bench.engine.abort(stage)
            except (ConflictError, Dies):
                pass

        self._run(work())

    @rule(what=st.sampled_from(["start", "hook", "drain", "time"]))
    def stall(self, what: str) -> None:
        match what:
            case "start":
                self.bench.workers.hold = self.bench.workers.hold or asyncio.Event()
            case "hook":
                self.bench.hooks.hold = self.bench.hooks.hold or asyncio.Event()
            case "drain":
                self.bench.gateway.draining = self.bench.gateway.draining or asyncio.Event()
            case _:
                self.bench.clock.runs.clear()

    @rule()
    def resume(self) -> None:
        for held in (self.bench.workers.hold, self.bench.hooks.hold, self.bench.gateway.draining):
            if held is not None:
                held.set()
        self.bench.workers.hold = self.bench.hooks.hold = self.bench.gateway.draining = None
        self.bench.clock.runs.set()

    @rule(steps=st.integers(1, 60))
    def go_on(self, steps: int) -> None:
        async def work() -> None:
            for _ in range(steps):
                await asyncio.sleep(0)

        self._run(work())

    @rule(after=st.integers(1, 40), steps=st.integers(1, 200))
    def crash(self, after: int, steps: int) -> None:
        """Of the daemon, after its next `after` effects if it takes them within `steps`; then the next one starts."""
        self.fuse.left = after
        self.go_on(steps)
        self._restart()

    @rule()
    def reboot(self) -> None:
        """All processes are gone, the gateway's too."""
        self.fuse.left = 0
        self._restart(reboot=True)

    @rule(which=st.integers(0, 5))
    def lose_a_pool_and_crash(self, which: int) -> None:
        running = sorted(self.bench.workers.running)
        self._restart(lost=running[which % len(running)] if running else "")

    def _restart(self, *, reboot: bool = False, lost: str = "") -> None:
        state, running = self.fuse.burnt or (self.bench.gateway.state, dict(self.bench.workers.running))
        self.fuse.burnt = state, running
        self.runner.close()
        self.results.clear()
        self.runner = asyncio.Runner()
        running.pop(lost, None)
        if reboot:
            state, running = GatewayState.initial(["dev", "prod"], 12), {}
        self.bench.gateway.state, self.bench.workers.running = state, running
        self.bench.gateway.draining = self.bench.workers.hold = None
        self.bench.gateway.on_apply = None
        self._begin(self.bench.again())
        self._run(recover(self.bench.engine))
        self._settled(("dev", "prod"))

    @rule()
    def settle(self) -> None:
        self.resume()
        self._run(self.bench.engine.wait_until_idle())
        self._run(self.bench.engine.wait_until_idle())
        rows = {row.rollout: row for row in self.bench.store.rollouts()}
        for number, told in self.results.items():
            recorded = rows[number].result
            assert recorded is not None, told
            assert recorded.outcome == told.result()["outcome"]
        self.results.clear()
        self._settled(("dev", "prod"))

    def _settled(self, stages: tuple[str, ...]) -> None:
        """Nothing runs: state file, gateway and processes agree, and each live release is one that rollouts made."""
        assert self.bench.store.unfinished_rollouts() == ()
        guarded = {turn.stage for turn in self.bench.engine.turns.values() if turn.guard or turn.lock.locked()}
        for stage in stages:
            live, entry = self.bench.store.live(stage), self.bench.gateway.state.stage(stage)
            assert (entry.live, entry.candidate, entry.weight) == (live[0] if live else None, None, 0)
            made = [row for row in self.bench.store.rollouts(stage) if row.outcome == "live"]
            assert (live[0] if live else None) == (made[0].release if made else None)
            keys = {f"{stage}.{live[0]}"} if live else set()
            have = {key for key in release_keys(self.bench.gateway.state) if key.startswith(f"{stage}.")}
            assert have == keys or (stage in guarded and keys < have)

    @invariant()
    def each_live_release_serves(self) -> None:
        for entry in self.bench.gateway.state.stages:
            assert 0 <= entry.weight <= 10_000
            assert entry.candidate is not None or entry.weight == 0
            before = self.live.get(entry.stage)
            assert entry.live is not None or before is None, "a live stage became one that serves nothing"
            if entry.live is not None:
                self.live[entry.stage] = entry.live
                self._serves(entry.stage, entry.live)
            if entry.weight and entry.candidate is not None:
                self._serves(entry.stage, entry.candidate)

    def _serves(self, stage: str, release: int) -> None:
        row = self.bench.store.release(stage, release)
        assert row is not None, "the live release is not in the state file"
        pools = {pool.function: pool for pool in self.bench.store.pools(stage, release)}
        assert {function["name"] for function in row.document["functions"]} <= pools.keys()
        for pool in pools.values():
            assert pool.key in self.bench.workers.running
            assert self.bench.gateway.state.pool(pool.gateway_pool).servers
        assert f"{stage}.{release}" in release_keys(self.bench.gateway.state)

    @invariant()
    def history_is_never_rewritten(self) -> None:
        rows = {row.rollout: row for row in self.bench.store.rollouts()}
        for number, old in self.ended.items():
            now = rows[number]
            assert now == old or (old.outcome, now.outcome) == ("live", "rolled_back"), (old, now)
        self.ended |= {number: row for number, row in rows.items() if row.outcome is not None}
        last = self.bench.store.events(limit=1)
        assert (last[0].event if last else 0) >= self.events
        self.events = last[0].event if last else 0

    @invariant()
    def no_release_is_lost(self) -> None:
        for stage in ("dev", "prod"):
            known = {row.release for row in self.bench.store.releases(stage)}
            shipped = {row.release for row in self.bench.store.rollouts(stage)}
            assert sorted(shipped - known)[-20:] == [], (
                "kept: the newest 20, and those that rollouts of an hour shipped"
            )

    def teardown(self) -> None:
        self.fuse.left, self.fuse.burnt = 0, self.fuse.burnt or (self.bench.gateway.state, {})
        self.runner.close()
        self.bench.store.close()
        shutil.rmtree(self.folder)


@pytest.mark.parametrize(
    ("examples", "steps"), [(20, 25), pytest.param(3000, 60, marks=[pytest.mark.long, pytest.mark.timeout(7200)])]
)
def test_in_any_order_of_steps_and_crashes_each_stage_has_one_live_release(
    caplog: pytest.LogCaptureFixture, examples: int, steps: int
) -> None:
    caplog.set_level(logging.CRITICAL, "asyncio")  # it tells of each task of a dead daemon
    run_state_machine_as_test(
        EngineModel,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=examples < 100,
            suppress_health_check=list(HealthCheck), database=None,
        ),
    )  # fmt: skip
