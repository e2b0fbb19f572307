"""A stage is protected by its live settings, not by those of the commit that is to ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.cli.pipeline import in_full
from hitless.errors import EngineError
from hitless.pipeline.approvals import changes_of
from hitless.pipeline.definition import Definition, stricter
from hitless.pipeline.notify import sentence
from hitless.pipeline.orders import Promotion
from hitless.rollout.rollout import Rollout
from hitless.service.model import Approval, Home, Notify, NotifyBy, RehearsalSettings, StageSettings
from tests.component.pipeline_bench import PipelineBench, promote, shipped_to_staging, stage_settings, tell_story
from tests.component.receiver_site import Site
from tests.fakes import release_document

pytestmark = pytest.mark.component

TEAM = Notify(NotifyBy.SLACK, "https://hooks.example.org/team")
ATTACKER = Notify(NotifyBy.COMMAND, "approve-yourself")
MANUAL = Approval.MANUAL


async def live_in_prod(bench: PipelineBench, **settings: Any) -> None:
    """A first release of prod under these settings, which a person approved if they ask for one."""
    bench.packaging.settings["prod"] = stage_settings("prod", **settings)
    await shipped_to_staging(bench)
    await to_prod(bench, approve=True)


async def to_prod(bench: PipelineBench, code: str | None = None, *, approve: bool = False) -> dict[str, Any]:
    """The run that promotes a commit to prod, at first through dev and staging if it is another one."""
    if code is not None:
        bench.commit(code)
        await bench.end_of(await bench.push())
        await bench.end_of((await promote(bench, "dev", "staging")).run)
    run = await bench.end_of((await promote(bench, "staging", "prod")).run)
    if approve and run["state"] == "waiting_for_approval":
        bench.pipeline.approve(run["run"], by="bo", why=None)
        run = await bench.end_of(run["run"])
        assert run["state"] == "succeeded"
    return run


async def by_hand(bench: PipelineBench, settings: StageSettings) -> None:
    """`hitless deploy` on the machine."""
    live = bench.engine.live_release(settings.name)
    document = live.document if live else release_document("api", service="shop")
    started = await bench.engine.deploy(settings.name, replace(document, settings=settings), strategy=None, force=False)
    assert isinstance(started, Rollout)
    async for _ in bench.engine.follow(started):
        pass


def test_a_commit_that_removes_prods_approval_still_waits_for_it(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await live_in_prod(bench, approval=MANUAL, notify=(TEAM,))
        bench.packaging.settings["prod"] = stage_settings("prod", notify=(ATTACKER,))
        run = await to_prod(bench, "2")
        assert run["state"] == "waiting_for_approval"
        assert bench.heard[-1][0] == (TEAM,), "the commit must not say who gets the link"
        bench.pipeline.approve(run["run"], by="bo", why=None)
        assert (await bench.end_of(run["run"]))["state"] == "succeeded"
        run = await to_prod(bench, "3")
        assert (run["state"], run["states"]["approve"]) == ("succeeded", "skipped"), "the new protection is live now"

    tell_story(tmp_path, story)


def test_a_pushed_commit_obeys_the_live_protection_like_a_promoted_one(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await live_in_prod(bench, approval=MANUAL)
        bench.packaging.settings["prod"] = stage_settings("prod")
        bench.git("switch", "-q", "-c", "prod")
        bench.commit("hotfix")
        run = await bench.end_of(await bench.push("prod", options={"override": "it burns"}))
        assert run["state"] == "waiting_for_approval"

    tell_story(tmp_path, story)


def test_a_commit_that_removes_rehearsal_and_verification_still_gets_both(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await live_in_prod(bench, rehearsal=RehearsalSettings(beside_s=60.0))
        bench.packaging.settings["prod"] = stage_settings("prod", test=False, verify=False)
        run = await to_prod(bench, "2")
        assert (run["states"]["rehearse"], run["states"]["verify"]) == ("succeeded", "succeeded")
        assert bench.rehearsal.paces == [RehearsalSettings(beside_s=60.0)], "as hard as the live release asks for"

    tell_story(tmp_path, story)


def test_a_commit_that_changes_only_the_protection_is_shipped(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await live_in_prod(bench, approval=MANUAL)
        bench.packaging.settings["prod"] = stage_settings("prod")
        run = await to_prod(bench, approve=True)
        live = bench.engine.live_release("prod")
        assert live
        assert (run["release"], live.number, live.document.settings.approval) == (2, 2, Approval.NONE)

    tell_story(tmp_path, story)


def test_a_commit_live_in_dev_can_only_strengthen_prods_protection(tmp_path: Path) -> None:
    """The commit's list could feed prod from dev, put prod before staging, or remove prod and add it again."""

    async def story(bench: PipelineBench) -> None:
        bench.packaging.settings["prod"] = stage_settings("prod", approval=MANUAL)
        bench.pipeline_url()
        dev, staging = stage_settings("dev"), stage_settings("staging", required_checks=True)
        for theirs in ((dev, replace(stage_settings("prod"), branch="dev"), staging), (dev, staging)):
            bench.packaging.stages = theirs
            bench.commit(str(len(theirs)))
            await bench.end_of(await bench.push())
        known = bench.pipeline.parts.definition()
        assert known
        assert [(stage.name, stage.branch, stage.approval) for stage in known.stages] == [
            ("dev", "dev", "none"),
            ("staging", "staging", "none"),
            ("prod", "prod", "manual"),
        ]
        assert known.previous_stage("prod") == "staging"
        (refusal,) = await bench.push("dev", to="prod")
        assert "was never live in staging" in refusal
        bench.git("switch", "-q", "-c", "staging")
        bench.commit("untested")
        assert isinstance(await bench.push("dev", to="staging"), int), "it creates the branch"
        (refusal,) = await bench.push("staging")
        assert "passed no tests yet, which staging requires" in refusal

    tell_story(tmp_path, story)


