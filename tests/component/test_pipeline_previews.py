"""Pushes and deletions of branches with previews, over real git."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from hitless.engine.previews import Previews
from hitless.gateway.state import SHARED, GatewayState
from hitless.pipeline.orders import NOTHING, RefUpdate
from hitless.service.model import Approval, PreviewSettings
from tests.component.pipeline_bench import STAGES, PipelineBench, stage_settings, tell_story, until

pytestmark = pytest.mark.component

SETTINGS = PreviewSettings("dev", domain="preview.localhost", most=1)


def with_previews(bench: PipelineBench, settings: PreviewSettings = SETTINGS) -> None:
    bench.gateway.state = GatewayState.initial(STAGES, 9, shared=True)
    bench.gateway.addresses[SHARED] = ("127.0.0.1", 8090)
    previews = Previews(bench.engine, cast(Any, bench.gateway), lambda _: settings)
    bench.replace_parts(previews=previews)


def on_request(bench: PipelineBench) -> None:
    with_previews(bench, replace(SETTINGS, automatic=False))


def previews_of(bench: PipelineBench) -> Previews:
    assert bench.pipeline.parts.previews is not None
    return bench.pipeline.parts.previews


async def on_a_branch(bench: PipelineBench, branch: str, code: str) -> None:
    bench.git("switch", "-q", "-C", branch)
    bench.commit(code)


async def delete(bench: PipelineBench, branch: str) -> list[object]:
    old = await bench.repository.head_of(branch)
    assert old
    await bench.repository.move(branch, None, old)
    return list(await bench.pipeline.push([RefUpdate(old, NOTHING, f"refs/heads/{branch}")], {}, "ada"))


def test_a_push_previews_the_branch_with_the_stages_configuration(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await on_a_branch(bench, "Feature", "1")
        run = await bench.end_of(await bench.push("Feature"))
        assert (run["state"], run["stage"], run["preview"]) == (
            "succeeded",
            None,
            "http://feature.preview.localhost:8090",
        )
        assert run["states"] == {"source": "succeeded", "test": "succeeded", "preview": "succeeded"}
        assert "preview at http://feature.preview.localhost:8090/\n" in bench.log(run["run"])
        assert "build for dev" in bench.diary
        assert all(bench.engine.store.live(stage) is None for stage in STAGES)
        bench.commit("2")
        assert (await bench.end_of(await bench.push("Feature")))["state"] == "succeeded"
        live = bench.store.live("preview_feature")
        assert live
        assert live[0] == 2

    tell_story(tmp_path, story, prepare=with_previews)


def test_a_preview_does_not_change_the_pipelines_stages(tmp_path: Path) -> None:
    """The branch's list could take the guard from prod, or let the branch feed prod."""

    async def story(bench: PipelineBench) -> None:
        definition = bench.pipeline.parts.workshop.definition
        definition.write_text(definition.read_text() + " ")
        before = definition.read_text()
        await on_a_branch(bench, "feature", "1")
        await bench.end_of(await bench.push("feature"))
        assert definition.read_text() == before

    tell_story(tmp_path, story, prepare=with_previews)


def test_a_branch_of_another_service_gets_no_preview(tmp_path: Path) -> None:
    """It would get that service's user and share."""

    async def story(bench: PipelineBench) -> None:
        bench.packaging.service = "billing"
        await on_a_branch(bench, "feature", "1")
        run = await bench.end_of(await bench.push("feature"))
        assert (run["state"], run["states"]["preview"]) == ("failed", "failed")
        assert "this commit is of service billing, not shop" in run["reason"]
        assert previews_of(bench).rows() == ()

    tell_story(tmp_path, story, prepare=with_previews)


