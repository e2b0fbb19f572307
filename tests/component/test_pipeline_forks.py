"""Pull requests of forks are tested only after approval, without secrets, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette

from hitless.api.pipeline import PipelineApi
from hitless.clock import SystemClock
from hitless.documents import convert, to_plain
from hitless.errors import ConflictError, UsageError
from hitless.forge.forge import ForkPullRequest
from hitless.pipeline.builds import BuildOrder, Builds
from hitless.pipeline.buildspec.run import BuildResult, Limits, User
from hitless.pipeline.repository import Repository
from hitless.pipeline.runs import StepFailed
from hitless.pipeline.workshop import BUILD_UIDS, Workshop
from tests.component.pipeline_bench import PipelineBench, tell_story, until
from tests.component.test_pipeline_previews import previews_of, with_previews

pytestmark = pytest.mark.component

FORK = ForkPullRequest(7, "stranger/shop", "dev")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="builds run as somebody else only where the engine is root's")


def isolated(bench: PipelineBench) -> None:
    """As if the engine were root; the bench's builds are not processes."""
    with_previews(bench)
    bench.replace_parts(workshop=replace(bench.pipeline.parts.workshop, user=User(os.getuid(), os.getgid())))


def fetched(bench: PipelineBench, code: str) -> str:
    """A fork's commit, in the repository as the receiver leaves it."""
    bench.git("switch", "-q", "-C", "theirs")
    commit = bench.commit(code)
    bench.git("push", "-q", "--force", str(bench.repository.folder), "theirs:refs/forks/7")
    return commit


async def asked(bench: PipelineBench, code: str = "1") -> dict[str, Any]:
    row = await bench.pipeline.fork(FORK, fetched(bench, code), "github webhook")
    return await bench.end_of(row.run)


