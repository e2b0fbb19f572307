"""Runs from or to a stage on AWS: errands ship the same artifacts."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs
from msgspec.structs import replace

from hitless.cloud import status as cloud_releases
from hitless.cloud.status import stage_status
from hitless.documents import to_plain
from hitless.engine import releases as engine_releases
from hitless.engine.status import status as engine_status
from hitless.errors import ConflictError, MachineError, UsageError
from hitless.homes.aws import NOT_COUNTED
from hitless.homes.errands import TellOrigin
from hitless.pipeline.errands import AwsErrands
from hitless.pipeline.orders import Promotion
from hitless.pipeline.packaging import PackageOrder, package_in_process
from hitless.release.document import ArtifactRef, Origin, PromotedFrom
from hitless.release.status import EngineStatus
from hitless.service.model import Approval, Home, Hooks, RehearsalSettings
from tests.component.pipeline_bench import PipelineBench, stage_settings, tell_story, until
from tests.fakes import release_document
from tests.support import free_port
from tests.unit.cloud_fakes import World, package

pytestmark = pytest.mark.component

HERE = f"python3.{sys.version_info.minor}"


def on_aws(bench: PipelineBench, stage: str, approval: Approval = Approval.NONE) -> dict[str, object]:
    """The operator has moved the stage to AWS; its configuration as the command line sends it."""
    settings = stage_settings(stage, home=Home.AWS, approval=approval)
    bench.packaging.settings[stage] = settings
    bench.pipeline_url()
    return replace(release_document("api", service="shop"), settings=settings, artifacts={}).to_json()


def there(stage: str, digest: str = "sha256:afar", commit: str = "") -> Origin:
    return Origin(Home.AWS, stage, 7, {"api": digest}, commit, "from afar")


def test_a_promotion_to_aws_ships_the_engines_live_artifacts(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        commit = bench.commit("1")
        await bench.end_of(await bench.push())
        order = Promotion("dev", "prod", document=on_aws(bench, "prod"))
        run = await bench.end_of((await bench.pipeline.promote(order, actor="ada")).run)
        assert (run["state"], run["release"]) == ("succeeded", 1)
        assert run["states"]["rehearse"] == "skipped"
        assert run["states"]["verify"] == "succeeded"
        (errand,) = bench.on_aws.shipped
        given, who = errand.given, errand.given.who
        assert who is not None
        assert given.digests == {"api": "sha256:1"}
        assert given.promoted_from == PromotedFrom(Home.ENGINE, "dev", 1)
        assert (given.commit, errand.stage, who.actor, who.run) == (commit, "prod", "ada", "2")
        assert bench.engine.store.releases("prod") == (), "the engine serves nothing of it"
        assert bench.diary[-2:] == ["ship prod on AWS", "verify prod on AWS"]
        assert await bench.repository.head_of("prod") == commit

    tell_story(tmp_path, story)


def test_a_push_to_a_stage_on_aws_ships_its_build(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        on_aws(bench, "staging")
        bench.git("switch", "-q", "-c", "staging")
        bench.commit("5")
        run = await bench.end_of(await bench.push("staging"))
        assert (run["state"], run["states"]["test"]) == ("succeeded", "succeeded")
        (errand,) = bench.on_aws.shipped
        assert (errand.given.digests, errand.given.promoted_from) == ({"api": "sha256:5"}, None)

    tell_story(tmp_path, story)


def test_a_commit_of_another_service_is_refused(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        on_aws(bench, "staging")
        bench.packaging.service = "billing"
        bench.git("switch", "-q", "-c", "staging")
        bench.commit("5")
        run = await bench.end_of(await bench.push("staging"))
        assert (run["state"], run["states"]["build"]) == ("failed", "failed")
        assert "this commit is of service billing, not shop" in run["reason"]
        assert not bench.on_aws.shipped

    tell_story(tmp_path, story)


def test_prod_accepts_a_commit_that_a_run_shipped_to_staging_on_aws(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        on_aws(bench, "staging")
        bench.git("switch", "-q", "-c", "staging")
        bench.commit("5")
        bench.on_aws.outcome = "rolled_back"
        await bench.end_of(await bench.push("staging"))
        (refusal,) = await bench.push("staging", to="prod")
        assert "was never live in staging" in refusal
        bench.on_aws.outcome = "live"
        bench.pipeline.retry(1)
        assert (await bench.end_of(1))["state"] == "succeeded"
        assert isinstance(await bench.push("staging", to="prod"), int)

    tell_story(tmp_path, story)


def test_a_release_on_aws_that_fails_verification_is_rolled_back(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        await bench.end_of(await bench.push())
        bench.on_aws.faults = ("api: version 2 does not hold the bytes that were shipped",)
        order = Promotion("dev", "prod", document=on_aws(bench, "prod"))
        run = await bench.end_of((await bench.pipeline.promote(order, actor="ada")).run)
        assert (run["state"], run["exit_code"]) == ("failed", 3)
        fault = "api: version 2 does not hold the bytes that were shipped"
        why = f"verify: {fault}"
        alone = "it stays live, because no release can replace it: no release was live before this one"
        assert run["reason"] == f"{why}: {alone}"
        assert bench.diary[-1] == f"roll prod back on AWS: run 2: {fault}"
        again = await bench.end_of((await bench.pipeline.promote(order, actor="ada")).run)
        assert again["reason"] == f"{why}: rolled back to release 1"

    tell_story(tmp_path, story)


def test_a_run_fails_if_an_alarm_rolls_back_its_release_on_aws(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        await bench.end_of(await bench.push())
        bench.on_aws.outcome = "rolled_back"
        order = Promotion("dev", "prod", document=on_aws(bench, "prod"))
        run = await bench.end_of((await bench.pipeline.promote(order, actor="ada")).run)
        assert (run["state"], run["exit_code"], run["release"]) == ("failed", 3, 1)
        assert run["reason"] == "deploy: release 1 was rolled back: an alarm"
        assert "verify" not in run["states"]

    tell_story(tmp_path, story)


def test_a_release_on_aws_cut_off_by_the_daemons_death_is_continued(tmp_path: Path) -> None:
    bench = PipelineBench(tmp_path)

    async def until_killed() -> None:
        await bench.start()
        bench.commit("1")
        await bench.end_of(await bench.push())
        bench.on_aws.hold = asyncio.Event()
        await bench.pipeline.promote(Promotion("dev", "prod", document=on_aws(bench, "prod")), actor="ada")
        await until(lambda: "ship prod on AWS" in bench.diary)  # then the loop ends as it stands, as by SIGKILL

    async def afterwards() -> None:
        later = bench.again()
        async with asyncio.timeout(30):
            await later.start()
            run = await later.end_of(2)
            assert (run["state"], run["release"]) == ("succeeded", 1)
            assert "the engine stopped during deploy: the run continues" in later.log(2)
            (errand,) = later.on_aws.shipped
            assert errand.given.digests == {"api": "sha256:1"}
            await later.pipeline.stop()

    asyncio.run(until_killed())
    asyncio.run(afterwards())


def test_an_approval_ships_the_folder_as_it_was_at_the_promotion(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        document = release_document("api", digest="sha256:1", service="shop")
        started = await bench.engine.deploy("dev", document, strategy=None, force=False)
        async for _ in bench.engine.follow(started):
            pass
        folder = tmp_path / "service"
        (folder / ".git").mkdir(parents=True)
        (folder / "node_modules").mkdir()
        (folder / "data").symlink_to(tmp_path)
        (folder / "serverless.yml").write_text("as it was")
        order = Promotion("dev", "prod", document=on_aws(bench, "prod", Approval.MANUAL), folder=str(folder))
        run = (await bench.pipeline.promote(order, actor="ada")).run
        assert (await bench.end_of(run))["state"] == "waiting_for_approval"
        assert bench.on_aws.shipped == []
        (folder / "serverless.yml").write_text("something else")
        bench.pipeline.approve(run, by="eve", why=None)
        assert (await bench.end_of(run))["state"] == "succeeded"
        (errand,) = bench.on_aws.shipped
        assert bench.on_aws.seen == [{"serverless.yml": "as it was", "node_modules": "a link"}], "no data, no .git"
        assert not bench.pipeline.parts.workshop.service_of(run).exists(), "nobody will ask for it again"
        assert errand.given.digests == {"api": "sha256:1"}

    tell_story(tmp_path, story)


def test_a_queued_promotion_ships_the_folder_as_it_was_at_the_promotion(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        started = await bench.engine.deploy(
            "dev", release_document("api", digest="sha256:1", service="shop"), strategy=None, force=False
        )
        async for _ in bench.engine.follow(started):
            pass
        (folder := tmp_path / "service").mkdir()
        (folder / "serverless.yml").write_text("one")
        order = Promotion("dev", "prod", document=on_aws(bench, "prod"), folder=str(folder))
        bench.on_aws.hold = asyncio.Event()
        first = await bench.pipeline.promote(order, actor="ada")
        await until(lambda: "ship prod on AWS" in bench.diary)
        (folder / "serverless.yml").write_text("two")
        second = await bench.pipeline.promote(order, actor="ada")
        (folder / "serverless.yml").write_text("three")
        bench.on_aws.hold.set()
        assert (await bench.end_of(first.run))["state"] == "succeeded"
        assert (await bench.end_of(second.run))["state"] == "succeeded"
        assert bench.on_aws.seen == [{"serverless.yml": "one"}, {"serverless.yml": "two"}]
        with pytest.raises(UsageError, match="cannot be copied"):
            await bench.pipeline.promote(structs.replace(order, folder=str(tmp_path / "gone")), actor="ada")
        assert bench.pipeline.document(3).state == "failed"

    tell_story(tmp_path, story)


def test_a_promotion_from_aws_ships_its_zips_at_the_engine(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        commit = bench.commit("1")
        await bench.end_of(await bench.push())
        bench.on_aws.live_there["prod"] = there("prod", commit=commit)
        order = Promotion("prod", "staging", source_home=Home.AWS, folder=str(tmp_path))
        run = await bench.end_of((await bench.pipeline.promote(order, actor="ada")).run)
        assert (run["state"], run["release"]) == ("succeeded", 1)
        assert bench.diary.index("fetch release 7 of prod") < bench.diary.index("start api r1", 5)
        live = bench.engine.live_release("staging")
        assert live is not None
        assert (live.document.artifacts["api"].digest, live.document.commit) == ("sha256:afar", commit)
        receipt = bench.engine.store.receipt(bench.engine.store.rollouts("staging")[0].rollout)
        assert receipt
        assert receipt.promoted_from == PromotedFrom(Home.AWS, "prod", 7)
        build = next(step for step in run["steps"] if step["name"] == "build")
        assert build["detail"]["artifacts"] == {"api": "sha256:afar"}

    tell_story(tmp_path, story)


def test_artifacts_for_another_platform_are_not_promoted_from_aws(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.on_aws.live_there["prod"] = there("prod")
        made = release_document("api", service="shop")
        foreign = "arm64" if made.functions[0].architecture == "x86_64" else "x86_64"
        functions = tuple(replace(one, runtime=HERE, architecture=foreign) for one in made.functions)
        settings = bench.packaging.settings["staging"]
        document = replace(made, functions=functions, artifacts={}, settings=settings).to_json()
        (folder := tmp_path / "service").mkdir()
        order = Promotion("prod", "staging", Home.AWS, document, folder=str(folder))
        run = await bench.end_of((await bench.pipeline.promote(order, actor="ada")).run)
        assert (run["state"], run["exit_code"]) == ("failed", 2)
        assert run["reason"].startswith("build: the artifact of api does not run on this machine: the architecture is")
        assert bench.engine.store.releases("staging") == ()

    tell_story(tmp_path, story)


def test_a_promotion_fails_if_artifacts_differ(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        await bench.end_of(await bench.push())
        order = Promotion("dev", "prod", document=on_aws(bench, "prod"))
        bench.packaging.instead = {"api": ArtifactRef("sha256:other", False)}
        run = await bench.end_of((await bench.pipeline.promote(order, actor="ada")).run)
        assert (run["state"], run["reason"]) == ("failed", "build: the artifacts are not those of release 1 of dev")
        assert bench.on_aws.shipped == []

    tell_story(tmp_path, story)


def test_each_home_gets_artifacts_for_its_platform(
    tmp_path: Path,
) -> None:
    (folder := tmp_path / "service").mkdir()
    (folder / "app.py").write_text("def handler(event, context): ...\n")
    other = "python3.12" if HERE != "python3.12" else "python3.13"
    document = {
        "service": "clock",
        "provider": {"name": "aws", "runtime": other},
        "functions": {"api": {"handler": "app.handler", "events": [{"http": "GET /"}]}},
        "custom": {"hitless": {"stages": {"dev": {}, "prod": {"home": "aws"}}}},
    }
    (folder / "serverless.yml").write_text(json.dumps(document))

    async def package(stage: str) -> bool:
        order = PackageOrder(folder, "", stage, "0" * 40, None, None)
        made, _ = await package_in_process(tmp_path / "artifacts", order, log=tmp_path / "log")
        return made.artifacts["api"].local

    assert (asyncio.run(package("dev")), asyncio.run(package("prod"))) == (True, False)


def test_local_artifacts_are_not_promoted_to_aws(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        bench.packaging.instead = {"api": ArtifactRef("sha256:1", True)}
        await bench.end_of(await bench.push())
        with pytest.raises(ConflictError, match="built for this machine only"):
            await bench.pipeline.promote(Promotion("dev", "prod", document=on_aws(bench, "prod")), actor="ada")
        bench.git("switch", "-q", "-c", "staging")
        on_aws(bench, "staging")
        bench.commit("2")
        run = await bench.end_of(await bench.push("staging"))
        assert run["reason"] == "deploy: the artifacts of api were built for this machine only, not for AWS"
        assert bench.on_aws.shipped == []

    tell_story(tmp_path, story)


def test_a_candidate_for_aws_is_rehearsed_against_the_live_release_on_aws(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        await bench.end_of(await bench.push())
        document = on_aws(bench, "prod", Approval.MANUAL)
        settings = replace(bench.packaging.settings["prod"], rehearsal=RehearsalSettings())
        bench.packaging.settings["prod"] = settings
        live = replace(release_document("api", digest="sha256:0", service="shop"), settings=settings, commit=None)
        bench.on_aws.copies["prod"] = replace(live, settings=replace(settings, shield=False))
        run = (await bench.pipeline.promote(Promotion("dev", "prod", document=document), actor="ada")).run
        asked = await bench.end_of(run)
        assert (asked["state"], asked["states"]["rehearse"]) == ("waiting_for_approval", "succeeded")
        assert "rehearse" in bench.diary
        assert asked["question"]["configuration"] == ["settings.shield: False → True"]
        bench.pipeline.approve(run, by="eve", why=None)
        assert (await bench.end_of(run))["state"] == "succeeded"
        bench.on_aws.copies["prod"] = bench.candidate_of(run)
        again = (await bench.pipeline.promote(Promotion("dev", "prod", document=document), actor="ada")).run
        asked = await bench.end_of(again)
        assert asked["states"]["rehearse"] == "skipped"
        assert asked["state"] == "waiting_for_approval", "what CloudFormation would change no document tells"

    tell_story(tmp_path, story)


def test_an_impossible_promotion_starts_no_run(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        with pytest.raises(ConflictError, match="prod has no live release"):
            await bench.pipeline.promote(Promotion("prod", "dev", Home.AWS, folder=str(tmp_path)), actor="ada")
        with pytest.raises(UsageError, match="no folder with its"):
            await bench.pipeline.promote(Promotion("prod", "dev", Home.AWS), actor="ada")
        with pytest.raises(UsageError, match="no stage test"):
            await bench.pipeline.promote(Promotion("dev", "test"), actor="ada")
        assert bench.records.runs() == ()

    tell_story(tmp_path, story)


def clock_on_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with a stage on AWS, where nobody listens."""
    (tmp_path / "app.py").write_text("def handler(event, context): ...\n")
    document = {
        "service": "clock",
        "provider": {"name": "aws", "runtime": "python3.11"},
        "functions": {"api": {"handler": "app.handler", "events": [{"http": "GET /"}]}},
        "custom": {"hitless": {"stages": {"prod": {"home": "aws"}}}},
    }
    (tmp_path / "serverless.yml").write_text(json.dumps(document))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def test_an_aws_errand_without_credentials_says_whose_environment_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_on_aws(tmp_path, monkeypatch)
    with pytest.raises(MachineError, match="AWS cannot be reached") as failed:
        asyncio.run(AwsErrands(tmp_path)(TellOrigin(stage="prod", folder=str(tmp_path)), Origin))
    assert "that of the shell that ran `hitless up`" in failed.value.hint


