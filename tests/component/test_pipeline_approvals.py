"""An approval's question, in the terminal and behind the link."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hitless.cli.pipeline import in_full
from hitless.engine.releases import release
from hitless.errors import UsageError
from hitless.service.model import Approval, RehearsalSettings
from tests.component.pipeline_bench import PipelineBench, promote, shipped_to_staging, stage_settings, tell_story
from tests.component.receiver_site import Site

pytestmark = pytest.mark.component


async def run_waiting_for_approval(bench: PipelineBench) -> dict[str, Any]:
    """A run that waits to ship to prod, which has another live release with other settings."""
    await shipped_to_staging(bench)
    first = await bench.end_of((await promote(bench, "staging", "prod")).run)
    bench.pipeline.approve(first["run"], by="bo", why=None)
    await bench.end_of(first["run"])
    bench.commit("2")
    await bench.end_of(await bench.push())
    await bench.end_of((await promote(bench, "dev", "staging")).run)
    prod = stage_settings("prod", approval=Approval.MANUAL, rehearsal=RehearsalSettings(), shield=False)
    bench.packaging.settings["prod"] = prod
    return await bench.end_of((await promote(bench, "staging", "prod")).run)


def test_an_approval_shows_commits_configuration_changes_and_the_rehearsal_result(
    tmp_path: Path,
) -> None:
    found: list[dict[str, Any]] = []

    async def story(bench: PipelineBench) -> None:
        found.append(await run_waiting_for_approval(bench))

    for name in ("bench", "site"):
        (tmp_path / name).mkdir()
    tell_story(tmp_path / "bench", story)
    (run,) = found
    assert [one["subject"] for one in run["question"]["commits"]] == ["code 2"]
    text = in_full(run)
    assert f"  commit {run['commit'][:8]} code 2 (" in text
    assert "  configuration: settings.shield: True → False\n" in text
    assert "  rehearsal: as it was\n" in text

    site = Site(tmp_path / "site")
    site.engine.run = {**site.engine.run, "question": run["question"]}
    page = site.ask("GET", f"/approve/7?token={site.token()}").text
    site.remote.store.close()
    for shown in (
        f"<li><code>{run['commit'][:8]}</code> code 2",
        "<li>settings.shield: True → False",
        "<p>as it was</p>",
    ):
        assert shown in page


def test_the_receipt_of_an_override_has_its_reason(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        await shipped_to_staging(bench)
        bench.git("switch", "-q", "-c", "prod")
        bench.commit("hotfix")
        run = await bench.end_of(await bench.push("prod", options={"override": "the site is down"}))
        with pytest.raises(UsageError, match="longer than 1000 characters"):
            bench.pipeline.approve(run["run"], by="bo", why="x" * 1001)
        bench.pipeline.approve(run["run"], by="bo", why="x" * 1000)
        shipped = await bench.end_of(run["run"])
        receipt = release(bench.engine.store, "prod", shipped["release"]).rollouts[0].receipt
        assert receipt
        assert receipt.why
        assert receipt.who
        assert "override: the site is down" in receipt.why
        assert receipt.who.actor == "ada@laptop"

    tell_story(tmp_path, story)