def test_a_forks_commit_is_tested_after_approval_and_never_previewed(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("0")
        await bench.end_of(await bench.push("dev"))
        run = await asked(bench)
        assert (run["state"], run["stage"], run["fork"]["origin"]) == ("waiting_for_approval", None, "stranger/shop")
        assert [order.run for order in bench.builds.orders] == [1], "nothing of the stranger's has run"
        assert [one["subject"] for one in run["question"]["commits"]] == ["code 1"]
        assert run["question"]["files"] == ["code"]
        bench.pipeline.approve(run["run"], by="Bo", why="read it")
        ended = await bench.end_of(run["run"])
        assert ended["state"] == "succeeded"
        assert ended["states"] == {"source": "succeeded", "approve": "succeeded", "test": "succeeded"}
        order = bench.builds.orders[-1]
        assert (order.fork, order.commit, order.stage) == (7, run["commit"], None)
        assert previews_of(bench).rows() == ()
        assert bench.diary.count("build for dev") == 1
        said = [event.sentence for event in bench.store.events()][-3:]
        assert said == [
            "run 2 of pull/7 waits for approval: hitless approve 2",
            "run 2 of pull/7 was approved by Bo",
            "run 2 of pull/7 succeeded",
        ]

    tell_story(tmp_path, story, prepare=isolated)


def test_the_receiver_learns_about_a_forks_run_at_its_start(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        body = {"fork": to_plain(FORK), "commit": fetched(bench, "1"), "actor": "github webhook"}
        transport = httpx.ASGITransport(Starlette(routes=PipelineApi(bench.pipelines).routes()))
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            lines = [json.loads(line) for line in (await client.post("/pipeline/forks", json=body)).text.splitlines()]
        assert lines[0] == {"started": lines[-1]["run"]["run"]}
        assert lines[-1]["run"]["state"] == "waiting_for_approval"

    tell_story(tmp_path, story, prepare=isolated)


def test_an_approval_is_valid_for_only_one_commit_of_a_fork(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        first = await asked(bench, "1")
        second = await asked(bench, "2")
        assert bench.pipeline.document(first["run"]).state == "superseded"
        with pytest.raises(ConflictError, match="is not waiting for approval"):
            bench.pipeline.approve(first["run"], by="Bo", why=None)
        bench.pipeline.approve(second["run"], by="Bo", why=None)
        await bench.end_of(second["run"])
        third = await asked(bench, "3")
        assert third["state"] == "waiting_for_approval"
        assert [order.commit for order in bench.builds.orders] == [second["commit"]]
        bench.pipeline.retry(first["run"])
        assert (await bench.end_of(first["run"]))["state"] == "waiting_for_approval"
        assert len(bench.builds.orders) == 1

    tell_story(tmp_path, story, prepare=isolated)


def test_a_new_commit_keeps_approval_questions_of_other_forks_open(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        first = await asked(bench, "1")
        row = await bench.pipeline.fork(msgspec.structs.replace(FORK, number=8), fetched(bench, "2"), "github webhook")
        await bench.end_of(row.run)
        assert bench.pipeline.document(first["run"]).state == "waiting_for_approval"
        bench.git("switch", "-q", "-C", "pull/7")
        bench.commit("3")
        await bench.end_of(await bench.push("pull/7"))
        assert bench.pipeline.document(first["run"]).state == "waiting_for_approval", "a branch of the same name"

    tell_story(tmp_path, story, prepare=isolated)


def test_a_forks_run_does_not_supersede_a_run_of_a_branch(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.builds.hold = asyncio.Event()
        bench.git("switch", "-q", "-C", "pull/7")
        bench.commit("1")
        await bench.push("pull/7")
        await until(lambda: len(bench.builds.orders) == 1)
        bench.commit("2")
        waits = await bench.push("pull/7")
        assert (await asked(bench, "theirs"))["state"] == "waiting_for_approval", "without waiting for the branch"
        bench.builds.hold.set()
        assert (await bench.end_of(waits))["state"] == "succeeded"

    tell_story(tmp_path, story, prepare=isolated)


def test_a_rejected_or_closed_pull_request_is_not_tested(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        run = await asked(bench, "1")
        bench.pipeline.reject(run["run"], by="Bo", why="no")
        run = await asked(bench, "2")
        bench.pipeline.close_fork(8)
        assert bench.pipeline.document(run["run"]).state == "waiting_for_approval"
        bench.pipeline.close_fork(7)
        assert bench.pipeline.document(run["run"]).state == "superseded"
        with pytest.raises(ConflictError):
            bench.pipeline.approve(run["run"], by="Bo", why=None)
        assert bench.builds.orders == []

    tell_story(tmp_path, story, prepare=isolated)


def test_closing_a_pull_request_ends_its_queued_run(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.builds.hold = asyncio.Event()
        first = await asked(bench, "1")
        bench.pipeline.approve(first["run"], by="Bo", why=None)
        await until(lambda: len(bench.builds.orders) == 1)
        second = await bench.pipeline.fork(FORK, fetched(bench, "2"), "github webhook")
        bench.pipeline.close_fork(7)
        assert bench.pipeline.document(second.run).state == "superseded"
        bench.builds.hold.set()
        await bench.end_of(first["run"])
        await until(lambda: not bench.pipeline._turns.tasks())
        assert bench.pipeline.document(second.run).state == "superseded"
        assert len(bench.builds.orders) == 1

    tell_story(tmp_path, story, prepare=isolated)


def test_an_engine_that_is_not_root_refuses_forks(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        run = await asked(bench)
        assert run["state"] == "failed"
        assert "would run as the engine's own user, who can read its secrets" in run["reason"]
        assert bench.builds.orders == []

    tell_story(tmp_path, story)


def test_an_approval_question_survives_the_daemon(tmp_path: Path) -> None:
    bench = PipelineBench(tmp_path)
    isolated(bench)

    async def first() -> None:
        await bench.start()
        await asked(bench)
        await bench.pipeline.stop()

    async def second() -> None:
        await later.start()
        assert later.pipeline.document(1).state == "waiting_for_approval"
        later.pipeline.approve(1, by="Bo", why=None)
        assert (await later.end_of(1))["state"] == "succeeded"
        await later.pipeline.stop()

    asyncio.run(first())
    later = bench.again()
    isolated(later)
    asyncio.run(second())


@pytest.mark.parametrize(
    "document",
    [
        None,
        {"number": "7", "origin": "a/b", "base": None},
        {"number": 0, "origin": "a/b", "base": None},
        {"number": True, "origin": "a/b", "base": None},
        {"number": 10**10, "origin": "a/b", "base": None},
        {"number": 7, "origin": "../../x", "base": None},
        {"number": 7, "origin": "a b/c", "base": None},
        {"number": 7, "origin": "a/b", "base": 7},
    ],
)
def test_a_malformed_description_of_a_fork_is_refused(document: Any) -> None:
    with pytest.raises(UsageError, match="the fork: "):
        convert(document, ForkPullRequest, "the fork", error=UsageError)


def test_a_forks_commit_that_was_not_fetched_is_refused(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        with pytest.raises(UsageError, match="does not contain the commit"):
            await bench.pipeline.fork(FORK, "1" * 40, "github webhook")
        assert bench.pipeline.parts.records.runs() == ()

    tell_story(tmp_path, story, prepare=isolated)


# -- its build ----------------------------------------------------------------------------------------------------

SPEC = """version: 0.2
env:
  parameter-store: {TOKEN: /shop/token}
  secrets-manager: {PASSWORD: "shop/database:password"}
phases:
  build:
    commands:
      - echo "token=[$TOKEN] password=[$PASSWORD] index=[$PIP_INDEX_URL] log=[$PIP_LOG] $CODEBUILD_WEBHOOK_TRIGGER"
      - echo "$(id -u) $(id -g) $(id -G)"
      - cat kept/count 2>/dev/null || true
      - mkdir -p kept && echo theirs >> kept/count
      - 'if cat "$SECRETS" || ls "$ENVIRONMENTS" || touch "$OTHERS/poison"; then exit 1; fi'
artifacts: {files: ['**/*']}
cache: {paths: [kept]}
"""


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A build folder in /var/tmp, which other users can reach as they can a workshop's."""
    place = Path(tempfile.mkdtemp(prefix="hitless-yard-", dir="/var/tmp"))
    place.chmod(0o755)
    (place / "bench").mkdir()
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:hush@index.example.org/python")
    monkeypatch.setenv("PIP_LOG", "/dev/null")
    bench = PipelineBench(place / "bench")
    yield bench, place
    bench.store.close()
    shutil.rmtree(place)


@as_root
def test_a_forks_build_gets_no_secret_and_cannot_reach_other_builds(yard: Any) -> None:
    bench, folder = yard
    workshop = replace(Workshop.of(folder / "data", os.environ), work=folder / "work", user=User(65534, 65534))
    workshop.create()
    workshop.parameters.write_text("parameter-store: {/shop/token: abcdef}\nsecrets-manager: {}\n")
    workshop.parameters.chmod(0o600)
    others = workshop.make(workshop.environments / "of-dev", User(65534, 65534))
    spec = SPEC.replace("$SECRETS", str(workshop.parameters)).replace("$OTHERS", str(others))
    (bench.clone / "buildspec-test.yml").write_text(spec.replace("$ENVIRONMENTS", str(workshop.environments)))
    commit = bench.commit("1")
    bench.git("push", "-q", str(bench.repository.folder), "dev")
    builds = Builds(workshop, Repository(bench.repository.folder), SystemClock(), lambda: Limits(time_s=60))

    def build(run: int) -> tuple[str, BuildResult | None]:
        workshop.of_run(run).mkdir()
        workshop.make(workshop.work_of(run)).chmod(0o711)
        order = BuildOrder(run, commit, "pull/7", "", "somebody", fork=7)
        try:
            result = asyncio.run(builds.run(order))
            return workshop.log(run).read_text(), result
        finally:
            workshop.clean(run)

    for run in (1, 2):
        log, result = build(run)
        assert result
        assert "PASSWORD, TOKEN: empty, because a fork's build gets no parameters\n" in log
        assert "token=[] password=[] index=[] log=[/dev/null] pr/7\n" in log
        found = re.search(r"^(\d+) \1 \1$", log, re.MULTILINE)
        assert found
        assert int(found[1]) in BUILD_UIDS
        assert "\ntheirs\n" not in log, "no cache of an earlier build"
        assert "hush" not in log
    assert list(workshop.caches.iterdir()) == []
    assert [path.name for path in workshop.environments.iterdir()] == ["of-dev"]
    assert not list(workshop.of_run(1).glob("*-artifacts"))
    assert not list(workshop.work.glob("run-*"))


def test_builds_refuse_a_fork_without_a_user_of_its_own(yard: Any) -> None:
    bench, folder = yard
    workshop = replace(Workshop.of(folder / "data", os.environ), work=folder / "work", user=None)
    workshop.create()
    builds = Builds(workshop, Repository(bench.repository.folder), SystemClock(), lambda: Limits(time_s=60))
    order = BuildOrder(1, "0" * 40, "pull/7", "", "somebody", fork=7)
    with pytest.raises(StepFailed, match="does not run as the engine's own user"):
        asyncio.run(builds.run(order))


def test_a_linked_service_folder_is_refused(yard: Any) -> None:
    bench, folder = yard
    workshop = replace(Workshop.of(folder / "data", os.environ), work=folder / "work", user=None)
    workshop.create()
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "buildspec-test.yml").write_text("version: 0.2\nphases: {build: {commands: [true]}}\n")
    (bench.clone / "shop").symlink_to(elsewhere)
    commit = bench.commit("1")
    bench.git("push", "-q", str(bench.repository.folder), "dev")
    workshop.of_run(1).mkdir()
    workshop.make(workshop.work_of(1))
    builds = Builds(workshop, Repository(bench.repository.folder), SystemClock(), lambda: Limits(time_s=60))
    order = BuildOrder(1, commit, "dev", "shop", "ada")
    with pytest.raises(StepFailed, match="shop leads out of the commit's files"):
        asyncio.run(builds.run(order))
