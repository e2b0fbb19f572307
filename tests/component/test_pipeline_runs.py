"""Runs of the pipeline: real git and state file, fakes for builds, rehearsals and the gateway."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from hitless.errors import ConflictError, UsageError
from hitless.pipeline.orders import NOTHING, RefUpdate, read_options
from hitless.rollout.rollout import Rollout
from hitless.service.model import RehearsalSettings
from tests.component.pipeline_bench import PipelineBench, promote, shipped_to_staging, stage_settings, tell_story, until

pytestmark = pytest.mark.component


def test_a_push_of_a_stages_branch_goes_live_step_by_step(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        commit = bench.commit("1")
        run = await bench.end_of(await bench.push())
        assert (run["state"], run["release"], run["commit"]) == ("succeeded", 1, commit)
        assert run["states"] == {
            "source": "succeeded",
            "test": "succeeded",
            "build": "succeeded",
            "rehearse": "skipped",
            "approve": "skipped",
            "deploy": "succeeded",
            "verify": "succeeded",
        }
        done = [line for line in bench.diary if line.startswith(("test", "build", "start"))]
        assert done == ["test run 1", "build for dev", "start api r1"]
        assert bench.told == [("succeeded", 1)]
        release = bench.engine.release("dev", 1)
        assert (release.document.commit, release.document.message) == (commit, "code 1")

    tell_story(tmp_path, story)


def test_steps_that_a_stage_does_not_list_are_skipped(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.packaging.settings["dev"] = stage_settings("dev", test=False, verify=False)
        bench.commit("1")
        first = await bench.end_of(await bench.push())
        assert first["states"]["test"] == "succeeded", "nobody knew it before its build"
        bench.commit("2")
        run = await bench.end_of(await bench.push())
        assert (run["state"], run["release"]) == ("succeeded", 2)
        assert {name for name, state in run["states"].items() if state == "skipped"} == {
            "test",
            "rehearse",
            "approve",
            "verify",
        }

    tell_story(tmp_path, story)


def test_a_commit_that_restores_the_test_step_is_tested(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.packaging.settings["dev"] = stage_settings("dev", test=False)
        bench.commit("1")
        await bench.end_of(await bench.push())
        bench.packaging.settings["dev"] = stage_settings("dev")
        bench.builds.failing = {bench.commit("2")}
        run = await bench.end_of(await bench.push())
        assert (run["state"], run["release"]) == ("failed", None)
        assert run["reason"] == "build: buildspec-test.yml: phase build failed"
        bench.commit("3")
        run = await bench.end_of(await bench.push())
        assert (run["states"]["test"], run["state"]) == ("succeeded", "succeeded")
        assert bench.diary.count("test run 3") == 1

    tell_story(tmp_path, story)


def test_a_merge_without_changes_succeeds_and_ships_nothing(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        await bench.end_of(await bench.push())
        bench.commit("1")
        run = await bench.end_of(await bench.push())
        assert (run["state"], run["release"]) == ("succeeded", 1)

    tell_story(tmp_path, story)


@pytest.mark.parametrize("shipped_by_hand", [None, "0" * 40 + "-dirty"])
def test_a_release_without_a_commit_is_shipped_again_with_one(tmp_path: Path, shipped_by_hand: str | None) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        await bench.end_of(await bench.push())
        live = bench.engine.live_release("dev")
        assert live
        by_hand = replace(live.document, commit=shipped_by_hand)
        started = await bench.engine.deploy("dev", by_hand, strategy=None, force=True, verb="deploy")
        assert isinstance(started, Rollout)
        await until(lambda: started.result is not None)
        commit = bench.commit("1")
        run = await bench.end_of(await bench.push())
        assert (run["state"], run["release"]) == ("succeeded", 3)
        live = bench.engine.live_release("dev")
        assert live
        assert live.document.commit == commit
        promoted = await bench.end_of((await promote(bench, "dev", "staging")).run)
        assert promoted["commit"] == commit

    tell_story(tmp_path, story)


def test_a_newer_push_supersedes_queued_ones(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.builds.hold = asyncio.Event()
        runs = []
        for code in ("1", "2", "3"):
            bench.commit(code)
            runs.append(await bench.push())
            await until(lambda: "test run 1" in bench.diary)
        assert [row.state for row in bench.records.runs()] == ["queued", "superseded", "running"]
        bench.builds.hold.set()
        assert (await bench.end_of(runs[2]))["release"] == 2
        second = await bench.end_of(runs[1])
        assert (second["reason"], second["exit_code"]) == ("run 3 came after it", 4)
        assert (await bench.end_of(runs[0]))["state"] == "succeeded"

    tell_story(tmp_path, story)


def test_a_push_during_a_rollout_waits_for_its_end(tmp_path: Path) -> None:
    """The engine alone would let the newer rollout supersede the one in progress."""

    async def story(bench: PipelineBench) -> None:
        bench.workers.hold = asyncio.Event()
        bench.commit("1")
        first = await bench.push()
        await until(lambda: "start api r1" in bench.diary)
        bench.commit("2")
        second = await bench.push()
        await bench.pipeline.parts.repository.head_of("dev")
        assert [row.state for row in bench.records.runs()] == ["queued", "running"]
        bench.workers.hold.set()
        ended = [await bench.end_of(run) for run in (first, second)]
        assert [(run["state"], run["release"]) for run in ended] == [("succeeded", 1), ("succeeded", 2)]

    tell_story(tmp_path, story)


def test_a_branch_without_a_stage_is_only_tested(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.builds.failing = {bench.commit("1")}
        run = await bench.end_of(await bench.push("dev", to="feature"))
        assert (run["stage"], run["state"]) == (None, "failed")
        assert run["reason"] == "test: buildspec-test.yml: phase build failed"
        bench.commit("2")
        run = await bench.end_of(await bench.push("dev", to="feature"))
        assert (run["state"], list(run["states"])) == ("succeeded", ["source", "test"])
        assert bench.engine.live_release("dev") is None

    tell_story(tmp_path, story)


def test_tags_and_deleted_branches_start_no_run(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        commit = bench.commit("1")
        started = await bench.pipeline.push(
            [RefUpdate(NOTHING, commit, "refs/tags/v1"), RefUpdate(commit, NOTHING, "refs/heads/feature")], {}, "ada"
        )
        assert started == ["refs/tags/v1 starts no run: only branches do", "the branch feature was deleted"]
        refused = await bench.pipeline.check([RefUpdate(commit, NOTHING, "refs/heads/dev")], {}, "ada")
        assert refused == ["dev feeds the stage dev and cannot be deleted"]

    tell_story(tmp_path, story)


def test_a_force_push_is_shipped_and_recorded_as_forced(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        await bench.end_of(await bench.push())
        bench.git("commit", "-q", "--amend", "--allow-empty", "-m", "other")
        (bench.clone / "code").write_text("2")
        bench.git("commit", "-q", "--amend", "--all", "-m", "amended")
        number = await bench.push()
        run = await bench.end_of(number)
        assert (run["state"], run["release"], run["message"]) == ("succeeded", 2, "amended")
        assert bench.pipeline.row(number).options == {"forced": True}

    tell_story(tmp_path, story)


def test_a_promotion_ships_the_same_bytes_and_moves_the_branch(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        commit = await shipped_to_staging(bench)
        assert bench.diary.count("build for dev") == 1
        assert "reuse for staging" in bench.diary
        assert "build for staging" not in bench.diary
        dev, staging = (bench.engine.live_release(stage) for stage in ("dev", "staging"))
        assert dev
        assert staging
        assert dev.document.artifacts == staging.document.artifacts
        assert await bench.repository.head_of("staging") == commit

    tell_story(tmp_path, story)


def test_a_promotion_does_not_move_a_branch_with_its_own_commits(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        await bench.end_of(await bench.push())
        bench.git("switch", "-q", "-c", "staging")
        own = bench.commit("own")
        await bench.end_of(await bench.push("staging"))
        bench.git("switch", "-q", "dev")
        bench.commit("2")
        await bench.end_of(await bench.push())
        run = (await promote(bench, "dev", "staging")).run
        assert (await bench.end_of(run))["state"] == "succeeded"
        assert await bench.repository.head_of("staging") == own
        assert "has commits of its own" in bench.log(run)

    tell_story(tmp_path, story)


def test_prod_accepts_only_commits_live_in_staging_or_a_recorded_override(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await shipped_to_staging(bench)
        bench.git("switch", "-q", "-c", "prod")
        bench.commit("hotfix")
        (refusal,) = await bench.push("prod")
        assert "was never live in staging" in refusal
        assert await bench.repository.head_of("prod") is None
        run = await bench.end_of(await bench.push("prod", options={"override": "the site is down"}))
        assert (run["state"], run["overridden"]) == ("waiting_for_approval", "the site is down")
        bench.pipeline.approve(run["run"], by="bo", why=None)
        await bench.end_of(run["run"])
        live = bench.engine.live_release("prod")
        assert live
        assert "override: the site is down" in str(live.document.message)

    tell_story(tmp_path, story)


def test_a_commit_that_was_live_in_staging_ships_to_prod_without_a_build(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await shipped_to_staging(bench)
        run = await bench.end_of(await bench.push("dev", to="prod"))
        assert (run["state"], run["states"]["build"]) == ("waiting_for_approval", "succeeded")
        assert "build for prod" not in bench.diary

    tell_story(tmp_path, story)


def test_an_approval_is_recorded_with_name_and_reason_and_the_run_ships(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await shipped_to_staging(bench)
        number = (await promote(bench, "staging", "prod")).run
        run = await bench.end_of(number)
        assert run["states"]["approve"] == "waiting"
        assert bench.engine.live_release("prod") is None
        bench.pipeline.approve(number, by="bo@desk", why="seen")
        run = await bench.end_of(number)
        assert run["state"] == "succeeded"
        assert (run["approval"]["decision"], run["approval"]["by"], run["approval"]["why"]) == (
            "approved",
            "bo@desk",
            "seen",
        )
        with pytest.raises(ConflictError, match="is not waiting for approval"):
            bench.pipeline.approve(number, by="bo", why=None)

    tell_story(tmp_path, story)


def test_a_rejection_ships_nothing_and_a_question_expires_after_seven_days(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await shipped_to_staging(bench)
        first = (await promote(bench, "staging", "prod")).run
        await bench.end_of(first)
        bench.pipeline.reject(first, by="bo", why="not on a Friday")
        run = await bench.end_of(first)
        assert (run["state"], run["exit_code"]) == ("rejected", 4)
        assert run["reason"] == "rejected by bo: not on a Friday"

        second = (await promote(bench, "staging", "prod")).run
        await bench.end_of(second)
        bench.clock.ahead = timedelta(days=6, hours=23)
        bench.pipeline.expire()
        assert bench.pipeline.row(second).state == "waiting_for_approval"
        bench.clock.ahead = timedelta(days=7, seconds=1)
        with pytest.raises(ConflictError, match="waited for approval until"):
            bench.pipeline.approve(second, by="bo", why=None)
        bench.pipeline.expire()
        assert (await bench.end_of(second))["state"] == "failed"
        assert bench.engine.live_release("prod") is None

    tell_story(tmp_path, story)


def test_a_newer_approval_question_supersedes_an_older_one(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await shipped_to_staging(bench)
        first = (await promote(bench, "staging", "prod")).run
        await bench.end_of(first)
        second = (await promote(bench, "staging", "prod")).run
        await bench.end_of(second)
        assert bench.pipeline.row(first).state == "superseded"
        with pytest.raises(ConflictError, match="is not waiting"):
            bench.pipeline.approve(first, by="bo", why=None)

    tell_story(tmp_path, story)


def test_a_problem_found_in_the_rehearsal_fails_the_run_and_rehearsals_can_be_skipped(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.packaging.settings["staging"] = stage_settings("staging", rehearsal=RehearsalSettings())
        await shipped_to_staging(bench)
        assert "rehearse" not in bench.diary, "nothing was live yet"
        bench.rehearsal.objections = ["GET /zones: offset is gone"]
        bench.commit("2")
        await bench.end_of(await bench.push())
        run = await bench.end_of((await promote(bench, "dev", "staging")).run)
        assert (run["state"], run["reason"], run["exit_code"]) == ("failed", "rehearse: GET /zones: offset is gone", 3)
        run = await bench.end_of((await promote(bench, "dev", "staging", skip=True)).run)
        assert (run["state"], run["states"]["rehearse"]) == ("succeeded", "skipped")

    tell_story(tmp_path, story)


def test_an_undecided_rehearsal_fails_the_run_which_can_be_retried(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.packaging.settings["staging"] = stage_settings("staging", rehearsal=RehearsalSettings())
        await shipped_to_staging(bench)
        bench.rehearsal.doubts = ["3 of 400 requests were sent"]
        bench.commit("2")
        await bench.end_of(await bench.push())
        number = (await promote(bench, "dev", "staging")).run
        run = await bench.end_of(number)
        assert (run["state"], run["exit_code"], run["states"]["rehearse"]) == ("failed", 1, "failed")
        assert f"undecided: `hitless pipeline retry {number}`" in run["reason"]
        bench.rehearsal.doubts = []
        bench.pipeline.retry(number)
        run = await bench.end_of(number)
        assert (run["state"], run["states"]["rehearse"]) == ("succeeded", "succeeded")

    tell_story(tmp_path, story)


def test_a_failed_run_is_retried_from_its_failed_step(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        bench.workers.fails["api"] = "never ready"
        run = await bench.end_of(await bench.push())
        assert (run["state"], run["exit_code"]) == ("failed", 3)
        bench.workers.fails.clear()
        bench.diary.clear()
        bench.pipeline.retry(run["run"])
        run = await bench.end_of(run["run"])
        assert run["state"] == "succeeded"
        assert not [line for line in bench.diary if line.startswith(("test", "build"))]
        with pytest.raises(ConflictError, match="is succeeded"):
            bench.pipeline.retry(run["run"])

    tell_story(tmp_path, story)


def test_an_invalid_promotion_starts_no_run(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        with pytest.raises(ConflictError, match="dev has no live release"):
            await promote(bench, "dev", "staging")
        with pytest.raises(UsageError, match="no stage nowhere"):
            await promote(bench, "dev", "nowhere")
        bench.commit("1")
        await bench.end_of(await bench.push())
        with pytest.raises(UsageError, match="to itself"):
            await promote(bench, "dev", "dev")
        assert len(bench.records.runs()) == 1

    tell_story(tmp_path, story)


@pytest.mark.parametrize("line", ["overide=x", "override=", "override=   ", f"override={'x' * 501}", "override=a\x1bb"])
def test_an_unknown_push_option_is_refused(line: str) -> None:
    with pytest.raises(UsageError):
        read_options([line])


def test_a_required_check_needs_a_test_that_ran(tmp_path: Path) -> None:
    def report(tests: int, skipped: int = 0) -> dict[str, object]:
        return {"report": "unit", "tests": tests, "failed": 0, "skipped": skipped}

    async def story(bench: PipelineBench) -> None:
        commit = bench.commit("1")
        run = await bench.push()
        await bench.end_of(run)
        assert bench.records.has_passed(commit)
        ran = ([report(3)], [report(3, skipped=1)], [report(3), {"report": "lines", "coverage_percent": 0.0}])
        ran_not = ([report(0)], [report(2, skipped=2)], [report(3), report(0)])
        for reports in (*ran, *ran_not):
            bench.records.set_step(run, "test", "succeeded", detail={"reports": reports})
            assert bench.records.has_passed(commit) is (reports in ran), reports
        for state in ("skipped", "failed"):
            bench.records.set_step(run, "test", state, detail={"why": "there is no buildspec-test.yml"})
            assert not bench.records.has_passed(commit)

    tell_story(tmp_path, story)
