"""`scripts/demo --aws`: its summary of a broken canary with the shield and without, and one complete run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripts.demo_shield import FIRST_CARD, BrokenCanary, Comparison, settings

from hitless.drill.report import render
from hitless.service.load import load_service
from tests.unit.test_drill_report import drilled

pytestmark = pytest.mark.aws

ROOT = Path(__file__).parents[2]
STEPS = [
    {"at": "2026-11-24T12:00:00.000Z", "state": "expanding", "weight_percent": 0},
    {"at": "2026-11-24T12:00:10.000Z", "state": "shifting", "weight_percent": 50},
    {"at": "2026-11-24T12:00:16.500Z", "state": "ended", "weight_percent": 0},
]


def canary(*, gets: int, failed: int, shielded: int) -> BrokenCanary:
    """A result made of documents in the forms of the drill, the deploy and its receipt."""
    asked = {"200": gets - failed - 100, **({"502": failed} if failed else {})}
    by_request: list[dict[str, Any]] = [
        {"request": "GET /health", "failed": 0, "statuses": {"200": 100}},
        {"request": "GET /version", "failed": failed, "statuses": asked},
        {"request": "POST /meetings", "failed": 0, "statuses": {"200": 7}},
    ]
    receipt = {"candidate": {"requests": 99, "failed": failed, "shielded": shielded}}
    return BrokenCanary.of({"by_request": by_request, "duration_s": 20.0}, {"steps": STEPS}, {"receipt": receipt})


SHIELDED, CONTROL = canary(gets=1400, failed=0, shielded=44), canary(gets=240, failed=36, shielded=0)
WHOLE = Comparison(SHIELDED, CONTROL)


def test_the_demo_page_begins_with_the_failures_of_both_runs_and_counts_the_control_separately() -> None:
    page = WHOLE.on(render(drilled()))
    card = page[page.index(FIRST_CARD) : page.index("</section>")]
    assert "With the shield 0 GETs failed; without it 36 of 240 did (15.0 %): the canary's share." in card
    assert "control ran afterwards, under a load of its own, and is counted here alone" in card
    shielded, control = (re.sub("<[^>]*>", "|", row) for row in card.split("<tr>")[2:])
    assert re.findall(r"[^|\n]+", shielded)[:6] == ["the shield on", "1,400", "0", "0.0 %", "44", "44"]
    assert re.findall(r"[^|\n]+", control)[:6] == ["control: the shield off", "240", "36", "15.0 %", "36", "0"]
    assert "50 % of the traffic for 6.5 of 20.0 s" in control
    assert page.replace(card + "</section>\n\n", "") == render(drilled()), "the rest of the page is as it was"
    assert WHOLE.held


def test_the_demo_prints_the_failures_of_both_runs() -> None:
    title, shielded, control = WHOLE.in_words().splitlines()
    assert "every GET fails" in title
    assert "the shield on            0 of 1,400 GETs failed (0.0 %)" in shielded
    assert shielded.endswith("failed 44, of which the live release answered 44; in the totals")
    assert "control: the shield off  36 of 240 GETs failed (15.0 %)" in control
    assert control.endswith("failed 36, of which the live release answered 0; counted apart")


@pytest.mark.parametrize(
    ("shielded", "control", "why"),
    [
        (SHIELDED, canary(gets=240, failed=0, shielded=0), "the control, with the shield off, lost no request"),
        (canary(gets=1400, failed=0, shielded=0), CONTROL, "with the shield on, no GET came to the canary"),
    ],
    ids=["control", "shield"],
)
def test_a_comparison_proves_nothing_if_one_run_met_no_broken_canary(
    shielded: BrokenCanary, control: BrokenCanary, why: str
) -> None:
    comparison = Comparison(shielded, control)
    assert not comparison.held
    assert comparison.verdict == f"The comparison proved nothing: {why}."
    assert comparison.verdict in comparison.card()


def test_a_shield_that_lets_one_request_fail_did_not_work() -> None:
    leaky = Comparison(replace(SHIELDED, failed=1), CONTROL)
    assert not leaky.held
    assert leaky.verdict.startswith("With the shield 1 GETs failed; without it 36 of 240 did")


@pytest.mark.parametrize("shield", [True, False])
def test_the_broken_release_has_no_smoke_requests_and_the_control_has_no_shield(tmp_path: Path, shield: bool) -> None:
    folder = tmp_path / "worldclock"
    shutil.copytree(ROOT / "examples" / "worldclock", folder)
    file = folder / "serverless.yml"
    file.write_text(settings(file.read_text(), "smoke: ${self:custom.smoke}", shield=shield))
    told = load_service(folder, stage="dev", options={"stage": "dev"}, environ={}).settings
    assert (told.smoke, told.shield, told.alarms.minimum_requests) == ((), shield, 1)


@pytest.mark.long
def test_the_whole_demo_fails_only_requests_of_its_control(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    demo = [sys.executable, str(ROOT / "scripts" / "demo_aws.py"), "--report", str(report)]
    done = subprocess.run(demo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(rf"[1-9]\d* requests, 0 failed, 3 releases; report {re.escape(str(report))}", last), last
    verdict = r"With the shield 0 GETs failed; without it [1-9]\d* of \d+ did \(\d+\.\d %\): the canary's share\."
    assert re.search(verdict, done.stdout), done.stdout
    assert re.search(verdict, report.read_text())
