"""Runs whose daemon is killed: real git and state file, fakes for the rest."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from hitless.errors import ConflictError
from hitless.pipeline.orders import RefUpdate
from hitless.service.model import Approval, RehearsalSettings
from hitless.store.runs import NewRun
from tests.component.pipeline_bench import PipelineBench, promote, shipped_to_staging, stage_settings, tell_story, until

pytestmark = pytest.mark.component


def hold_in(bench: PipelineBench, step: str) -> None:
    """Hold every run that comes to the step from now on."""
    match step:
        case "test":
            bench.builds.hold = asyncio.Event()
        case "build":
            bench.packaging.hold = asyncio.Event()
        case "rehearse":
            bench.rehearsal.hold = asyncio.Event()
        case _:
            bench.workers.hold = asyncio.Event()


@pytest.mark.parametrize("step", ["test", "build", "rehearse", "deploy"])
@pytest.mark.parametrize("newer", [False, True])
def test_an_interrupted_run_resumes_before_its_deploy_unless_a_newer_one_exists(
    tmp_path: Path, step: str, newer: bool
) -> None:
    bench = PipelineBench(tmp_path)
    bench.packaging.settings["dev"] = stage_settings("dev", rehearsal=RehearsalSettings())

    async def until_killed() -> None:
        await bench.start()
        bench.commit("1")
        await bench.end_of(await bench.push())
        bench.commit("2")
        hold_in(bench, step)
        run = await bench.push()
        await until(lambda: any(s.name == step and s.state == "running" for s in bench.records.steps(run)))
        if step == "deploy":
            await until(lambda: bench.pipeline.row(run).release == 2)
        if newer:
            bench.commit("3")
            await bench.push()
        # the loop is left as it stands, as a SIGKILL leaves it

    asyncio.run(until_killed())
    bench.workers.hold = None

    async def afterwards() -> None:
        later = bench.again()
        later.packaging.settings["dev"] = stage_settings("dev", rehearsal=RehearsalSettings())
        await later.start()
        where = f"the engine stopped during {step}"
        live = later.engine.live_release("dev")
        assert live
        assert live.number == 1, "no stage is left half-way"
        async with asyncio.timeout(30):
            run = await later.end_of(2)
            if step == "deploy":
                assert (run["state"], run["reason"]) == ("interrupted", f"{where}: `hitless pipeline retry 2`")
            elif newer:
                assert (run["state"], run["reason"]) == ("superseded", f"{where}, and run 3 came after it")
            else:
                assert run["state"] == "succeeded"
                assert f"{where}: the run continues" in later.log(2)
            if newer:
                assert (await later.end_of(3))["state"] == "succeeded"
            elif step == "deploy":
                later.pipeline.retry(2)
                assert (await later.end_of(2))["state"] == "succeeded"
        await later.pipeline.stop()
        await later.engine.wait_until_idle()

    asyncio.run(afterwards())


def test_a_run_is_verified_if_its_release_went_live_when_the_daemon_died(tmp_path: Path) -> None:
    bench = PipelineBench(tmp_path)

    async def until_killed() -> None:
        await bench.start()
        bench.commit("1")
        run = await bench.push()
        await bench.end_of(run)
        bench.records.set_state(run, "running", None, None)
        bench.records.set_step(run, "deploy", "running")
        row = bench.pipeline.row(run)
        new = NewRun(
            stage="staging", branch="staging", commit=row.commit, verb="push", actor="ada", message="", options={}
        )
        bench.records.add(new, state="queued", at=row.started_at)

    asyncio.run(until_killed())

    async def afterwards() -> None:
        later = bench.again()
        await later.start()
        async with asyncio.timeout(30):
            run = await later.end_of(1)
            assert (run["state"], run["states"]["deploy"]) == ("succeeded", "succeeded")
            assert (await later.end_of(2))["state"] == "succeeded", "what had only waited runs now"
        await later.pipeline.stop()
        await later.engine.wait_until_idle()

    asyncio.run(afterwards())


@pytest.mark.parametrize("step", ["test", "build", "rehearse"])
def test_a_run_that_is_cut_off_repeatedly_ends_as_interrupted(tmp_path: Path, step: str) -> None:
    bench = PipelineBench(tmp_path)

    async def until_killed(bench: PipelineBench, *, first: bool) -> None:
        bench.packaging.settings["dev"] = stage_settings("dev", rehearsal=RehearsalSettings())
        await bench.start()
        if first:
            bench.commit("1")
            await bench.end_of(await bench.push())
        hold_in(bench, step)
        if first:
            bench.commit("2")
            await bench.push()
        await until(lambda: any(s.name == step and s.state == "running" for s in bench.records.steps(2)))

    asyncio.run(until_killed(bench, first=True))
    for _ in range(2):
        bench = bench.again()
        asyncio.run(until_killed(bench, first=False))
    last = bench.again()
    last.packaging.settings["dev"] = stage_settings("dev", rehearsal=RehearsalSettings())

    async def afterwards() -> None:
        await last.start()
        async with asyncio.timeout(30):
            run = await last.end_of(2)
            assert (run["state"], run["states"][step]) == ("interrupted", "interrupted")
            assert run["reason"] == f"the engine stopped during {step} again: `hitless pipeline retry 2`"
            last.diary.clear()
            last.pipeline.retry(2)
            assert (await last.end_of(2))["state"] == "succeeded"
        order = ["test run 2", "build for dev", "rehearse"]
        taken = [line for line in last.diary if line in order]
        assert taken == order[["test", "build", "rehearse"].index(step) :], "from the step that was cut off on"
        await last.pipeline.stop()
        await last.engine.wait_until_idle()

    asyncio.run(afterwards())


def has_taken_up(bench: PipelineBench) -> bool:
    return bool(bench.records.runs()) and not bench.pipeline.parts.pushes.all()


@pytest.mark.parametrize("clock_set_back_s", [0, 7200])
def test_a_push_accepted_when_the_daemon_died_is_run_once_by_the_next_daemon(
    tmp_path: Path, clock_set_back_s: int
) -> None:
    bench = PipelineBench(tmp_path)

    async def until_killed() -> None:
        await bench.start()
        for branch, message in (("dev", "1"), ("feature", "2")):
            commit = bench.commit(message)
            update = RefUpdate("0" * 40, commit, f"refs/heads/{branch}")
            assert not await bench.pipeline.check([update], {"skip-rehearsal": ""}, "ada")
            if branch == "dev":  # the other one was let through, and never came
                bench.git("push", "-q", str(bench.repository.folder), "HEAD:dev")

    asyncio.run(until_killed())

    async def afterwards() -> None:
        for _ in range(2):
            later = bench.again()
            later.clock.ahead = timedelta(seconds=-clock_set_back_s)
            await later.start()
            async with asyncio.timeout(30):
                await until(partial(has_taken_up, later))
                assert (await later.end_of(1))["state"] == "succeeded"
            (row,) = later.records.runs()
            assert (row.branch, row.actor, row.options) == ("dev", "ada", {"skip_rehearsal": True})
            await later.pipeline.stop()
            await later.engine.wait_until_idle()

    asyncio.run(afterwards())


def test_an_approval_recorded_when_the_daemon_died_is_applied(tmp_path: Path) -> None:
    bench = PipelineBench(tmp_path)

    async def until_killed() -> None:
        await bench.start()
        await shipped_to_staging(bench)
        run = (await promote(bench, "staging", "prod")).run
        await bench.end_of(run)
        bench.records.decide(run, decision="approved", by="bo", at="2026-11-24T10:00:00Z", why="seen")

    asyncio.run(until_killed())

    async def afterwards() -> None:
        later = bench.again()
        later.packaging.settings["prod"] = stage_settings("prod", approval=Approval.MANUAL)
        await later.start()
        async with asyncio.timeout(30):
            assert (await later.end_of(3))["state"] == "succeeded"
        assert "approved by bo: seen" in later.log(3)
        await later.pipeline.stop()
        await later.engine.wait_until_idle()

    asyncio.run(afterwards())


def test_a_runs_end_is_recorded_when_the_state_file_is_writable_again(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.builds.hold = asyncio.Event()
        bench.commit("1")
        run = await bench.push()
        await until(lambda: "test run 1" in bench.diary)
        with bench.store.transaction() as db:  # as a full disk does it: nothing is written any more
            for table, what in (("pipeline_runs", "UPDATE"), ("pipeline_steps", "INSERT")):
                db.execute(
                    f"CREATE TRIGGER full_{table} BEFORE {what} ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END"
                )
        bench.builds.hold.set()
        work = bench.pipeline.parts.workshop.work_of(run)
        await until(lambda: not work.exists())
        assert bench.pipeline.row(run).state == "running"
        with bench.store.transaction() as db:
            for table in ("pipeline_runs", "pipeline_steps"):
                db.execute(f"DROP TRIGGER full_{table}")
        ended = await bench.end_of(run)
        assert (ended["state"], ended["states"]["test"]) == ("failed", "failed")
        assert "full" in ended["reason"]
        assert (await bench.end_of(await bench.push()))["state"] == "succeeded", "the lane is free"

    tell_story(tmp_path, story)


def test_a_run_can_be_stopped_before_it_deploys_and_the_next_one_runs(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.builds.hold = asyncio.Event()
        bench.commit("1")
        first = await bench.push()
        await until(lambda: "test run 1" in bench.diary)
        bench.commit("2")
        second = await bench.push()
        bench.commit("3")
        third = await bench.push()
        await bench.pipeline.stop_run(third, by="bo", why=None)
        await bench.pipeline.stop_run(first, by="bo", why="it hangs")
        run = await bench.end_of(first)
        assert (run["state"], run["reason"]) == ("interrupted", "stopped by bo: it hangs")
        assert run["states"]["test"] == "interrupted"
        assert [bench.pipeline.row(number).state for number in (second, third)] == ["superseded", "interrupted"]
        for number, why in ((first, "is interrupted"), (second, "is superseded")):
            with pytest.raises(ConflictError, match=why):
                await bench.pipeline.stop_run(number, by="bo", why=None)
        bench.builds.hold.set()
        bench.pipeline.retry(third)
        assert (await bench.end_of(third))["state"] == "succeeded", "the lane is free"

    tell_story(tmp_path, story)


def test_a_deploying_or_waiting_run_cannot_be_stopped(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await shipped_to_staging(bench)
        waiting = (await promote(bench, "staging", "prod")).run
        await bench.end_of(waiting)
        with pytest.raises(ConflictError, match="waits for approval"):
            await bench.pipeline.stop_run(waiting, by="bo", why=None)
        bench.workers.hold = asyncio.Event()
        bench.commit("2")
        run = await bench.push()
        await until(lambda: any(s.name == "deploy" and s.state == "running" for s in bench.records.steps(run)))
        with pytest.raises(ConflictError, match="is already deploying"):
            await bench.pipeline.stop_run(run, by="bo", why=None)
        bench.workers.hold.set()
        assert (await bench.end_of(run))["state"] == "succeeded"

    tell_story(tmp_path, story)


def test_a_starting_engine_renews_hooks_of_an_earlier_version(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        hooks = bench.repository.folder / "hooks"
        (hooks / "pre-receive").write_text("#!/bin/sh\nexec python -m hitless.moved /data pre-receive\n")
        await bench.pipeline.stop()
        await bench.pipeline.start()
        renewed = (hooks / "pre-receive").read_text()
        assert shlex.join([sys.executable, "-m", "hitless.processes.git_hook", str(tmp_path)]) in renewed
        assert renewed.endswith(" pre-receive\n")
        assert os.access(hooks / "pre-receive", os.X_OK)
        assert not (hooks / "post-receive").exists(), "a hook that the repository does not have is not added"

    tell_story(tmp_path, story)
