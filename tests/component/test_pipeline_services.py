"""The pipelines of two services on one engine, over real git and state, with fakes for workers and gateway."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from msgspec import structs
from starlette.applications import Starlette

from hitless.api.pipeline import PipelineApi
from hitless.engine.acme import Acme
from hitless.engine.previews import Previews
from hitless.engine.recovery import recover
from hitless.engine.sites import Sites
from hitless.errors import ConflictError, UsageError
from hitless.gateway.state import SHARED, GatewayState
from hitless.pipeline.definition import Definition
from hitless.pipeline.orders import NOTHING, Promotion, RefUpdate
from hitless.pipeline.pipeline import Pipeline
from hitless.pipeline.pipelines import Pipelines
from hitless.pipeline.repository import Repository
from hitless.service.model import PreviewSettings, TlsSettings
from hitless.store.runs import PushRecords, RunRecords, RunRow
from tests.certificates import no_authority
from tests.component.pipeline_bench import DEFINITION, PipelineBench, until
from tests.component.test_engine_sites import FakeShares

pytestmark = pytest.mark.component


class ServiceBench(PipelineBench):
    """One service on the engine of `world`, with a repository and a clone of its own."""

    def __init__(self, folder: Path, service: str, *, engine: PipelineBench, fresh: bool = True) -> None:
        super().__init__(folder / service, world=engine)
        self.store.close()
        self.store, self.engine, self.service = engine.store, engine.engine, service
        self.packaging.service = service
        self.packaging.settings = {
            name: structs.replace(one, domain=f"{name}.{service}.example.org")
            for name, one in self.packaging.settings.items()
        }
        workshop = replace(engine.pipeline.parts.workshop, service=service)
        self.repository = Repository(workshop.repository)
        self.records = RunRecords(self.store, service)
        self.replace_parts(
            engine=self.engine,
            workshop=workshop,
            repository=self.repository,
            records=self.records,
            pushes=PushRecords(self.store, service),
            urls=lambda: dict.fromkeys(self.engine.stages, "http://127.0.0.1:1"),
        )
        if fresh:
            workshop.create()
            self.repository.create(["true"], head="dev")
            for hook in (self.repository.folder / "hooks").iterdir():
                hook.unlink()
            replace(DEFINITION, service=service, stages=tuple(self.packaging.settings.values())).write(
                workshop.definition
            )
            subprocess.run(["git", "init", "-q", "-b", "dev", str(self.clone)], check=True)


class SharedBench:
    """An engine that the services `shop` and `users` share; `again()` is a daemon that starts after this one died."""

    def __init__(self, folder: Path, *, world: SharedBench | None = None) -> None:
        for name in ("shop", "users"):
            (folder / name).mkdir(exist_ok=True)
        self.folder = folder
        self.common: PipelineBench = PipelineBench(folder, world=world.common if world else None)
        self.engine = self.common.engine
        self.engine.stages, self.engine.turns = (), {}
        if world is None:
            self.common.gateway.state = GatewayState.initial((), 12, shared=True)
            self.common.gateway.addresses |= {SHARED: ("127.0.0.1", 80)}
        self.sites = Sites(
            self.engine,
            cast(Any, self.common.gateway),
            cast(Any, FakeShares()),
            Acme(folder / "acme", self.common.clock, no_authority),
        )
        self.previews = Previews(self.engine, cast(Any, self.common.gateway), self.previews_in, sites=self.sites)
        self.shop, self.users = (
            ServiceBench(folder, name, engine=self.common, fresh=world is None) for name in ("shop", "users")
        )
        for one in (self.shop, self.users):
            one.replace_parts(previews=self.previews.of(one.service))
        self.pipelines = Pipelines(
            self.engine, self.common.pipeline.parts.workshop, self.made, shared=True, close=self.common._close
        )

    def previews_in(self, service: str) -> PreviewSettings | None:
        """The settings of previews that `hitless pipeline url` read in the service's folder."""
        workshop = self.common.pipeline.parts.workshop
        found = Definition.read(replace(workshop, service=service).definition)
        return found.previews if found else None

    def made(self, service: str) -> Pipeline:
        return {"shop": self.shop, "users": self.users}[service].pipeline

    def again(self) -> SharedBench:
        self.common.store.close()
        successor = SharedBench(self.folder, world=self)
        successor.engine.pools.living.update(cast(Any, self.common.workers.running))
        return successor

    async def start(self) -> None:
        await self.previews.restore()
        await self.sites.restore()
        await recover(self.engine)
        await self.pipelines.start()

    async def ask(self, method: str, path: str, **query: Any) -> Any:
        """The response of the daemon's API."""
        transport = httpx.ASGITransport(Starlette(routes=PipelineApi(self.pipelines).routes()))
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            response = await client.request(method, path, params=query)
            return response.json()


