"""Previews on a real state file, with fakes for workers and gateway: creation, removal, and daemons that die
between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from hitless.engine.acme import Acme
from hitless.engine.machine import Machine
from hitless.engine.previews import Previews, preview_document
from hitless.engine.recovery import recover
from hitless.errors import ConflictError, EngineError
from hitless.gateway.observe import BackendLoad
from hitless.gateway.state import SHARED, GatewayState
from hitless.release.who import NOBODY
from hitless.scaling.decide import ScaleInPace
from hitless.service.model import (
    AlarmSettings,
    Approval,
    Home,
    Hooks,
    Notify,
    NotifyBy,
    PreviewSettings,
    Sticky,
    StickyBy,
)
from hitless.store.previews import PreviewRecords
from tests.certificates import no_authority
from tests.component.engine_bench import Bench, until
from tests.fakes import release_document

pytestmark = pytest.mark.component

SETTINGS = PreviewSettings("dev", domain="preview.localhost", most=2, expires_h=1)
STAGE, HOST = "preview_fix", "fix.preview.localhost"


class PreviewBench(Bench):
    """An engine with previews; `again()` is a daemon that starts after the first has died."""

    def __init__(self, folder: Path, *, world: Bench | None = None, pools: int = 6, kept: int = 0) -> None:
        super().__init__(folder, world=world, pools=pools)
        if world is None:
            self.gateway.state = GatewayState.initial(["dev", "prod"], pools, shared=True)
            self.gateway.addresses[SHARED] = ("127.0.0.1", 8090)
        self.records = PreviewRecords(self.store)
        self.previews = Previews(self.engine, cast(Any, self.gateway), lambda _: SETTINGS, pools_kept=kept)

    def again(self) -> PreviewBench:
        self.store.close()
        successor = PreviewBench(self.folder, world=self)
        successor.engine.pools.living.update(cast(Any, self.workers.running))
        return successor

    async def begin(self) -> None:
        """Start as a daemon does."""
        await self.previews.restore()
        await recover(self.engine)

    async def ship(self, branch: str = "fix", **document: Any) -> dict[str, Any]:
        started = await self.previews.ship(branch, release_document(**document), who=NOBODY)
        return await self.end(started)

    async def gone(self, branch: str = "fix") -> None:
        await until(lambda: self.records.of_branch(branch) is None and not self.previews._ending)

    def stages(self) -> set[str]:
        return {stage.stage for stage in self.gateway.state.stages}


def tell(folder: Path, story: Callable[[PreviewBench], Coroutine[Any, Any, None]], **options: Any) -> PreviewBench:
    bench = PreviewBench(folder, **options)

    async def told() -> None:
        async with asyncio.timeout(20):
            await bench.begin()
            await story(bench)

    asyncio.run(told())
    return bench


def test_a_preview_gets_two_releases_and_is_removed_completely(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        before = bench.gateway.state
        assert (await bench.ship())["outcome"] == "live"
        assert bench.gateway.state.stage(STAGE).live == 1
        assert bench.previews.url("fix") == f"http://{HOST}:8090"
        assert (await bench.ship(digest="sha256:2"))["outcome"] == "live"
        assert [row.release for row in bench.store.pools(STAGE)] == [2]
        assert (await bench.ship(digest="sha256:2"))["outcome"] == "unchanged"
        (tmp_path / "logs" / STAGE / "r2").mkdir(parents=True)
        bench.diary.clear()
        assert bench.previews.close("fix", "its branch is gone")
        assert bench.previews.url("fix") is None
        await bench.gone()
        assert bench.diary == [
            f"{STAGE} is no stage any more",
            "drain p01",
            "p01 has 0 servers",
            f"stop {STAGE}-r2-api-2",
            "routes of nothing",
        ]
        assert bench.gateway.state == before
        assert bench.workers.running == {}
        assert STAGE not in bench.engine.turns
        for table in ("releases", "rollouts", "receipts", "stages", "pools", "previews"):
            assert bench.store.read(f"SELECT * FROM {table}") == []
        assert not (tmp_path / "logs" / STAGE).exists()
        assert bench.artifacts.pruned[-1] == set()
        assert not bench.previews.close("fix", "again")
        assert (await bench.ship())["release"] == 1

    tell(tmp_path, story)


def test_two_branches_with_the_same_label_have_different_hosts(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        await bench.ship("fix")
        await bench.ship("FIX")
        first, second = bench.records.all()
        assert (first.host, first.branch) == (HOST, "fix")
        assert second.host.startswith("fix-")
        bench.previews.close("fix", "gone")
        await bench.gone()
        assert [row.branch for row in bench.records.all()] == ["FIX"]

    tell(tmp_path, story)


def test_a_branch_beyond_the_maximum_is_refused_with_the_next_expiry(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        await bench.ship("one")
        await bench.ship("two")
        why = bench.previews.refusal("three", 1)
        assert why
        assert why.startswith(
            "2 previews are already running (max: 2); the next to expire is that of one, at 2026-11-24T07:00"
        )
        assert bench.previews.refusal("two", 1) is None
        bench.previews.close("one", "gone")
        assert bench.previews.refusal("three", 1) is None
        await bench.gone("one")

    tell(tmp_path, story)


def test_previews_leave_pools_for_the_other_stages(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        assert bench.previews.refusal("fix", 2) is None
        assert bench.previews.refusal("fix", 3) == (
            "the gateway has 6 free pools, 4 of them reserved for other stages, and the preview needs 3: "
            "delete a branch to make room"
        )
        await bench.deploy()
        assert bench.previews.refusal("fix", 2) is None, "one of those that are kept is in use now"
        await bench.ship()
        assert bench.previews.refusal("other", 1) is None
        assert bench.previews.refusal("other", 2) is not None

    tell(tmp_path, story, kept=4)


def test_a_preview_expires_unless_a_push_renews_it(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        await bench.ship("one")
        await bench.ship("two")
        bench.clock.elapsed_s += 1800
        await bench.ship("two", digest="sha256:2")
        bench.clock.elapsed_s += 1801
        bench.clock.runs.clear()
        watch = asyncio.create_task(bench.previews.watch())
        await bench.gone("one")
        watch.cancel()
        assert [row.branch for row in bench.records.all()] == ["two"]
        said = [event.sentence for event in bench.store.events()]
        assert "removing the preview of one: no push for 1 h" in said

    tell(tmp_path, story)


def test_a_branch_deleted_during_its_first_rollout_leaves_no_preview(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        before, bench.workers.hold = bench.gateway.state, asyncio.Event()
        started = await bench.previews.ship("fix", release_document(), who=NOBODY)
        await until(lambda: "start api r1" in bench.diary)
        bench.previews.close("fix", "its branch is gone")
        with pytest.raises(ConflictError, match="is being removed"):
            await bench.engine.deploy(STAGE, release_document(), strategy=None, force=False)
        assert (await bench.end(started))["outcome"] == "aborted"
        await bench.gone()
        assert bench.gateway.state == before
        assert bench.workers.running == {}

    tell(tmp_path, story)


def test_removing_a_preview_supersedes_its_waiting_release(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        bench.workers.hold = asyncio.Event()
        first = await bench.previews.ship("fix", release_document(), who=NOBODY)
        await until(lambda: "start api r1" in bench.diary)
        second = await bench.previews.ship("fix", release_document(digest="sha256:2"), who=NOBODY)
        bench.previews.close("fix", "its branch is gone")
        assert (await bench.end(first))["outcome"] == "superseded"
        assert (await bench.end(second))["outcome"] == "superseded"
        await bench.gone()
        assert "start api r2" not in bench.diary
        assert bench.workers.running == {}

    tell(tmp_path, story)


def test_a_push_during_a_removal_waits_and_makes_a_new_preview(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        await bench.ship()
        bench.previews.close("fix", "gone")
        assert (await bench.ship(digest="sha256:2"))["release"] == 1
        assert bench.gateway.state.stage(STAGE).live == 1

    tell(tmp_path, story)


def test_a_failed_removal_is_retried(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        await bench.ship()

        def away(_: GatewayState) -> None:
            raise EngineError("HAProxy is away")

        bench.gateway.on_apply = away
        bench.previews.close("fix", "gone")
        await until(lambda: not bench.previews._ending)
        assert bench.records.of_branch("fix")
        bench.gateway.on_apply = None
        watch = asyncio.create_task(bench.previews.watch())
        await bench.gone()
        watch.cancel()
        assert bench.workers.running == {}

    tell(tmp_path, story)


def test_a_preview_that_the_gateway_refuses_is_not_recorded(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        def away(_: GatewayState) -> None:
            raise EngineError("HAProxy is away")

        bench.gateway.on_apply = away
        with pytest.raises(EngineError):
            await bench.previews.ship("fix", release_document(), who=NOBODY)
        assert bench.records.all() == ()
        assert STAGE not in bench.engine.turns

    tell(tmp_path, story)


def test_a_second_daemon_keeps_the_previews(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        await bench.ship()

    async def later_story() -> None:
        await later.begin()
        assert later.gateway.state.stage(STAGE).live == 1
        assert (await later.ship(digest="sha256:2"))["release"] == 2

    later = tell(tmp_path, story).again()
    asyncio.run(later_story())


def test_previews_are_restored_in_a_new_gateway(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        await bench.ship()

    async def later_story() -> None:
        later.gateway.state = GatewayState.initial(["dev", "prod"], 6, shared=True)
        later.workers.running.clear()
        later.engine.pools.living.clear()
        await later.begin()
        assert later.gateway.state.stage(STAGE).live == 1
        assert later.gateway.state.stage(STAGE).host == HOST

    later = tell(tmp_path, story).again()
    asyncio.run(later_story())


@pytest.mark.parametrize("applied", range(6))
def test_a_removal_interrupted_by_the_daemons_death_is_finished_by_the_next(tmp_path: Path, applied: int) -> None:
    """The daemon dies after this many changes of the gateway."""

    async def story(bench: PreviewBench) -> None:
        await bench.ship()
        left = [applied]

        def count(_: GatewayState) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise asyncio.CancelledError

        if applied:
            bench.gateway.on_apply = count
        bench.previews.close("fix", "gone")
        if not applied:
            await bench.previews.stop()
        await until(lambda: not bench.previews._ending)

    async def later_story() -> None:
        later.gateway.on_apply = None
        await later.begin()
        watch = asyncio.create_task(later.previews.watch())
        await later.gone()
        watch.cancel()
        assert later.stages() == {"dev", "prod"}
        assert later.workers.running == {}
        assert later.gateway.state.free_pools() == tuple(pool.name for pool in later.gateway.state.pools)
        assert later.store.read("SELECT * FROM releases") == []

    later = tell(tmp_path, story).again()
    asyncio.run(later_story())


class LastWords(PreviewRecords):
    """The daemon dies before the record is deleted."""

    def forget(self, stage: str) -> None:
        raise asyncio.CancelledError


def test_the_record_of_a_removed_preview_is_deleted_last(tmp_path: Path) -> None:
    logs = tmp_path / "logs" / STAGE

    async def story(bench: PreviewBench) -> None:
        await bench.ship()
        (logs / "r1").mkdir(parents=True)
        bench.previews._records = LastWords(bench.store)
        bench.previews.close("fix", "gone")
        await until(lambda: not bench.previews._ending)
        assert bench.records.of_branch("fix")
        assert not logs.exists()

    async def later_story() -> None:
        await later.begin()
        watch = asyncio.create_task(later.previews.watch())
        await later.gone()
        watch.cancel()
        assert later.stages() == {"dev", "prod"}

    later = tell(tmp_path, story).again()
    asyncio.run(later_story())


def test_status_works_while_a_preview_is_removed(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        async def loads(pools: Collection[str]) -> dict[str, BackendLoad]:
            bench.previews.close("fix", "its branch is gone")
            await bench.gone()
            return {}

        async def isolation_missing() -> list[str]:
            return []

        await bench.ship()
        gateway = SimpleNamespace(
            addresses={},
            haproxy_pid=1,
            guardian_pid=2,
            spooler_pid=4,
            counts=bench.gateway.counts,
            loads=loads,
            state=bench.gateway.state,
        )
        machine = Machine(
            bench.engine,
            cast(Any, SimpleNamespace(root_pid=3, compiled=False, isolation_missing=isolation_missing)),
            cast(Any, gateway),
            clock=bench.clock,
            listen=dict,
            leave=lambda: None,
            acme=Acme(Path("/nowhere"), bench.clock, no_authority),
            pace=ScaleInPace(),
            previews=bench.previews,
        )
        assert (await machine.status()).previews == ()

    tell(tmp_path, story)


def test_an_engine_without_the_listener_removes_its_previews(tmp_path: Path) -> None:
    async def story(bench: PreviewBench) -> None:
        await bench.ship()

    async def later_story() -> None:
        later.gateway.state = GatewayState.initial(["dev", "prod"], 6)
        later.workers.running.clear()
        later.engine.pools.living.clear()
        await later.begin()
        assert later.previews.refusal("fix", 1)
        watch = asyncio.create_task(later.previews.watch())
        await later.gone()
        watch.cancel()
        assert later.store.read("SELECT * FROM releases") == []

    later = tell(tmp_path, story).again()
    asyncio.run(later_story())


def test_a_preview_has_few_workers_and_no_hooks_or_notifications(tmp_path: Path) -> None:
    document = release_document("api", strategy="Canary10Percent5Minutes", hooks=Hooks(pre_traffic="migrate"))
    settings = replace(
        document.settings,
        home=Home.AWS,
        approval=Approval.MANUAL,
        sticky=Sticky(StickyBy.ADDRESS),
        notify=(Notify(NotifyBy.SLACK, "https://hooks.example.org/secret"),),
        alarms=AlarmSettings(1, 20, guard_s=30),
    )
    (function,) = document.functions
    many = replace(function, workers=4, max_workers=9, provisioned_concurrency=4, environment=(("LEVEL", "info"),))
    made = preview_document(
        replace(document, settings=settings, functions=(many,), memory_mb=100_000), replace(SETTINGS, workers=3), "Fix"
    )
    (function,) = made.functions
    assert (function.workers, function.max_workers, function.provisioned_concurrency) == (3, None, 0)
    assert function.environment == (("LEVEL", "info"), ("HITLESS_PREVIEW", "Fix"))
    assert (made.settings.name, made.settings.home, made.settings.approval) == ("dev", Home.ENGINE, Approval.NONE)
    assert (str(made.settings.strategy), made.settings.alarms.guard_s) == ("AllAtOnce", 0)
    assert (made.settings.hooks, made.settings.sticky, made.settings.notify) == (Hooks(), None, ())
    assert made.memory_mb is None