def test_a_first_release_obeys_the_operators_folder_and_its_commit(
    tmp_path: Path,
) -> None:
    async def story(bench: PipelineBench) -> None:
        bench.packaging.settings["prod"] = stage_settings("prod", approval=MANUAL, notify=(TEAM,))
        bench.pipeline_url()
        bench.packaging.settings["prod"] = stage_settings("prod", notify=(ATTACKER,))
        bench.packaging.settings["staging"] = stage_settings("staging", approval=MANUAL)
        bench.commit("1")
        await bench.end_of(await bench.push())
        run = await bench.end_of((await promote(bench, "dev", "staging")).run)
        assert run["state"] == "waiting_for_approval", "its own commit asks for it"
        bench.pipeline.approve(run["run"], by="bo", why=None)
        await bench.end_of(run["run"])
        assert (await to_prod(bench))["state"] == "waiting_for_approval"
        assert bench.heard[-1][0] == (TEAM,)

    tell_story(tmp_path, story)


def test_a_deploy_by_the_operator_changes_the_protection(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await live_in_prod(bench, approval=MANUAL)
        bench.packaging.settings["prod"] = stage_settings("prod")
        await by_hand(bench, stage_settings("prod"))
        assert (await to_prod(bench, "2"))["state"] == "succeeded"
        await by_hand(bench, stage_settings("prod", approval=MANUAL))
        assert (await to_prod(bench, "3"))["state"] == "waiting_for_approval"

    tell_story(tmp_path, story)


def test_a_stage_that_moves_home_obeys_the_old_homes_protection(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await live_in_prod(bench, approval=MANUAL)
        bench.packaging.settings["prod"] = stage_settings("prod", home=Home.AWS)
        run = await to_prod(bench, "2")
        assert run["state"] == "waiting_for_approval"
        assert run["question"]["protection"].endswith("stage prod: home engine → aws, approval manual → none")
        bench.pipeline.approve(run["run"], by="bo", why=None)
        await bench.end_of(run["run"])
        assert len(bench.on_aws.shipped) == 1
        bench.packaging.settings["prod"] = stage_settings("prod")
        run = await to_prod(bench, "3")
        assert run["state"] == "succeeded", "what is left at the engine protects it no more"

    tell_story(tmp_path, story)


@pytest.mark.parametrize("known_on_aws", [True, False])
def test_a_stage_on_aws_obeys_all_known_protection(tmp_path: Path, known_on_aws: bool) -> None:
    async def story(bench: PipelineBench) -> None:
        strict = stage_settings("prod", home=Home.AWS, approval=MANUAL)
        weak = bench.packaging.settings["prod"] = stage_settings("prod", home=Home.AWS)
        if known_on_aws:  # it was shipped by hand, or this engine has forgotten it
            bench.on_aws.copies["prod"] = replace(release_document("api", service="shop"), settings=strict)
        else:
            bench.packaging.settings["prod"] = strict
            bench.pipeline_url()
            bench.packaging.settings["prod"] = weak
        bench.commit("1")
        await bench.end_of(await bench.push())
        run = await bench.end_of((await bench.pipeline.promote(Promotion("dev", "prod"), actor="ada")).run)
        assert run["state"] == "waiting_for_approval"
        bench.pipeline.approve(run["run"], by="bo", why=None)
        assert (await bench.end_of(run["run"]))["state"] == "succeeded"
        bench.on_aws.copies["prod"] = bench.candidate_of(run["run"])
        run = await bench.end_of((await bench.pipeline.promote(Promotion("dev", "prod"), actor="ada")).run)
        assert run["state"] == "succeeded", "it was approved, and is what is known now"

    tell_story(tmp_path, story)


def test_changes_of_protection_are_shown_in_every_request_for_approval(tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []

    async def story(bench: PipelineBench) -> None:
        await live_in_prod(bench, approval=MANUAL, notify=(TEAM,))
        bench.packaging.settings["prod"] = stage_settings("prod", notify=(ATTACKER,))
        found.append(await to_prod(bench, "2"))
        told = sentence(bench.heard[-1][1])
        assert told.startswith(f"run {found[0]['run']} of prod waits for approval: hitless approve")
        assert f"; {words} (" in told
        assert words in bench.log(found[0]["run"])

    words = "this commit changes the protection of stage prod: approval manual → none, notify changed"
    for name in ("bench", "site"):
        (tmp_path / name).mkdir()
    tell_story(tmp_path / "bench", story)
    (run,) = found
    assert f"  protection: {words}\n" in in_full(run)
    site = Site(tmp_path / "site")
    site.engine.run = {**site.engine.run, "question": run["question"]}
    page = site.ask("GET", f"/approve/7?token={site.token()}").text
    site.remote.store.close()
    assert f"<strong>{words}</strong>" in page
    for shown in (page, in_full(run), json.dumps(run)):
        assert TEAM.target not in shown, "it is a secret"
        assert ATTACKER.target not in shown


def test_combined_protection_has_the_stricter_of_each_setting() -> None:
    weak = StageSettings("prod", "prod", test=False, verify=False, rehearsal=RehearsalSettings(1.0, 9.0, 5.0))
    strict = replace(StageSettings("prod", "other"), approval=MANUAL, required_checks=True)
    harder = replace(strict, rehearsal=RehearsalSettings(4.0, 6.0, 100.0))
    for both in (stricter(weak, harder), stricter(harder, weak)):
        assert (both.approval, both.test, both.verify, both.required_checks) == (MANUAL, True, True, True)
        assert both.rehearsal == RehearsalSettings(4.0, 9.0, 100.0)
    assert stricter(weak, strict).branch == "prod"
    assert changes_of([strict, strict], strict) is None
    assert changes_of([], strict) is None


def test_the_stored_definition_is_private_and_if_unreadable_the_error_says_what_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "definition.json"
    kept = Definition("shop", "", (StageSettings("dev", "dev", notify=(TEAM,)),))
    kept.write(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert Definition.read(file) == kept
    old = [{"stage": "dev", "branch": "dev", "guarded": False}, {"stage": "prod", "branch": "live", "guarded": True}]
    file.write_text(json.dumps({"service": "shop", "path": "", "stages": old}))
    with pytest.raises(EngineError, match=r"definition\.json cannot be read") as failed:
        Definition.read(file)
    assert "hitless pipeline url" in str(failed.value.hint)