def test_a_branch_beyond_the_limit_of_previews_is_tested_and_the_push_shows_why(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        for branch in ("one", "two"):
            await on_a_branch(bench, branch, branch)
            run = await bench.end_of(await bench.push(branch))
            assert run["state"] == "succeeded"
        assert run["states"]["preview"] == "skipped"
        assert run["preview"] is None
        assert "skipped: 1 previews are already running (max: 1); the next to expire is that of one" in bench.log(
            run["run"]
        )
        assert bench.diary.count("build for dev") == 1, "nothing was built for naught"

    tell_story(tmp_path, story, prepare=with_previews)


def test_a_push_option_can_request_or_refuse_a_preview(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await on_a_branch(bench, "feature", "1")
        run = await bench.end_of(await bench.push("feature"))
        assert "preview" not in run["states"]
        bench.commit("2")
        run = await bench.end_of(await bench.push("feature", options={"preview": ""}))
        assert run["states"]["preview"] == "succeeded"
        bench.commit("3")
        run = await bench.end_of(await bench.push("feature", options={"no-preview": ""}))
        assert "preview" not in run["states"]
        await until(lambda: previews_of(bench).rows() == ())
        assert bench.workers.running == {}

    tell_story(tmp_path, story, prepare=on_request)


def test_a_preview_never_gets_the_configuration_of_a_stage_with_manual_approval(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.packaging.settings["dev"] = stage_settings("dev", approval=Approval.MANUAL)
        bench.commit("1")
        run = await bench.end_of(await bench.push())
        bench.pipeline.approve(run["run"], by="bo", why=None)
        assert (await bench.end_of(run["run"]))["state"] == "succeeded"
        await on_a_branch(bench, "feature", "2")
        run = await bench.end_of(await bench.push("feature"))
        assert (run["states"]["preview"], run["state"]) == ("skipped", "succeeded")
        assert "skipped: a person approves what ships to dev" in bench.log(run["run"])

    tell_story(tmp_path, story, prepare=with_previews)


def test_a_preview_option_in_a_service_without_previews_gets_a_message(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await on_a_branch(bench, "feature", "1")
        old, new = NOTHING, bench.git("rev-parse", "feature")
        bench.git("push", "-q", str(bench.repository.folder), "feature")
        started = await bench.pipeline.push([RefUpdate(old, new, "refs/heads/feature")], {"preview": ""}, "ada")
        assert "no preview: serverless.yml had no custom.hitless.previews when the engine was started" in started

    tell_story(tmp_path, story)


def test_a_stages_branch_gets_no_preview(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        run = await bench.end_of(await bench.push("dev", options={"preview": ""}))
        assert "preview" not in run["states"]
        assert previews_of(bench).rows() == ()

    tell_story(tmp_path, story, prepare=with_previews)


def test_deleting_a_branch_removes_its_preview(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await on_a_branch(bench, "feature", "1")
        await bench.end_of(await bench.push("feature"))
        assert await delete(bench, "feature") == ["the branch feature was deleted, and its preview is removed"]
        await until(lambda: previews_of(bench).rows() == () and not bench.workers.running)

    tell_story(tmp_path, story, prepare=with_previews)


@pytest.mark.parametrize("while_it", ["tests", "builds", "starts"])
def test_a_branch_deleted_during_its_pipeline_run_leaves_no_preview(tmp_path: Path, while_it: str) -> None:
    async def story(bench: PipelineBench) -> None:
        hold = asyncio.Event()
        parts: dict[str, Any] = {"tests": bench.builds, "builds": bench.packaging, "starts": bench.workers}
        parts[while_it].hold = hold
        await on_a_branch(bench, "feature", "1")
        run = await bench.push("feature")
        sign = {"tests": f"test run {run}", "builds": "build for dev", "starts": "start api r1"}[while_it]
        await until(lambda: sign in bench.diary)
        await delete(bench, "feature")
        hold.set()
        ended = await bench.end_of(run)
        assert ended["states"]["test"] == "succeeded"
        assert ended["preview"] is None
        await until(lambda: previews_of(bench).rows() == () and not bench.workers.running)

    tell_story(tmp_path, story, prepare=with_previews)


def test_a_first_release_that_cannot_start_fails_its_run_and_leaves_no_preview(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.workers.fails["api"] = "it raised ImportError"
        await on_a_branch(bench, "feature", "1")
        run = await bench.end_of(await bench.push("feature"))
        assert (run["state"], run["exit_code"]) == ("failed", 3)
        assert run["reason"] == "preview: release 1 was rolled back: it raised ImportError"
        await until(lambda: previews_of(bench).rows() == ())
        bench.workers.fails.clear()
        bench.commit("2")
        assert (await bench.end_of(await bench.push("feature")))["state"] == "succeeded"
        bench.workers.fails["api"] = "it raised ImportError"
        bench.commit("3")
        assert (await bench.end_of(await bench.push("feature")))["state"] == "failed"
        live = bench.store.live("preview_feature")
        assert live, "what had come up stays"

    tell_story(tmp_path, story, prepare=with_previews)


def test_a_retry_does_not_preview_an_older_commit(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await on_a_branch(bench, "feature", "1")
        commit = bench.git("rev-parse", "HEAD")
        bench.builds.failing.add(commit)
        first = await bench.end_of(await bench.push("feature"))
        bench.commit("2")
        await bench.end_of(await bench.push("feature"))
        bench.builds.failing.clear()
        bench.pipeline.retry(first["run"])
        again = await bench.end_of(first["run"])
        assert again["states"]["preview"] == "skipped"
        live = bench.store.live("preview_feature")
        assert live
        assert live[0] == 1

    tell_story(tmp_path, story, prepare=with_previews)