def test_cancelling_an_aws_errand_closes_its_connection_to_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock_on_aws(tmp_path, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and answers none
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")

        async def asked_and_left() -> None:
            asking = asyncio.create_task(AwsErrands(tmp_path)(TellOrigin(stage="prod", folder=str(tmp_path)), Origin))
            connection, _ = await asyncio.to_thread(silent.accept)
            with connection:
                connection.settimeout(60)
                assert (await asyncio.to_thread(connection.recv, 1 << 16)).startswith(b"POST /")
                asking.cancel()
                async with asyncio.timeout(30):
                    await asyncio.wait([asking])
                assert asking.cancelled()
                while await asyncio.to_thread(connection.recv, 1 << 16):
                    pass  # until its end: nobody holds the connection any more

        silent.settimeout(60)
        asyncio.run(asked_and_left())


def test_both_homes_use_the_same_keys_for_stages_and_releases(tmp_path: Path) -> None:
    world, service = World(), package("a", Hooks()).service
    world.deploy("a")

    async def story(bench: PipelineBench) -> None:
        bench.commit("1")
        await bench.end_of(await bench.push())
        processes = EngineStatus(1, "0", "", None, None, None)
        shown = engine_status(bench.engine, urls={}, processes=processes, reason_of=lambda _: None)
        here, afar = to_plain(shown)["stages"][0], to_plain(stage_status(world.cloud(), service))
        assert set(here) <= set(afar)
        assert set(here["live"]) == set(afar["live"])
        assert set(here["functions"][0]) <= set(afar["functions"][0])
        rows = [{**NOT_COUNTED, **one} for one in cloud_releases.releases(world.cloud())]
        assert set(to_plain(engine_releases.releases(bench.engine.store, "dev")[0])) <= set(rows[0])
        one = {**NOT_COUNTED, **cloud_releases.release(world.cloud(), 1)}
        both = to_plain(engine_releases.release(bench.engine.store, "dev", 1)), one
        assert set(both[0]) - {"functions"} <= set(both[1])
        assert set(both[0]["rollouts"][0]) <= set(both[1]["rollouts"][0])

    tell_story(tmp_path, story)


def test_the_daemon_and_a_deploy_at_the_engine_load_no_aws_modules() -> None:
    commands = ("deploy", "status", "promote", "releases", "logs", "drill", "rehearse", "up", "pipeline")
    homes = ("home", "engine", "folder", "engine_logs")
    modules = ["processes.engine", *(f"cli.{one}" for one in commands), *(f"homes.{one}" for one in homes)]
    names = ", ".join(f"hitless.{one}" for one in modules)
    shown = "sorted(name for name in sys.modules if name.startswith(('boto', 'hitless.aws', 'hitless.cloud')))"
    command = [sys.executable, "-c", f"import sys, {names}; print({shown})"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