def tell(bench: SharedBench, story: Callable[[SharedBench], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        async with asyncio.timeout(60):
            await bench.start()
            try:
                await story(bench)
            finally:
                await bench.pipelines.stop()
                await bench.engine.wait_until_idle()

    asyncio.run(told())


async def pushed(bench: PipelineBench, code: str, branch: str = "dev") -> dict[str, Any]:
    """The run of a commit, when it has ended or waits."""
    bench.commit(code)
    return await bench.end_of(await bench.push("dev", to=branch))


def test_services_with_stages_of_one_name_have_runs_and_repositories_of_their_own(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        shop, users = await asyncio.gather(pushed(bench.shop, "1"), pushed(bench.users, "2"))
        assert [(one["stage"], one["service"], one["state"], one["release"]) for one in (shop, users)] == [
            ("shop_dev", "shop", "succeeded", 1),
            ("users_dev", "users", "succeeded", 1),
        ]
        assert (await pushed(bench.users, "3"))["release"] == 2
        assert bench.engine.live_release("shop_dev").number == 1  # type: ignore[union-attr]
        assert {order.stage for order in bench.users.builds.orders} == {"dev"}, "STAGE is the file's name, as on AWS"
        assert {(one.stage, one.at_engine) for one in bench.users.packaging.orders} == {("dev", "users_dev")}, "secrets"
        assert await bench.shop.repository.head_of("dev") == shop["commit"]
        tested = await pushed(bench.users, "4", "feature")
        listed = await bench.ask("GET", "/pipeline/runs", service="users")
        assert [one["run"] for one in listed] == [tested["run"], tested["run"] - 1, users["run"]]
        assert len(await bench.ask("GET", "/pipeline/runs")) == 4
        assert (await bench.ask("GET", f"/pipeline/runs/{shop['run']}"))["service"] == "shop"
        said = [event.sentence for event in bench.common.store.events(limit=50)]
        assert f"run {tested['run']} of feature (users) succeeded" in said

    tell(SharedBench(tmp_path), story)


def test_a_promotion_stays_within_its_service_and_adds_the_stage_to_the_engine(tmp_path: Path) -> None:
    async def promoted(bench: ServiceBench, source: str, target: str) -> RunRow:
        return await bench.pipeline.promote(Promotion(source, target), actor="ada")

    async def story(bench: SharedBench) -> None:
        with pytest.raises(ConflictError, match="users_dev has no live release to promote"):
            await promoted(bench.users, "dev", "staging")
        commit = (await pushed(bench.users, "1"))["commit"]
        with pytest.raises(UsageError, match="users has no stage nowhere"):
            await promoted(bench.users, "dev", "users_nowhere")
        run = await bench.users.end_of((await promoted(bench.users, "dev", "staging")).run)
        assert (run["stage"], run["state"], bench.engine.stages) == (
            "users_staging",
            "succeeded",
            ("users_dev", "users_staging"),
        )
        assert await bench.users.repository.head_of("staging") == commit
        waiting = await bench.users.end_of((await promoted(bench.users, "users_staging", "users_prod")).run)
        assert waiting["state"] == "waiting_for_approval"
        bench.users.pipeline.approve(waiting["run"], by="bo", why=None)
        assert (await bench.users.end_of(waiting["run"]))["state"] == "succeeded"
        assert bench.engine.live_release("users_prod").document.commit == commit  # type: ignore[union-attr]

    tell(SharedBench(tmp_path), story)


def test_a_commit_that_passed_or_was_live_in_one_service_has_not_in_the_other(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        commit = (await pushed(bench.shop, "1"))["commit"]
        assert bench.shop.records.has_passed(commit)
        assert not bench.users.records.has_passed(commit)
        bench.users.git("pull", "-q", str(bench.shop.clone), "dev")
        (refused,) = await bench.users.push("dev", to="prod")
        assert f"{commit[:12]} was never live in staging" in refused

    tell(SharedBench(tmp_path), story)


def test_a_queued_run_says_which_run_it_waits_for_and_no_run_of_another_service(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        bench.shop.builds.hold = asyncio.Event()
        bench.shop.commit("1")
        first = await bench.shop.push()
        await until(lambda: bool(bench.shop.builds.orders))
        bench.shop.commit("2")
        second = await bench.shop.push()
        document = await bench.ask("GET", f"/pipeline/runs/{second}")
        assert (document["state"], document["reason"]) == ("queued", f"waits for the end of run {first}")
        assert f"waits for the end of run {first}" in bench.shop.log(second)
        assert (await pushed(bench.users, "3"))["state"] == "succeeded", "while the run of shop is in its tests"
        bench.shop.builds.hold.set()
        ended = await bench.shop.end_of(second)
        assert (ended["state"], ended["reason"]) == ("succeeded", None)

    tell(SharedBench(tmp_path), story)


def test_a_removed_service_takes_its_runs_and_repository_along_and_nothing_else(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        shop, users = await pushed(bench.shop, "1"), await pushed(bench.users, "2")
        parameters = bench.users.pipeline.parts.workshop.parameters
        parameters.write_text("parameter-store: {}")
        bench.users.builds.hold = asyncio.Event()
        bench.users.commit("3")
        open_run = await bench.users.push()
        await until(lambda: len(bench.users.builds.orders) == 2)
        await bench.ask("DELETE", "/pipeline", service="users")
        await bench.sites.leave("users_dev")
        assert [run.run for run in bench.pipelines.records.runs()] == [shop["run"]]
        runs = bench.common.pipeline.parts.workshop.of_run(shop["run"]).parent
        assert [one.name for one in runs.iterdir()] == [str(shop["run"])]
        assert list(parameters.parent.iterdir()) == [parameters]
        said = [event.sentence for event in bench.common.store.events(limit=50)]
        assert f"run {open_run} of dev (users) interrupted (the service was removed)" in said
        parameters.unlink()
        parameters.parent.rmdir()
        for service in ("users", "../shop"):
            with pytest.raises(UsageError, match="this engine has no service"):
                await bench.pipelines.of(service)
        with pytest.raises(UsageError, match="several services share this engine"):
            await bench.pipelines.of_stage("dev")
        for path, query in ((f"/pipeline/runs/{users['run']}", {}), ("/pipeline/runs", {"service": "users"})):
            with pytest.raises(UsageError, match=r"there is no run|this engine has no service users"):
                await bench.ask("GET", path, **query)
        assert (await pushed(bench.shop, "4"))["release"] == 2

    tell(SharedBench(tmp_path), story)


def test_no_service_waits_for_the_removal_of_another(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        await asyncio.gather(pushed(bench.shop, "1"), pushed(bench.users, "2"))
        removing = asyncio.create_task(bench.pipelines.remove("users"))
        await until(lambda: bench.pipelines._locks["users"].locked())
        assert await bench.pipelines.of("shop") is bench.shop.pipeline
        assert not removing.done()
        await removing

    tell(SharedBench(tmp_path), story)


def test_runs_of_both_services_resume_after_the_daemon_died(tmp_path: Path) -> None:
    bench = SharedBench(tmp_path)
    runs: list[int] = []

    async def dies() -> None:
        await bench.start()
        for one in (bench.shop, bench.users):
            one.builds.hold = asyncio.Event()
            one.commit(one.service)
            runs.append(await one.push())
        await until(lambda: all(one.builds.orders for one in (bench.shop, bench.users)))

    asyncio.run(dies())

    async def story(bench: SharedBench) -> None:
        ended = [await one.end_of(run) for one, run in zip((bench.shop, bench.users), runs, strict=True)]
        assert [run["state"] for run in ended] == ["succeeded"] * 2
        assert set(bench.engine.stages) == {"shop_dev", "users_dev"}
        assert bench.common.diary.count("test run 1") == 2, "each run was resumed once"

    tell(bench.again(), story)


def with_previews(bench: ServiceBench) -> None:
    """`hitless pipeline url` in the service's folder with `previews: {}`."""
    file = bench.pipeline.parts.workshop.definition
    found = Definition.read(file)
    assert found
    replace(found, previews=PreviewSettings("dev")).write(file)


async def shown(bench: ServiceBench, branch: str, code: str, **options: str) -> dict[str, Any]:
    """The run of a branch that feeds no stage, when it has ended."""
    bench.git("switch", "-q", "-C", branch)
    bench.commit(code)
    return await bench.end_of(await bench.push(branch, options=options))


def test_a_push_previews_the_branch_of_its_service_until_the_branch_is_deleted(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        for one in (bench.shop, bench.users):
            with_previews(one)
        runs = [await shown(one, "fix", one.service) for one in (bench.shop, bench.users)]
        urls = [f"http://fix.preview.dev.{one}.example.org" for one in ("shop", "users")]
        assert [(run["state"], run["preview"], run["service"]) for run in runs] == [
            ("succeeded", urls[0], "shop"),
            ("succeeded", urls[1], "users"),
        ]
        assert f"preview at {urls[1]}/\n" in bench.users.log(runs[1]["run"])
        assert {one.at_engine for one in bench.users.packaging.orders} == {"users_dev"}, "whose secrets it has"
        old = await bench.shop.repository.head_of("fix") or ""
        await bench.shop.repository.move("fix", None, old)
        said = await bench.shop.pipeline.push([RefUpdate(old, NOTHING, "refs/heads/fix")], {}, "ada")
        assert said == ["the branch fix was deleted, and its preview is removed"]
        await until(lambda: [row.stage for row in bench.previews.rows()] == ["users_preview_fix"])
        await bench.ask("DELETE", "/pipeline", service="users")
        assert (bench.previews.rows(), bench.common.gateway.state.stages) == ((), ())

    tell(SharedBench(tmp_path), story)


def test_a_service_without_previews_says_what_to_do(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        bench.shop.git("switch", "-q", "-C", "fix")
        commit = bench.shop.commit("1")
        bench.shop.git("push", "-q", str(bench.shop.repository.folder), "fix")
        update = RefUpdate(NOTHING, commit, "refs/heads/fix")
        started = await bench.shop.pipeline.push([update], {"preview": ""}, "ada")
        assert (
            "no preview: serverless.yml had no custom.hitless.previews when `hitless pipeline url` read it" in started
        )

    tell(SharedBench(tmp_path), story)


def test_the_branchs_own_file_chooses_neither_host_nor_certificate_of_its_preview(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        with_previews(bench.shop)
        dev = structs.replace(
            bench.shop.packaging.settings["dev"], domain="users.example.org", tls=TlsSettings("/key", "/key")
        )
        bench.shop.packaging.settings["dev"] = dev
        run = await shown(bench.shop, "fix", "1")
        assert (run["state"], run["preview"]) == ("succeeded", "http://fix.preview.dev.shop.example.org")
        assert bench.sites.listeners == ()

    tell(SharedBench(tmp_path), story)


def test_a_run_says_that_its_preview_has_no_certificate(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        with_previews(bench.shop)
        file = bench.shop.pipeline.parts.workshop.definition
        found = Definition.read(file)
        assert found
        dev = structs.replace(found.stages[0], tls=TlsSettings("/no/chain.pem", "/no/key.pem"))
        replace(found, stages=(dev, *found.stages[1:])).write(file)
        run = await shown(bench.shop, "fix", "1")
        assert run["state"] == "succeeded"
        note = "no certificate, so it is served by HTTP: /no/chain.pem cannot be read: No such file or directory"
        assert f"\nnote: {note}" in bench.shop.log(run["run"])
        assert run["steps"][-1]["detail"]["note"].startswith(note)

    tell(SharedBench(tmp_path), story)
